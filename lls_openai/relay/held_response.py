"""A response of Llama Stack's own that is held until it is complete, then converted."""

from collections.abc import Callable

from starlette.types import Message, Send

from lls_openai.errors import ResponseHeaders

# Takes a status and a body; returns the new body, and headers to add.
type Convert = Callable[[int, bytes], tuple[bytes, ResponseHeaders]]


class HeldResponse:
    """Sends a converted response; one to whose status `applies` says no passes."""

    def __init__(
        self,
        send: Send,
        convert: Convert,
        applies: Callable[[int], bool] = lambda _status: True,
    ) -> None:
        self._send, self._convert, self._applies = send, convert, applies
        self._start: Message = {}
        self._body = b""

    async def send(self, message: Message) -> None:
        """Hold a message until the response is complete, or pass it."""
        if message["type"] == "http.response.start" and self._applies(
            message["status"]
        ):
            self._start = message
        elif not self._start:
            await self._send(message)
        else:
            self._body += message.get("body", b"")
            if not message.get("more_body"):
                await self._send_converted()

    async def _send_converted(self) -> None:
        start = self._start
        body, added = self._convert(start["status"], self._body)
        kept = [p for p in start["headers"] if p[0].lower() != b"content-length"]
        length = b"content-length", b"%d" % len(body)
        await self._send({**start, "headers": [*kept, length, *added]})
        await self._send({"type": "http.response.body", "body": body})
