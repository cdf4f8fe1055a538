"""A stream that breaks off ends with an error event, or the connection is closed."""

import json
import zlib
from contextlib import AbstractContextManager

import httpx
import pytest

from tests.support.http import CHAT, MESSAGES, RESPONSES, open_response, receive
from tests.support.server import Server
from tests.support.upstream import Upstream
from tests.support.wire import (
    CLOSE,
    DONE,
    EVENTS,
    FIRST_EVENT,
    RESET,
    SILENCE,
    Gate,
    Step,
    event,
    response_head,
    stream,
)

pytestmark = pytest.mark.providers({"impatient": {"network": {"timeout": 0.5}}})
# A stream without a length or chunks, which ends with the connection.
UNTIL_CLOSE: list[Step] = [response_head(200, EVENTS) + FIRST_EVENT]


def call(
    client: httpx.Client, path: str = CHAT
) -> AbstractContextManager[httpx.Response]:
    return open_response(client, path, "impatient/m-1")


def reset_after_first_event(
    upstream: Upstream, client: httpx.Client, path: str
) -> tuple[bytes, bytes]:
    """Return the first line and the rest of what follows the first event."""
    gate = Gate()
    upstream.openai.script(*stream(FIRST_EVENT)[:-1], gate, RESET)
    with call(client, path) as response:
        first, last = receive(response, gate)
    assert first == FIRST_EVENT
    name, _, rest = last.partition(b"\n")
    return name, rest


@pytest.mark.parametrize(
    ("start", "end", "code", "message"),
    [
        pytest.param(
            stream(FIRST_EVENT)[:-1],
            CLOSE,
            "upstream_disconnected",
            "closed the connection",
            id="closed",
        ),
        pytest.param(
            # Only half of the second event has arrived.
            stream(FIRST_EVENT + b"data: ha")[:-1],
            SILENCE,
            "upstream_timeout",
            "0.5 s",
            id="silent",
        ),
        pytest.param(
            UNTIL_CLOSE,
            RESET,
            "upstream_disconnected",
            "reset the connection",
            id="until-close-reset",
        ),
        pytest.param(
            stream(FIRST_EVENT)[:-1],
            b"no size\r\n",
            "upstream_disconnected",
            "not valid HTTP",
            id="invalid-chunk-size",
        ),
    ],
)
def test_break_is_an_error_event_after_the_last_complete_event(
    server: Server,
    upstream: Upstream,
    client: httpx.Client,
    start: list[Step],
    end: Step,
    code: str,
    message: str,
) -> None:
    gate = Gate()
    upstream.openai.script(*start, gate, end)

    with call(client) as response:
        first, last = receive(response, gate)

    assert first == FIRST_EVENT
    assert last.startswith(b"data: "), last
    assert last.endswith(b"\n\n"), last
    error = json.loads(last.removeprefix(b"data: "))["error"]
    assert message in error["message"]
    assert error == {
        "message": error["message"],
        "type": "server_error",
        "param": None,
        "code": code,
    }
    (entry,) = server.wait_access_log(request_id=response.headers["x-request-id"])
    assert (entry["status"], entry["code"]) == (200, code)
    assert entry["reason"] == error["message"]


def test_break_on_messages_route_is_an_error_event_in_anthropics_form(
    upstream: Upstream, client: httpx.Client
) -> None:
    name, data = reset_after_first_event(upstream, client, MESSAGES)

    assert name == b"event: error"
    body = json.loads(data.removeprefix(b"data: "))
    message = body["error"]["message"]
    assert "reset the connection" in message
    assert body == {"type": "error", "error": {"type": "api_error", "message": message}}


def test_break_on_responses_route_is_one_event_that_every_client_reads(
    upstream: Upstream, client: httpx.Client
) -> None:
    """Codex and the AI SDK read `response.error`, and openai-python `error`."""
    name, data = reset_after_first_event(upstream, client, RESPONSES)

    assert name == b"event: response.failed"
    assert data.endswith(b"}\n\n")
    body = json.loads(data.removeprefix(b"data: "))
    message = body["error"]["message"]
    assert "reset the connection" in message
    assert body == {
        "type": "response.failed",
        "sequence_number": 0,
        "response": {
            "status": "failed",
            "error": {"code": "upstream_disconnected", "message": message},
        },
        "error": {
            "message": message,
            "type": "server_error",
            "param": None,
            "code": "upstream_disconnected",
        },
    }


@pytest.mark.parametrize(
    ("path", "last"),
    [
        pytest.param(CHAT, DONE, id="chat"),
        pytest.param(
            MESSAGES, event({"type": "message_stop"}, "message_stop"), id="messages"
        ),
        pytest.param(
            RESPONSES,
            event({"type": "response.completed"}, "response.completed"),
            id="responses",
        ),
    ],
)
def test_break_after_the_last_event_is_no_error(
    server: Server, upstream: Upstream, client: httpx.Client, path: str, last: bytes
) -> None:
    gate = Gate()
    upstream.openai.script(*stream(FIRST_EVENT + last, gate, end=RESET))

    with call(client, path) as response:
        assert b"".join(receive(response, gate)) == FIRST_EVENT + last

    (entry,) = server.wait_access_log(request_id=response.headers["x-request-id"])
    assert (entry["status"], entry["code"]) == (200, None)


def test_stream_until_close_that_is_closed_in_order_is_complete(
    server: Server, upstream: Upstream, client: httpx.Client
) -> None:
    upstream.openai.script(*UNTIL_CLOSE, CLOSE)

    with call(client) as response:
        assert response.read() == FIRST_EVENT

    (entry,) = server.wait_access_log(request_id=response.headers["x-request-id"])
    assert entry["code"] is None


GZIP = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
GZIP_EVENT = GZIP.compress(FIRST_EVENT) + GZIP.flush(zlib.Z_SYNC_FLUSH)


@pytest.mark.parametrize(
    "start",
    [
        pytest.param(
            stream(b"data: " + b"x" * 100_000)[:-1], id="inside-event-sent-in-part"
        ),
        pytest.param(
            stream(GZIP_EVENT, headers=EVENTS | {"content-encoding": "gzip"})[:-1],
            id="compressed",
        ),
    ],
)
def test_break_where_no_event_can_follow_closes_the_connection(
    server: Server, upstream: Upstream, client: httpx.Client, start: list[Step]
) -> None:
    gate = Gate()
    upstream.openai.script(*start, gate, CLOSE)

    with call(client) as response:
        pieces = response.iter_raw()
        next(pieces)
        gate.open()
        with pytest.raises(httpx.RemoteProtocolError):
            list(pieces)

    (entry,) = server.wait_access_log(request_id=response.headers["x-request-id"])
    assert entry["code"] == "upstream_disconnected"
    # uvicorn logs that when an application does not finish its response.
    assert "without completing response" not in server.log
