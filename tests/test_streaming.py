"""Streams are relayed event by event, as they arrive and as they are written."""

import time
import zlib

import httpx
import pytest

from tests.support.http import open_response
from tests.support.upstream import Upstream
from tests.support.wire import (
    CLOSE,
    DONE,
    EVENTS,
    FIRST_EVENT,
    Gate,
    Json,
    event,
    stream,
)

pytestmark = pytest.mark.providers({"impatient": {"network": {"timeout": 0.5}}})


def compress(*parts: bytes) -> list[bytes]:
    """Return a gzip stream in pieces, each of which can be decompressed at once."""
    gzip = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    pieces = [gzip.compress(part) + gzip.flush(zlib.Z_SYNC_FLUSH) for part in parts]
    return [*pieces, gzip.flush()]


@pytest.mark.parametrize(
    ("headers", "pieces"),
    [
        pytest.param(
            EVENTS,
            [FIRST_EVENT, b": a comment\n\n", event({}, "response.x"), DONE],
            id="events",
        ),
        pytest.param(
            EVENTS | {"content-encoding": "gzip"},
            compress(FIRST_EVENT, DONE),
            id="gzip",
        ),
    ],
)
def test_each_event_is_relayed_before_the_next_one_arrives(
    upstream: Upstream, client: httpx.Client, headers: Json, pieces: list[bytes]
) -> None:
    gates = [Gate() for _ in pieces]
    steps = [step for pair in zip(pieces, gates, strict=True) for step in pair]
    upstream.openai.script(*stream(*steps, headers=headers))

    with open_response(client) as response:
        received = response.iter_raw()
        for piece, gate in zip(pieces, gates, strict=True):
            assert next(received) == piece
            gate.open()
        assert list(received) == []


def test_unusual_stream_is_relayed_byte_for_byte(
    upstream: Upstream, client: httpx.Client
) -> None:
    """Nothing is added or corrected, not even the end of the last line."""
    body = (
        b"\xef\xbb\xbfid: 7\nretry: 10\ndata:{}\n\n\n\n\r\n: \xff\x00\n\n"
        b'data: {"a":\ndata: 1e-7}\r\n\ndata: {"error":{"message":"overloaded"}}\n\n'
        b"data: [DONE]\n\ndata: {"
    )
    upstream.openai.script(*stream(*(body[at : at + 1] for at in range(len(body)))))

    with open_response(client) as response:
        assert response.read() == body


def test_stream_may_last_longer_than_the_upstream_timeout(
    upstream: Upstream, client: httpx.Client
) -> None:
    events = [FIRST_EVENT] * 8
    upstream.openai.pause = 0.1
    upstream.openai.script(*stream(*events, DONE))
    start = time.monotonic()

    with open_response(client, model="impatient/m-1") as response:
        assert response.read() == b"".join(events) + DONE
    assert time.monotonic() - start > 0.5


@pytest.mark.parametrize(
    "end", [b"\n\n", b"\r\n\r\n", b"\r\r"], ids=["LF", "CRLF", "CR"]
)
def test_event_too_large_to_buffer_is_relayed_in_pieces(
    upstream: Upstream, client: httpx.Client, end: bytes
) -> None:
    """Its last byte completes it: an error event can follow, in place of the next."""
    large = b"data: " + b"x" * 100_000 + end
    for cut in range(1, len(end) + 1):
        gate = Gate()
        rest = large[-cut:] + b"data: half"
        upstream.openai.script(*stream(large[:-cut], gate, rest, end=CLOSE))

        with open_response(client) as response:
            pieces = response.iter_raw()
            received = next(pieces)
            gate.open()
            received += b"".join(pieces)

        assert received.startswith(large), received[-300:]
        assert received.removeprefix(large).startswith(b'data: {"error":')


def test_stream_has_headers_against_caches_and_buffers(
    upstream: Upstream, client: httpx.Client
) -> None:
    """With its defaults, nginx would send a stream when it ends."""
    upstream.openai.script(*stream(DONE))

    with open_response(client) as response:
        assert response.headers["cache-control"] == "no-cache"
        assert response.headers["x-accel-buffering"] == "no"


def test_headers_against_buffers_do_not_replace_the_upstreams(
    upstream: Upstream, client: httpx.Client
) -> None:
    headers = {
        "content-type": "Text/Event-Stream; charset=utf-8",
        "x-accel-buffering": "yes",
    }
    upstream.openai.script(*stream(DONE, headers=headers))

    with open_response(client) as response:
        assert headers.items() <= dict(response.headers).items()
        assert response.headers["cache-control"] == "no-cache"
