"""Scripts for the upstream: answers and streams of which a test knows every byte."""

from enum import Enum, auto

from tests.upstream import Connection, Gate, Handler, Headers, Request

JSON = {"content-type": "application/json"}
EVENTS = {"content-type": "text/event-stream"}
DONE = b"data: [DONE]\n\n"


class Ending(Enum):
    """How a stream ends."""

    WHOLE = auto()
    RESET = auto()
    CLOSED = auto()


def answering(
    body: bytes = b'{"ok":true}', *, status: int = 200, headers: Headers = JSON
) -> Handler:
    """A script that answers every request alike.

    Args:
        body: The body.
        status: The HTTP status.
        headers: The headers, beside `content-length`.
    """

    async def script(_request: Request, connection: Connection) -> None:
        await connection.answer(status, headers, body)

    return script


def streaming(
    *steps: bytes | Gate, ending: Ending = Ending.WHOLE, headers: Headers = EVENTS
) -> Handler:
    """A script that streams.

    Args:
        steps: Bytes are written as one chunk; at a gate the script waits.
        ending: How the stream ends.
        headers: The headers.
    """

    async def script(_request: Request, connection: Connection) -> None:
        await connection.head(200, headers)
        for step in steps:
            await (step.wait() if isinstance(step, Gate) else connection.chunk(step))
        match ending:
            case Ending.WHOLE:
                await connection.end()
            case Ending.RESET:
                connection.reset()
            case Ending.CLOSED:
                connection.close()

    return script
