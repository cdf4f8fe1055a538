"""A response to `"stream": true` is a stream by its first bytes, whatever its type."""

import httpx
import pytest

from tests.support.http import open_response, receive
from tests.support.upstream import Upstream
from tests.support.wire import CLOSE, DONE, FIRST_EVENT, JSON, Gate, respond, stream

CONTENT_TYPES = [
    pytest.param(JSON, id="json"),
    pytest.param({}, id="none"),
    pytest.param({"content-type": "application/x-ndjson"}, id="ndjson"),
    pytest.param({"content-type": "text/plain; charset=utf-8"}, id="text"),
]
FIRST_BYTES = [
    pytest.param(FIRST_EVENT, id="data"),
    pytest.param(b"data:1\n\n", id="data-without-space"),
    pytest.param(b"event: a\ndata: 1\n\n", id="event"),
    pytest.param(b"id: 1\ndata: 1\n\n", id="id"),
    pytest.param(b"retry: 1\n\n", id="retry"),
    pytest.param(b": ping\n", id="comment"),
    pytest.param(b"\r\ndata: 1\n\n", id="blank-line"),
]


@pytest.mark.parametrize("content_type", CONTENT_TYPES)
@pytest.mark.parametrize("first", FIRST_BYTES)
def test_response_that_begins_like_events_is_a_stream_whatever_its_content_type(
    upstream: Upstream, client: httpx.Client, first: bytes, content_type: dict[str, str]
) -> None:
    """Each event arrives before the next one, and a break is an error event."""
    gate = Gate()
    steps = stream(first, gate, b"data: half", headers=content_type, end=CLOSE)
    upstream.openai.script(*steps)

    with open_response(client) as response:
        received, last = receive(response, gate)

    assert received == first
    assert last.startswith(b'data: {"error":'), last
    assert response.headers.get("content-type") == content_type.get("content-type")
    assert response.headers["x-accel-buffering"] == "no"


@pytest.mark.parametrize("content_type", CONTENT_TYPES)
def test_stream_is_detected_by_its_first_byte(
    upstream: Upstream, client: httpx.Client, content_type: dict[str, str]
) -> None:
    rest, gate = Gate(), Gate()
    pieces = FIRST_EVENT[:1], rest, FIRST_EVENT[1:], gate, DONE
    upstream.openai.script(*stream(*pieces, headers=content_type))

    with open_response(client) as response:
        # The headers are here before anything else.
        assert response.headers["x-accel-buffering"] == "no"
        rest.open()
        assert receive(response, gate) == [FIRST_EVENT, DONE]


@pytest.mark.parametrize("body", [b'{"data": 1}', b"[]", b"null", b'":"', b"{}\n\n"])
def test_json_in_response_to_a_streamed_request_stays_json(
    upstream: Upstream, client: httpx.Client, body: bytes
) -> None:
    upstream.openai.script(respond(body))

    with open_response(client) as response:
        assert response.read() == body

    assert response.headers["content-length"] == str(len(body))
    assert "x-accel-buffering" not in response.headers


def test_json_that_breaks_off_in_response_to_a_streamed_request_is_a_502(
    upstream: Upstream, client: httpx.Client
) -> None:
    upstream.openai.script(*stream(b'{"data":', headers=JSON, end=CLOSE))

    with open_response(client) as response:
        response.read()

    assert response.status_code == 502
    assert response.json()["error"]["code"] == "upstream_unreachable"


def test_response_to_a_request_without_stream_is_buffered_json(
    upstream: Upstream, client: httpx.Client
) -> None:
    """Even if it begins like an event: only its content type counts."""
    upstream.openai.script(*stream(FIRST_EVENT, DONE, headers=JSON))

    with open_response(client, is_stream=False) as response:
        assert response.read() == FIRST_EVENT + DONE

    assert response.headers["content-length"] == str(len(FIRST_EVENT + DONE))
