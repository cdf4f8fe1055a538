"""Limits of a request's headers and body, and how a client reads the rejection."""

import socket
import urllib.error
import urllib.request
from contextlib import suppress
from itertools import repeat

import pytest

from tests.support.http import (
    CHAT,
    CHAT_BODY,
    CHUNKED,
    DEFAULT_HEADERS,
    MEBIBYTE,
    MODELS,
    PLAIN_TEXT_HEADERS,
    bearer,
    chat,
    exchange,
    request,
    to_json,
)
from tests.support.server import Server
from tests.support.upstream import Upstream
from tests.support.wire import LAST_CHUNK, chunk

pytestmark = pytest.mark.providers({"limits-small": {"max_request_bytes": 1000}})
DEFAULT_LIMIT = 64 * MEBIBYTE
HOST, JSON_TYPE, BEARER = DEFAULT_HEADERS
BODY_LENGTH = b"Content-Length: %d" % len(CHAT_BODY)


def test_431_is_readable_after_client_sends_endless_headers(server: Server) -> None:
    growth = server.measure_growth()
    with socket.create_connection(("127.0.0.1", server.port), 10) as client:
        client.sendall(b"GET / HTTP/1.1\r\nX-A: ")
        for part in repeat(b"a" * 100_000, 1000):
            client.sendall(part)
        response = client.recv(65536)

    assert response.startswith(b"HTTP/1.1 431 "), response
    assert b'"code":"request_too_large"' in response
    assert growth() < 8 * MEBIBYTE


def test_60_kb_of_headers_are_accepted(server: Server) -> None:
    large = request(b"GET", MODELS, b"X-A: " + b"a" * 60_000)

    assert exchange(server.port, large).status == 200


@pytest.mark.parametrize(
    ("headers", "memory"),
    [
        pytest.param(
            {"Content-Length": str(200 * MEBIBYTE)}, 16 * MEBIBYTE, id="content-length"
        ),
        pytest.param({}, DEFAULT_LIMIT + 16 * MEBIBYTE, id="chunked"),
    ],
)
def test_413_is_readable_after_client_sends_whole_body(
    server: Server, headers: dict[str, str], memory: int
) -> None:
    growth = server.measure_growth()
    call = urllib.request.Request(  # noqa: S310 - the URL is this test's
        server.url + CHAT,
        repeat(b"0" * MEBIBYTE, 200),
        bearer() | {"Content-Type": "application/json"} | headers,
    )

    with pytest.raises(urllib.error.HTTPError, match="413") as rejected:
        urllib.request.urlopen(call, timeout=20)  # noqa: S310 - as above

    assert b"67,108,864 bytes" in rejected.value.read()
    assert growth() < memory


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(
            request(b"POST", CHAT, CHUNKED, headers=PLAIN_TEXT_HEADERS), id="415"
        ),
        pytest.param(b"\x00", id="not-http"),
    ],
)
def test_rejected_body_is_discarded_up_to_a_limit_then_connection_is_closed(
    server: Server, sent: bytes
) -> None:
    growth, mebibytes = server.measure_growth(), 0
    address = ("127.0.0.1", server.port)
    with socket.create_connection(address, 10) as client, suppress(ConnectionError):
        client.sendall(sent)
        while mebibytes < 1000:
            client.sendall(chunk(b"x" * MEBIBYTE))
            mebibytes += 1

    assert 400 < mebibytes < 900
    assert growth() < 32 * MEBIBYTE


@pytest.mark.parametrize("is_chunked", [False, True], ids=["content-length", "chunked"])
@pytest.mark.parametrize(
    ("provider", "size", "status"),
    [
        pytest.param("openai", DEFAULT_LIMIT, 200, id="default-limit"),
        pytest.param("limits-small", 1000, 200, id="limit"),
        pytest.param("limits-small", 1001, 413, id="over-limit"),
    ],
)
def test_body_is_accepted_up_to_max_request_bytes(
    server: Server,
    upstream: Upstream,
    provider: str,
    size: int,
    status: int,
    *,
    is_chunked: bool,
) -> None:
    body = to_json(chat(f"{provider}/gpt-4o")).ljust(size)
    sent = request(body=body)
    if is_chunked:
        sent = request(b"POST", CHAT, CHUNKED) + chunk(body) + LAST_CHUNK

    response = exchange(server.port, sent)

    assert response.status == status, response
    assert len(upstream.openai.requests) == (1 if status == 200 else 0)


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param([b"CONTENT-TYPE: APPLICATION/JSON; charset=utf-8"], id="charset"),
        pytest.param([b"Content-Type: application/vnd.x-1.y+json"], id="+json"),
        pytest.param([JSON_TYPE, b"Content-Encoding: Identity"], id="identity"),
    ],
)
def test_json_content_type_is_accepted(server: Server, lines: list[bytes]) -> None:
    sent = request(b"POST", CHAT, *lines, body=CHAT_BODY, headers=(HOST, BEARER))

    assert exchange(server.port, sent).status == 200


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        pytest.param([], "unsupported_media_type", id="no-content-type"),
        # A browser sends it for any page without asking first (CORS).
        pytest.param(
            [b"Content-Type: text/plain;application/json"],
            "unsupported_media_type",
            id="text-plain",
        ),
        pytest.param(
            [b"Content-Type: application/jsonl"], "unsupported_media_type", id="jsonl"
        ),
        pytest.param(
            [b"Content-Type: application/x-json"], "unsupported_media_type", id="x-json"
        ),
        pytest.param(
            [JSON_TYPE, b"Content-Encoding: identity, br"],
            "unsupported_content_encoding",
            id="brotli",
        ),
    ],
)
def test_body_that_is_not_plain_json_is_rejected_before_it_arrives(
    server: Server, lines: list[bytes], code: str
) -> None:
    response = exchange(
        server.port, request(b"POST", CHAT, BODY_LENGTH, *lines, headers=(HOST, BEARER))
    )

    assert response.status_and_code == (415, code)


def test_content_length_over_the_limit_is_rejected_before_the_body_arrives(
    server: Server,
) -> None:
    sent = request(b"POST", CHAT, b"Content-Length: " + b"9" * 19)

    response = exchange(server.port, sent)

    assert response.status_and_code == (413, "request_too_large")


def test_content_length_with_5000_digits_is_read(server: Server) -> None:
    """Python's `int` raises an exception above 4,300 digits."""
    length = b"Content-Length: %05000d" % len(CHAT_BODY)

    response = exchange(server.port, request(b"POST", CHAT, length), CHAT_BODY)

    assert response.status == 200, response
    assert "Exception in ASGI application" not in server.log
