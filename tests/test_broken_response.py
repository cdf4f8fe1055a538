"""Upstream responses that break off, or that are not HTTP."""

import httpx
import pytest

from tests.support.http import (
    CHAT,
    CHAT_BODY,
    CHAT_REQUEST,
    MEBIBYTE,
    bearer,
    chat,
    exchange,
    request,
    to_json,
)
from tests.support.server import Server
from tests.support.upstream import Upstream
from tests.support.wire import (
    CLOSE,
    JSON,
    RESET,
    Gate,
    Step,
    chunk,
    respond,
    response_head,
)

STREAMING_BODY = to_json(chat(stream=True))


@pytest.mark.parametrize(
    ("status", "content_type", "first"),
    [
        pytest.param(200, "audio/mpeg", b"half", id="audio"),
        pytest.param(200, "application/json", b"x" * (MEBIBYTE + 1), id="1-mib-json"),
        pytest.param(500, "text/html", b"x" * (3 * MEBIBYTE), id="3-mib-error"),
    ],
)
@pytest.mark.parametrize(
    ("framing", "end"),
    [
        pytest.param({"transfer-encoding": "chunked"}, CLOSE, id="chunked-closed"),
        pytest.param({}, RESET, id="until-close-reset"),
    ],
)
def test_break_in_response_that_is_not_buffered_closes_the_connection(
    upstream: Upstream,
    client: httpx.Client,
    status: int,
    content_type: str,
    first: bytes,
    framing: dict[str, str],
    end: Step,
) -> None:
    gate, start = Gate(), chunk(first) if framing else first
    head = response_head(status, {"content-type": content_type} | framing)
    upstream.openai.script(head + start, gate, end)

    with client.stream("POST", CHAT, json=chat(), headers=bearer()) as response:
        pieces = response.iter_raw(len(first))
        assert next(pieces) == first
        gate.open()
        with pytest.raises(httpx.RemoteProtocolError):
            next(pieces)


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED_JSON = response_head(200, JSON | {"transfer-encoding": "chunked"})


def incomplete(status: int, content_type: dict[str, str]) -> bytes:
    """Return a response whose body is shorter than its length."""
    return response_head(status, content_type | {"content-length": "9"}) + b"{"


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param([], id="nothing"),
        pytest.param([OK + b"content-type: app"], id="half-of-headers"),
        pytest.param([response_head(103, {})], id="only-1xx"),
        pytest.param([incomplete(200, JSON)], id="half-of-json"),
        pytest.param(
            [incomplete(200, {"content-type": "Application/LD+JSON;v=1"})],
            id="half-of-other-json",
        ),
        pytest.param([incomplete(200, {})], id="half-of-untyped-body"),
        pytest.param([incomplete(503, {"content-type": "text/html"})], id="half-error"),
        pytest.param([CHUNKED_JSON, chunk(b"1" * 190_000)], id="half-of-190-kb"),
    ],
)
def test_incomplete_upstream_response_returns_502_without_retry(
    server: Server, upstream: Upstream, steps: list[Step]
) -> None:
    # A pooled connection that works.
    exchange(server.port, CHAT_REQUEST)
    upstream.openai.script(*steps, CLOSE, times=None)

    response = exchange(server.port, CHAT_REQUEST)

    assert response.status_and_code == (502, "upstream_unreachable")
    assert "closed the connection" in response.error["message"]
    assert len(upstream.openai.requests) == 2


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param([], id="before-headers"),
        # Without a length, only an orderly close ends a body.
        pytest.param([response_head(200, JSON) + b"{}"], id="body-without-length"),
    ],
)
def test_upstream_that_resets_the_connection_returns_502_without_retry(
    server: Server, upstream: Upstream, steps: list[Step]
) -> None:
    upstream.openai.script(*steps, RESET, times=None)

    response = exchange(server.port, CHAT_REQUEST)

    assert response.status_and_code == (502, "upstream_unreachable")
    assert "reset the connection" in response.error["message"]
    assert len(upstream.openai.requests) == 1


@pytest.mark.parametrize("status", [300, 301, 302, 303, 305, 307, 308])
@pytest.mark.parametrize(
    "body", [CHAT_BODY, STREAMING_BODY], ids=["buffered", "stream"]
)
def test_redirect_of_the_upstream_is_not_followed_and_returns_502(
    server: Server, upstream: Upstream, status: int, body: bytes
) -> None:
    """A key would follow it to wherever it leads."""
    location = f"{upstream.gemini.url}/chat/completions"
    upstream.openai.script(respond(b"{}", status, {"location": location}))

    response = exchange(server.port, request(body=body))

    assert response.status_and_code == (502, "upstream_unreachable")
    assert f"{status}" in response.error["message"]
    assert "check base_url" in response.error["message"]
    assert location not in response.error["message"]
    assert upstream.requests == [upstream.openai.request]


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param([response_head(101, {"upgrade": "x"})], id="status-101"),
        pytest.param([response_head(600, {"content-length": "0"})], id="status-600"),
        pytest.param([b"\x16\x03\x01\x02\x00hello\r\n\r\n"], id="not-http"),
        pytest.param([OK + b"x: " + b"x" * 1_000_000], id="endless-header"),
        pytest.param([CHUNKED_JSON + b"none\r\n"], id="invalid-chunk-size"),
    ],
)
def test_invalid_upstream_response_returns_502_without_retry(
    server: Server, upstream: Upstream, steps: list[Step]
) -> None:
    upstream.openai.script(*steps, CLOSE, times=None)

    response = exchange(server.port, CHAT_REQUEST)

    assert response.status_and_code == (502, "upstream_unreachable")
    assert "not valid HTTP" in response.error["message"]
    assert len(upstream.openai.requests) == 1
