"""A caller's connection: what is a request on it, what is none, what is too much."""

import socket
import urllib.error
import urllib.request
from contextlib import suppress
from itertools import repeat

import pytest

from tests.support import http
from tests.support.http import (
    CHAT,
    DEFAULT_HEADERS,
    MEBIBYTE,
    RawConnection,
    chat,
    exchange,
    request,
    to_json,
)
from tests.support.server import Server
from tests.support.upstream import Upstream
from tests.support.wire import DONE, FIRST_EVENT, LAST_CHUNK, Gate, chunk, stream

BODY = http.CHAT_BODY
NEXT = request(body=to_json(chat(user="next")))
CHUNKED = b"Transfer-Encoding: chunked"
LIMIT = 64 * MEBIBYTE


def post(*lines: bytes, body: bytes = BODY) -> bytes:
    return request(b"POST", CHAT, *lines, body=body)


H2C = b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c"
WEBSOCKET = b"Upgrade: websocket", b"Connection: keep-alive, upgrade"


@pytest.mark.parametrize("piece", [1, 10_000])
@pytest.mark.parametrize("offer", [H2C, WEBSOCKET])
def test_an_offered_upgrade_is_declined(
    server: Server, upstream: Upstream, offer: tuple[bytes, ...], piece: int
) -> None:
    """The body is read as HTTP/1.1, and no request in it is run (RFC 9110, 7.8)."""
    hidden = b"\r\n" * 5 + request(body=to_json(chat("openai/hidden")))
    chunks = request(b"POST", CHAT, *offer, CHUNKED)
    with RawConnection(server.port) as raw:
        for sent, status in (
            (post(*offer), 200),
            (post(*offer, body=hidden), 400),
            (chunks + chunk(hidden) + b"0\r\nX-A: b\r\n\r\n", 400),
            (chunks + chunk(BODY) + LAST_CHUNK, 200),
            (request(b"GET", http.MODELS, *offer), 200),
            (NEXT, 200),
        ):
            raw.send(*(sent[at : at + piece] for at in range(0, len(sent), piece)))
            assert raw.read_response().status == status

    users = [each.json.get("user") for each in upstream.openai.requests]
    assert users == [None, None, "next"]


# What two readers of HTTP might read differently (RFC 9112, sections 5 and 6.3).
DOUBTFUL = {
    "length and chunks": post(CHUNKED),
    "a chunk's size that is none": request(b"POST", CHAT, CHUNKED) + BODY,
    "a lone line feed": post(b"OpenAI-Beta: a\nX-B: 1"),
    "no HTTP": b"\x00\x01\x02 garbage\r\n\r\n",
    "a tunnel": b"CONNECT elsewhere:80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
}


@pytest.mark.parametrize("sent", DOUBTFUL.values(), ids=DOUBTFUL)
def test_unclear_http_is_a_400(server: Server, upstream: Upstream, sent: bytes) -> None:
    with RawConnection(server.port) as raw:
        raw.send(sent, NEXT)
        assert raw.read_response().status_and_code == (400, "invalid_http_request")
        assert raw.read_to_end() == b""

    assert upstream.openai.requests == []


def test_a_head_without_an_end_is_refused(server: Server) -> None:
    """Nor does it hold up others; who sends it all before it looks reads the 431."""
    grown = server.measure_growth()
    with socket.create_connection(("127.0.0.1", server.port), 10) as caller:
        caller.sendall(b"GET / HTTP/1.1\r\nX-A: ")
        for part in repeat(b"a" * 100_000, 1000):
            caller.sendall(part)
        answer = caller.recv(65536)
    large = request(b"GET", http.MODELS, b"X-A: " + b"a" * 60_000)

    assert answer.startswith(b"HTTP/1.1 431 ")
    assert b'"code":"request_too_large"' in answer
    assert exchange(server.port, large).status == 200
    assert grown() < 8 * MEBIBYTE


def test_pipelined_calls_keep_their_order(server: Server, upstream: Upstream) -> None:
    """Each with the key that it came with; an unread body runs into none of them."""
    keys = [f"sk-openai-mock-{number}" for number in range(8)]
    calls = [
        request(
            b"POST",
            CHAT,
            b"X-Api-Key: " + key.encode(),
            body=BODY,
            headers=DEFAULT_HEADERS[:2],
        )
        for key in keys
    ]
    with RawConnection(server.port) as raw:
        raw.send(
            request(body=NEXT * 2000, headers=http.PLAIN_TEXT_HEADERS) + b"".join(calls)
        )
        assert [raw.read_response().status for _ in range(9)] == [415, *[200] * 8]

    assert [each.key for each in upstream.openai.requests] == keys


def test_too_many_pipelined_requests_end_the_connection(server: Server) -> None:
    """A hundred thousand without waiting for an answer would pile up in memory."""
    grown = server.measure_growth()
    with RawConnection(server.port) as raw:
        raw.send(*repeat(http.HEALTH_REQUEST * 1000, 100))
        answered = raw.read_to_end().count(b"HTTP/1.1 200 OK")

    assert answered < 1000
    assert grown() < 16 * MEBIBYTE


@pytest.mark.parametrize("more", [b"\x00garbage\r\n\r\n", b"X" * 200_000], ids=len)
def test_nothing_is_written_into_a_running_answer(
    server: Server, upstream: Upstream, more: bytes
) -> None:
    gate = Gate()
    upstream.openai.script(*stream(FIRST_EVENT, gate, DONE))
    with RawConnection(server.port) as raw:
        raw.send(http.STREAMING_REQUEST)
        raw.read_until(FIRST_EVENT)
        raw.send(more)
        # It has been read when another caller has been answered.
        assert exchange(server.port, http.HEALTH_REQUEST).status == 200
        gate.open()
        assert raw.read_to_end() == b"\r\n" + chunk(DONE) + LAST_CHUNK


@pytest.mark.parametrize(
    "refused",
    [request(b"POST", CHAT, CHUNKED, headers=http.PLAIN_TEXT_HEADERS), b"\x00"],
    ids=len,
)
def test_what_is_refused_is_not_read_for_ever(server: Server, refused: bytes) -> None:
    """After half a gigabyte the connection ends, of which nothing was held."""
    grown, sent = server.measure_growth(), 0
    address = ("127.0.0.1", server.port)
    with socket.create_connection(address, 10) as caller, suppress(ConnectionError):
        caller.sendall(refused)
        while sent < 1000:
            caller.sendall(chunk(b"x" * MEBIBYTE))
            sent += 1

    assert 400 < sent < 900
    assert grown() < 32 * MEBIBYTE


@pytest.mark.parametrize("is_announced", [True, False])
def test_who_sends_all_first_reads_a_413(server: Server, *, is_announced: bool) -> None:
    grown = server.measure_growth()
    headers = http.bearer() | {"Content-Type": "application/json"}
    if is_announced:
        headers["Content-Length"] = str(200 * MEBIBYTE)
    zeros = repeat(b"0" * MEBIBYTE, 200)
    call = urllib.request.Request(server.url + CHAT, zeros, headers)  # noqa: S310 - ours

    with pytest.raises(urllib.error.HTTPError, match="413") as refused:
        urllib.request.urlopen(call, timeout=20)  # noqa: S310 - as above

    assert b"over the limit of 67,108,864 bytes" in refused.value.read()
    assert grown() < (0 if is_announced else LIMIT) + 16 * MEBIBYTE


@pytest.mark.providers({"limits-small": {"max_request_bytes": 1000}})
@pytest.mark.parametrize(
    ("provider", "size", "status"),
    [("openai", LIMIT, 200), ("limits-small", 1000, 200), ("limits-small", 1001, 413)],
)
def test_a_body_is_taken_up_to_the_limit(
    server: Server, upstream: Upstream, provider: str, size: int, status: int
) -> None:
    body = to_json(chat(f"{provider}/gpt-4o")).ljust(size)
    chunks = request(b"POST", CHAT, CHUNKED) + chunk(body) + LAST_CHUNK

    answers = [exchange(server.port, sent) for sent in (request(body=body), chunks)]

    assert [each.status for each in answers] == [status] * 2
    assert len(upstream.openai.requests) == (0 if status == 413 else 2)


# Python's `int` raises for that many digits.
ZEROS = b"Content-Length: %05000d" % len(BODY)


@pytest.mark.parametrize(
    ("status", "lines"),
    [
        (200, (b"CONTENT-TYPE: APPLICATION/JSON; charset=utf-8",)),
        (200, (b"Content-Type: application/vnd.x-1.y+json",)),
        (200, (DEFAULT_HEADERS[1], b"Content-Encoding: Identity")),
        (415, ()),
        # What any page may have a browser send here, unasked (CORS).
        (415, (b"Content-Type: text/plain;application/json",)),
        (415, (b"Content-Type: application/jsonl",)),
        (415, (b"Content-Type: application/x-json",)),
        (415, (DEFAULT_HEADERS[1], b"Content-Encoding: identity, br")),
        (200, (DEFAULT_HEADERS[1], ZEROS)),
        (413, (DEFAULT_HEADERS[1], b"Content-Length: " + b"9" * 19)),
    ],
)
def test_a_head_that_announces_no_plain_json_is_refused(
    server: Server, status: int, lines: tuple[bytes, ...]
) -> None:
    """Before any of the body is there."""
    own = any(each.startswith(b"Content-Length") for each in lines)
    announced = () if own else (b"Content-Length: %d" % len(BODY),)
    head = request(
        b"POST",
        CHAT,
        *announced,
        *lines,
        headers=(DEFAULT_HEADERS[0], DEFAULT_HEADERS[2]),
    )

    got = exchange(server.port, head, BODY if status == 200 else b"")

    assert got.status == status
    assert "Exception in ASGI application" not in server.log
