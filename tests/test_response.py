"""The client receives what the upstream sent: status, headers and body."""

import gzip
import re

import httpx
import pytest

from tests.support.http import (
    CHAT,
    CHAT_REQUEST,
    MEBIBYTE,
    ROUTES,
    RawConnection,
    bearer,
    chat,
    exchange,
    request,
)
from tests.support.server import Server
from tests.support.upstream import Upstream
from tests.support.wire import (
    EVENTS,
    JSON,
    LAST_CHUNK,
    Gate,
    Headers,
    Step,
    chunk,
    respond,
    response_head,
    stream,
)

# A JSON parser would not give it back as it is.
BODY = b'{\n  "model": "gpt-4o-2024-08-06",\t"n": [1e-7, -0.0], "s": "\\u00e9\xff"}\n'
FORWARDED_HEADERS = [
    ("content-type", "application/json; a=b"),
    ("x-request-id", "req_1"),
    ("request-id", "req_2"),
    ("retry-after", "1"),
    ("retry-after-ms", "1000"),
    ("x-should-retry", "true"),
    ("x-ratelimit-limit-requests", "100"),
    ("x-ratelimit-reset-tokens", "6ms"),
    ("ratelimit", '"default";r=50;t=30'),
    ("ratelimit-policy", '"default";q=100;w=60'),
    ("ratelimit-limit", "100"),
    ("deprecation", "@1790000000"),
    ("sunset", "Thu, 14 Jan 2027 00:00:00 GMT"),
    ("anthropic-ratelimit-tokens-remaining", "5"),
    ("anthropic-organization-id", "org-1"),
    ("openai-processing-ms", "12"),
    ("openai-version", "2020-10-01"),
    ("openai-organization", "org-1"),
    # A repeated header.
    ("openai-project", "proj_1"),
    ("openai-project", "proj_2"),
    ("x-gemini-service-tier", "free"),
    ("server-timing", "gfet4t7; dur=1"),
    ("traceresponse", "00-1-2-01"),
    ("cf-ray", "1-FRA"),
    ("www-authenticate", "Bearer"),
    ("cache-control", "no-store"),
]
DROPPED_HEADERS = [
    ("access-control-allow-origin", "*"),
    ("alt-svc", "h3"),
    ("connection", "x-hop"),
    ("keep-alive", "timeout=5"),
    ("location", "/"),
    ("proxy-authenticate", "Basic"),
    ("server", "cloudflare"),
    ("set-cookie", "a=b"),
    ("strict-transport-security", "max-age=1"),
    ("x-hop", "1"),
]


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("status", [200, 299, 400, 401, 429, 500, 529, 599])
def test_status_and_body_are_relayed_without_retry(
    server: Server, upstream: Upstream, path: str, status: int
) -> None:
    upstream.openai.script(respond(BODY, status))

    response = exchange(server.port, request(path=path, body=b'{"model":"openai/m-1"}'))

    assert (response.status, response.body) == (status, BODY)
    assert len(upstream.openai.requests) == 1


def test_compressed_body_is_relayed_as_it_is(
    server: Server, upstream: Upstream
) -> None:
    body = gzip.compress(BODY)
    upstream.openai.script(respond(body, headers=JSON | {"content-encoding": "gzip"}))

    response = exchange(server.port, CHAT_REQUEST)

    assert (response.headers["content-encoding"], response.body) == ("gzip", body)


def test_headers_on_the_allowlist_are_relayed_and_no_others(
    server: Server, upstream: Upstream
) -> None:
    upstream.openai.script(respond(BODY, headers=FORWARDED_HEADERS + DROPPED_HEADERS))

    response = exchange(server.port, CHAT_REQUEST)

    added = [
        ("content-length", str(len(BODY))),
        ("date", response.headers["date"]),
        ("server", "uvicorn"),
    ]
    assert sorted(response.headers.multi_items()) == sorted(FORWARDED_HEADERS + added)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param(
            {"x-request-id": "req_a", "request-id": "req_b"}, "req_a", id="x-request-id"
        ),
        pytest.param({"request-id": "req_c"}, "req_c", id="request-id"),
        pytest.param({}, "req_[0-9a-f]{32}", id="none"),
        # Control characters are not allowed in a value (RFC 9110, section 5.5).
        pytest.param(
            {"x-request-id": "\x1b[31m"}, "req_[0-9a-f]{32}", id="control-character"
        ),
    ],
)
def test_request_id_is_the_upstreams_and_is_logged(
    server: Server, upstream: Upstream, headers: dict[str, str], expected: str
) -> None:
    upstream.openai.script(respond(headers=JSON | headers))

    response = exchange(server.port, CHAT_REQUEST)

    request_id = response.headers["x-request-id"]
    assert re.fullmatch(expected, request_id)
    assert len(server.wait_access_log(request_id=request_id)) >= 1


KEEP_ALIVE = b"HTTP/1.0\r\nConnection: keep-alive"
LARGE = b"x" * (MEBIBYTE + 1)
NOT_BUFFERED = [
    pytest.param(200, "audio/mpeg", b"half", id="audio"),
    pytest.param(200, "application/json", LARGE, id="json-over-1-mib"),
    pytest.param(500, "text/html", 3 * LARGE, id="error-over-1-mib"),
]


@pytest.mark.parametrize(("status", "content_type", "first"), NOT_BUFFERED)
@pytest.mark.parametrize("is_chunked", [True, False], ids=["chunked", "content-length"])
def test_response_that_is_not_buffered_is_relayed_as_it_arrives(
    upstream: Upstream,
    client: httpx.Client,
    status: int,
    content_type: str,
    first: bytes,
    *,
    is_chunked: bool,
) -> None:
    headers, gate = {"content-type": content_type}, Gate()
    if is_chunked:
        start = response_head(status, headers | {"transfer-encoding": "chunked"})
        steps: list[Step] = [start + chunk(first), gate, chunk(b"rest") + LAST_CHUNK]
    else:
        length = {"content-length": str(len(first) + 4)}
        steps = [response_head(status, headers | length) + first, gate, b"rest"]
    upstream.openai.script(*steps)

    with client.stream("POST", CHAT, json=chat(), headers=bearer()) as response:
        pieces = response.iter_raw(len(first))
        assert next(pieces) == first
        gate.open()
        assert b"".join(pieces) == b"rest"

    assert response.status_code == status
    assert response.headers["content-type"] == content_type
    assert ("content-length" in response.headers) == (not is_chunked)


@pytest.mark.parametrize("headers", [JSON, EVENTS], ids=["json", "event-stream"])
@pytest.mark.parametrize("body", [b"{}", 3 * LARGE], ids=["small", "large"])
def test_http_1_0_client_gets_body_without_chunks_and_the_end_of_the_connection(
    server: Server, upstream: Upstream, headers: Headers, body: bytes
) -> None:
    half = len(body) // 2
    upstream.openai.script(*stream(body[:half], body[half:], headers=headers))

    with RawConnection(server.port) as connection:
        connection.send(CHAT_REQUEST.replace(b"HTTP/1.1", KEEP_ALIVE, 1))
        head, _, received = connection.read_to_end().partition(b"\r\n\r\n")

    assert received == body
    assert b"transfer-encoding" not in head.lower()
