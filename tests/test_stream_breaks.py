"""A stream that breaks off says so, and never leaves half an event behind."""

import json
import zlib

import httpx
import pytest

from tests.calls import BEARER, call, chat, open_call
from tests.scripts import EVENTS, Ending, streaming
from tests.server import Server
from tests.upstream import Connection, Gate, Request, Upstream

ASKING = chat(stream=True)
FIRST = b'data: {"choices":[]}\n\n'
BREAKING = pytest.mark.parametrize("ending", [Ending.RESET, Ending.CLOSED])
DISCONNECTED = {
    "message": "The upstream closed the connection before its answer was whole",
    "type": "server_error",
    "param": None,
    "code": "upstream_disconnected",
}


def _error_in(event: bytes) -> object:
    """The error of the one event that this is."""
    assert event.startswith(b"data: ")
    assert event.endswith(b"\n\n")
    return json.loads(event.removeprefix(b"data: "))["error"]


@BREAKING
@pytest.mark.parametrize("half", [b"", b'data: {"choices":[{"del', b": a\n", b"data"])
def test_a_break_becomes_an_error_event(
    server: Server, upstream: Upstream, http: httpx.Client, ending: Ending, half: bytes
) -> None:
    """After the last whole event, without `[DONE]`; the answer then ends in order."""
    gate = Gate()
    steps = (FIRST + half, gate)
    upstream.openai.answer_with(streaming(*steps, ending=ending))

    with open_call(http, server.url, ASKING) as stream:
        first = stream.read(1)
        gate.open()
        error = _error_in(stream.rest())

    assert (first, error, stream.status) == (FIRST, DISCONNECTED, 200)


@BREAKING
def test_a_break_before_the_first_event_is_all_there_is(
    server: Server, upstream: Upstream, http: httpx.Client, ending: Ending
) -> None:
    """The status has gone to the caller by then; the error comes as an event."""
    gate = Gate()
    upstream.openai.answer_with(streaming(gate, ending=ending))

    with open_call(http, server.url, ASKING) as stream:
        gate.open()
        assert _error_in(stream.rest()) == DISCONNECTED


def test_a_stream_shorter_than_it_said_is_broken_off(
    server: Server, upstream: Upstream, http: httpx.Client
) -> None:
    """Its length was told, and the connection ends before it is reached."""

    async def script(_request: Request, connection: Connection) -> None:
        length = {"content-length": str(len(FIRST) + 1)}
        await connection.head(200, EVENTS | length)
        await connection.write(FIRST)
        connection.close()

    upstream.openai.answer_with(script)

    body = call(http, server.url, ASKING).body
    assert (body[: len(FIRST)], _error_in(body[len(FIRST) :])) == (FIRST, DISCONNECTED)


def test_a_stream_that_is_no_http_any_more_is_broken_off(
    server: Server, upstream: Upstream, http: httpx.Client
) -> None:
    """Where the size of the next chunk should be, there is something else."""
    gate = Gate()

    async def script(_request: Request, connection: Connection) -> None:
        await connection.head(200, EVENTS)
        await connection.chunk(FIRST)
        await gate.wait()
        await connection.write(b"no size\r\n")
        connection.close()

    upstream.openai.answer_with(script)
    with open_call(http, server.url, ASKING) as stream:
        first = stream.read(1)
        gate.open()
        error = _error_in(stream.rest())

    expected = DISCONNECTED | {"message": "The upstream's answer is not HTTP"}
    assert (FIRST, expected) == (first, error)


def test_a_reset_is_not_the_end_of_a_stream_that_ends_with_its_connection(
    server: Server, upstream: Upstream, http: httpx.Client
) -> None:
    """Servers of HTTP/1.0 end their streams so, but in order."""
    gate = Gate()

    async def script(_request: Request, connection: Connection) -> None:
        head = b"HTTP/1.0 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
        await connection.write(head + FIRST + b"da")
        await gate.wait()
        connection.reset()

    upstream.openai.answer_with(script)
    with open_call(http, server.url, ASKING) as stream:
        first = stream.read(1)
        gate.open()
        error = _error_in(stream.rest())

    assert (first, error) == (FIRST, DISCONNECTED)


@BREAKING
def test_a_break_inside_an_event_too_large_to_hold_breaks_the_answer(
    server: Server, upstream: Upstream, http: httpx.Client, ending: Ending
) -> None:
    """Half of it is with the caller: only a broken connection says that it is half."""
    gate = Gate()
    half = b"data: " + b"x" * 200_000
    upstream.openai.answer_with(streaming(half, gate, ending=ending))

    with open_call(http, server.url, ASKING) as stream:
        seen = stream.read(100_000)
        gate.open()
        with pytest.raises(httpx.RemoteProtocolError):
            stream.rest()

    assert half.startswith(seen)


@BREAKING
def test_a_break_in_a_compressed_stream_breaks_the_answer(
    server: Server, upstream: Upstream, http: httpx.Client, ending: Ending
) -> None:
    """No event can be put into it."""
    packer = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    first = packer.compress(FIRST) + packer.flush(zlib.Z_SYNC_FLUSH)
    gate = Gate()
    headers = EVENTS | {"content-encoding": "gzip"}
    script = streaming(first, gate, ending=ending, headers=headers)
    upstream.openai.answer_with(script)

    accepting = BEARER | {"Accept-Encoding": "gzip"}
    with open_call(http, server.url, ASKING, headers=accepting) as stream:
        seen = stream.read(len(first))
        gate.open()
        with pytest.raises(httpx.RemoteProtocolError):
            stream.rest()

    assert first == seen


def test_the_next_stream_is_whole(
    server: Server, upstream: Upstream, http: httpx.Client
) -> None:
    """A break concerns one call; nothing of it is left on the server."""
    upstream.openai.answer_with(streaming(FIRST + b"da", ending=Ending.RESET), times=1)
    call(http, server.url, ASKING)
    upstream.openai.answer_with(streaming(FIRST))

    assert call(http, server.url, ASKING).body == FIRST
