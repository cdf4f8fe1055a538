"""A stream passes event by event, as it arrives and as it is written."""

import time
import zlib
from contextlib import AbstractContextManager
from unittest.mock import Mock

import httpx
import pytest

from lls_openai.server.caller import Caller
from tests.support import http, wire
from tests.support.http import (
    CHAT,
    CHAT_REQUEST,
    MESSAGES,
    RawConnection,
    eventually,
    to_json,
)
from tests.support.server import Server
from tests.support.upstream import Upstream
from tests.support.wire import (
    DONE,
    EVENTS,
    FIRST_EVENT,
    Gate,
    Step,
    event,
    response_head,
    stream,
)

pytestmark = pytest.mark.providers({"impatient": {"network": {"timeout": 0.5}}})
LARGE = b"data: " + b"x" * 100_000
PACKER = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
PACKED = [
    PACKER.compress(FIRST_EVENT) + PACKER.flush(zlib.Z_SYNC_FLUSH),
    PACKER.flush(),
]
GZIP = EVENTS | {"content-encoding": "gzip"}
STREAMS = {
    "events": (
        EVENTS,
        [FIRST_EVENT, b": a comment\n\n", event({}, "response.x"), DONE],
    ),
    "compressed": (GZIP, PACKED),
}
# Nothing is added or mended, not even the end of a line.
ODD = b"""\xef\xbb\xbfid: 7\nretry: 10\ndata:{}\n\n\n\n\r\n: \xff\x00\n\ndata: {"a":
data: 1e-7}\r\n\ndata: {"error":{"message":"overloaded"}}\n\ndata: [DONE]\n\ndata: {"""


def call(
    client: httpx.Client, path: str = CHAT, provider: str = "impatient"
) -> AbstractContextManager[httpx.Response]:
    body = http.chat(f"{provider}/m-1", stream=True)
    return client.stream("POST", path, json=body, headers=http.bearer())


@pytest.mark.parametrize("kind", STREAMS)
def test_events_pass_one_by_one(
    upstream: Upstream, client: httpx.Client, kind: str
) -> None:
    headers, events = STREAMS[kind]
    gates = [Gate() for _ in events]
    steps = [step for pair in zip(events, gates, strict=True) for step in pair]
    upstream.openai.script(*stream(*steps, headers=headers))

    with call(client, provider="openai") as got:
        assert got.headers["x-accel-buffering"] == "no"
        pieces = got.iter_raw()
        for expected, gate in zip(events, gates, strict=True):
            assert next(pieces) == expected
            gate.open()
        assert list(pieces) == []


def test_a_stream_passes_as_written(upstream: Upstream, client: httpx.Client) -> None:
    """Byte by byte, even without an end, and for longer than its upstream's timeout."""
    upstream.openai.pause = 0.01
    upstream.openai.script(*stream(*(ODD[at : at + 1] for at in range(len(ODD)))))
    began = time.monotonic()

    with call(client) as got:
        assert got.read() == ODD
    assert time.monotonic() - began > 0.5


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=repr)
def test_an_event_too_large_to_hold_passes_in_pieces(
    upstream: Upstream, client: httpx.Client, end: bytes
) -> None:
    """It is whole when its last byte is there, and the next one is held again."""
    large = LARGE + end * 2
    for cut in range(1, len(end * 2) + 1):
        gate = Gate()
        steps = stream(large[:-cut], gate, large[-cut:] + b"data: half", end=wire.CLOSE)
        upstream.openai.script(*steps)
        with call(client, provider="openai") as got:
            pieces = got.iter_raw()
            seen = next(pieces)
            gate.open()
            size = len(large + b"data: half")
            message = CLOSED.replace(f" {len(FIRST_EVENT)} ", f" {size:,} ")
            assert seen + b"".join(pieces) == large + error_event(message)


def test_a_stream_is_kept_from_caches_and_buffers(
    upstream: Upstream, client: httpx.Client
) -> None:
    """Unless the vendor says otherwise; a default nginx would send it at its end."""
    kind = {"content-type": "Text/Event-Stream; charset=utf-8"}
    upstream.openai.script(*stream(headers=kind | {"X-Accel-Buffering": "yes"}))

    with call(client) as got:
        expected = kind | {"cache-control": "no-cache", "x-accel-buffering": "yes"}
        assert expected.items() <= got.headers.items()


AFTER_FIRST = f"after {len(FIRST_EVENT)} bytes of the response body"
CLOSED = f"The upstream closed the connection {AFTER_FIRST}"
RESET = f"The upstream reset the connection {AFTER_FIRST}"
SILENT = "The upstream was silent for longer than 0.5 s (network.timeout)"


def error_event(message: str = CLOSED, code: str = "upstream_disconnected") -> bytes:
    error = {"message": message, "type": "server_error", "param": None, "code": code}
    return event({"error": error})


DISCONNECTED = error_event()
AFTER_HALF = f"after {len(FIRST_EVENT * 2 + b'data: ha')} bytes of the response body"
BROKEN = f"The upstream reset the connection {AFTER_HALF}"
NATIVE = {"type": "error", "error": {"type": "api_error", "message": BROKEN}}
BEGUN = stream(FIRST_EVENT)[:-1]
# Two events arrive at once, and a third is half there.
HALF = stream(FIRST_EVENT * 2 + b"data: ha")[:-1]
OPEN_END: list[Step] = [response_head(200, EVENTS) + FIRST_EVENT]
NO_CHUNK = error_event(
    "The upstream's response is not valid HTTP: Invalid character in chunk size"
)
# The route, what comes before the break, how it breaks, and what the caller is told.
BREAKS: dict[str, tuple[str, list[Step], Step, bytes | None]] = {
    "closed": (CHAT, BEGUN, wire.CLOSE, DISCONNECTED),
    "Messages": (MESSAGES, HALF, wire.RESET, event(NATIVE, "error")),
    "silent": (CHAT, HALF, wire.SILENCE, error_event(SILENT, "upstream_timeout")),
    "to its end, reset": (CHAT, OPEN_END, wire.RESET, error_event(RESET)),
    "to its end, closed": (CHAT, OPEN_END, wire.CLOSE, b""),
    "no chunk": (CHAT, BEGUN, b"no size\r\n", NO_CHUNK),
    # No event can follow: half of one is with the caller, or it is compressed.
    "large": (CHAT, stream(LARGE)[:-1], wire.CLOSE, None),
    "compressed": (CHAT, stream(PACKED[0], headers=GZIP)[:-1], wire.CLOSE, None),
}


@pytest.mark.parametrize("kind", BREAKS)
def test_a_break_becomes_an_error_event_or_the_end_of_the_connection(
    server: Server, upstream: Upstream, client: httpx.Client, kind: str
) -> None:
    path, start, end, expected = BREAKS[kind]
    gate = Gate()
    upstream.openai.script(*start, gate, end)

    with call(client, path) as got:
        pieces = got.iter_raw()
        first = next(pieces)
        assert first in (FIRST_EVENT, FIRST_EVENT * 2, PACKED[0]) or LARGE.startswith(
            first
        )
        gate.open()
        if expected is None:
            with pytest.raises(httpx.RemoteProtocolError):
                list(pieces)
        else:
            assert b"".join(pieces) == expected
    (line,) = server.wait_access_log(request_id=got.headers["x-request-id"])
    assert bool(line["code"]) == (kind != "to its end, closed")
    # uvicorn would say so of an answer that is simply given up.
    assert "without completing response" not in server.log


WHOLE: list[Step] = [
    response_head(200, {"content-length": "99"}) + b'{"half":',
    wire.SILENCE,
]
# The upstream's answer, and what the caller reads of it.
LEAVING: dict[str, tuple[list[Step], bytes]] = {
    "before the answer": ([wire.SILENCE], b""),
    "inside a whole answer": (WHOLE, b""),
    "inside a stream": ([*HALF, wire.SILENCE], FIRST_EVENT * 2),
}
LARGE_CALL = http.request(body=to_json(http.chat(user="x" * 20_000_000)))


@pytest.mark.parametrize("by_reset", [False, True], ids=["closing", "reset"])
@pytest.mark.parametrize("sent", [CHAT_REQUEST * 11, LARGE_CALL], ids=len)
@pytest.mark.parametrize("kind", LEAVING)
def test_a_caller_that_disconnects_closes_its_call_at_once(
    server: Server, upstream: Upstream, kind: str, sent: bytes, *, by_reset: bool
) -> None:
    """Though the upstream is silent just then; what was sent ahead calls nobody."""
    steps, seen = LEAVING[kind]
    upstream.openai.script(*steps)

    with RawConnection(server.port) as raw:
        raw.send(sent)
        upstream.openai.wait_requests()
        raw.send(CHAT_REQUEST * 10 + b"POST / HTT")
        assert raw.read_until(seen).endswith(seen)
        if by_reset:
            raw.reset()

    assert upstream.openai.request.disconnected.wait(2)


def test_a_caller_that_left_before_its_call_began_is_told_of_at_once() -> None:
    """While Llama Stack was asked for the model: no test from outside hits that."""
    told = Mock()
    Caller(Mock(scope={"http_version": "1.1"}, disconnected=True)).on_disconnect(told)
    told.assert_called_once_with()


def test_a_caller_that_goes_stops_its_body(server: Server, upstream: Upstream) -> None:
    gate = Gate()
    upstream.openai.script(gate, wire.READ_BODY, wire.respond())

    with RawConnection(server.port) as raw:
        raw.send(LARGE_CALL)
        gate.wait_reached()
        during = server.open_files()
    # Its own connection and the upstream's are gone.
    eventually(
        lambda: server.open_files() <= during - 2,
        "the client's and the upstream's connection are closed",
    )
    gate.open()

    assert upstream.openai.request.disconnected.wait(2)
    assert not upstream.openai.request.complete
