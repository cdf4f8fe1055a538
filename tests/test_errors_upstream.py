"""An upstream that gives no answer that could be relayed is one error: 502."""

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.calls import call, chat
from tests.scripts import JSON
from tests.server import Server
from tests.upstream import Connection, Gate, Request, Upstream

pytest_plugins = ["tests.variants"]

CLOSED = "The upstream closed the connection before its answer was whole"
NOT_HTTP = "The upstream's answer is not HTTP"


def _unreachable(message: str) -> dict[str, str | None]:
    return {
        "message": message,
        "type": "server_error",
        "param": None,
        "code": "upstream_unreachable",
    }


@pytest.mark.parametrize(
    ("provider", "message"),
    [
        ("refusing", "The upstream refused the connection"),
        ("nameless", "The upstream's name could not be resolved"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_no_connection_is_an_error(
    various_server: Server,
    http: httpx.Client,
    provider: str,
    message: str,
    *,
    stream: bool,
) -> None:
    """Refused, or its name leads nowhere; a streamed call gets the same."""
    answer = call(http, various_server.url, chat(f"{provider}/m-1", stream=stream))

    assert (502, _unreachable(message)) == (answer.status, answer.error)


# What the upstream writes before it closes the connection, and what that is called.
WRITTEN = {
    "nothing": (b"", CLOSED),
    "no HTTP": (b"hello\r\n\r\n", NOT_HTTP),
    "TLS": (b"\x16\x03\x01\x02\x00", NOT_HTTP),
    "another version": (b"HTTP/7.0 200 OK\r\n\r\n", NOT_HTTP),
    "no status": (b"HTTP/1.1 OK\r\n\r\n", NOT_HTTP),
    "half a head": (b"HTTP/1.1 200 OK\r\ncontent-type: app", CLOSED),
    "no header": (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", NOT_HTTP),
    "an endless header": (b"HTTP/1.1 200 OK\r\nx: " + b"x" * 100_000, NOT_HTTP),
    "an odd length": (b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n", NOT_HTTP),
    "half a body": (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{", CLOSED),
    "half a chunk": (
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\n{",
        CLOSED,
    ),
    "no last chunk": (
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\n",
        CLOSED,
    ),
    "no chunk": (
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nnone\r\n",
        NOT_HTTP,
    ),
    "half an error": (
        b"HTTP/1.1 429 Slow\r\nretry-after: 1\r\ncontent-length: 9\r\n\r\n{",
        CLOSED,
    ),
    "an interim answer": (b"HTTP/1.1 103 Hints\r\n\r\n", CLOSED),
}


@pytest.mark.parametrize(("written", "message"), WRITTEN.values(), ids=WRITTEN)
def test_no_whole_answer_is_an_error(
    server: Server,
    upstream: Upstream,
    http: httpx.Client,
    written: bytes,
    message: str,
) -> None:
    """Whatever came of it; nothing of it is relayed, and the call not tried again."""

    async def script(_request: Request, connection: Connection) -> None:
        await connection.write(written)
        connection.close()

    upstream.openai.answer_with(script)
    answer = call(http, server.url, chat())

    assert (502, _unreachable(message)) == (answer.status, answer.error)
    assert len(upstream.openai.calls) == 1


@pytest.mark.parametrize("stream", [False, True])
def test_a_reset_is_an_error(
    server: Server, upstream: Upstream, http: httpx.Client, *, stream: bool
) -> None:
    """Before the answer, with nothing said."""

    async def script(_request: Request, connection: Connection) -> None:
        connection.reset()

    upstream.openai.answer_with(script)
    answer = call(http, server.url, chat(stream=stream))

    assert (502, _unreachable(CLOSED)) == (answer.status, answer.error)


def test_a_reset_is_not_the_end_of_an_answer(
    server: Server, upstream: Upstream, http: httpx.Client
) -> None:
    """Not even of one that ends with its connection, of which half has come."""
    gate = Gate()

    async def script(_request: Request, connection: Connection) -> None:
        await connection.write(b"HTTP/1.0 200 OK\r\n\r\n{")
        await gate.wait()
        connection.reset()

    upstream.openai.answer_with(script)
    with ThreadPoolExecutor(1) as caller:
        answered = caller.submit(call, http, server.url, chat())
        upstream.openai.wait_until(lambda: bool(upstream.openai.calls))
        # The server's loop has read the half before it answers this.
        call(http, server.url, chat("gemini/gemini-2.5-flash-lite"))
        gate.open()
        answer = answered.result()

    assert (502, _unreachable(CLOSED)) == (answer.status, answer.error)


def test_a_break_in_an_answer_too_large_to_hold_breaks_the_answer(
    server: Server, upstream: Upstream, http: httpx.Client
) -> None:
    """A part of it is with the caller, who must not take it for the whole."""

    async def script(_request: Request, connection: Connection) -> None:
        await connection.head(200, JSON)
        await connection.chunk(b"x" * 3_000_000)
        connection.close()

    upstream.openai.answer_with(script)
    with pytest.raises(httpx.RemoteProtocolError):
        call(http, server.url, chat())


def test_an_answer_before_the_request_was_sent_whole_is_an_answer(
    server: Server, upstream: Upstream, http: httpx.Client
) -> None:
    """An upstream may refuse a large body before it has read it."""
    body = b'{"error":{"message":"too large"}}'

    async def script(request: Request, connection: Connection) -> None:
        await connection.answer(413, JSON, body)
        await connection.read_body(request)

    upstream.openai.answer_with(script, read_body=False)
    answer = call(http, server.url, chat(user="x" * 20_000_000))

    assert (413, body) == (answer.status, answer.body)
    assert len(upstream.openai.calls) == 1
