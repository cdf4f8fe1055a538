"""Gemini's error arrays are converted to OpenAI's form."""

import json

import pytest

from tests.support.http import CHAT_REQUEST, exchange
from tests.support.server import Server
from tests.support.upstream import Upstream
from tests.support.wire import EVENTS, JSON, Json, respond

TEXT_JSON = {"content-type": "text/json"}


def error_array(**fields: object) -> bytes:
    error = {"code": 400, "message": 'é\n"', "status": "NOT_FOUND"} | fields
    return json.dumps([{"error": error}], indent=2).encode()


@pytest.mark.parametrize(
    ("fields", "error_type", "code"),
    [
        pytest.param({}, "NOT_FOUND", "NOT_FOUND", id="status"),
        pytest.param(
            {"details": [{"a": 1}, {"reason": "API_KEY_INVALID"}]},
            "NOT_FOUND",
            "API_KEY_INVALID",
            id="reason-in-details",
        ),
        pytest.param(
            {"details": 5, "status": 5}, "api_error", "api_error", id="wrong-types"
        ),
        pytest.param(
            {"details": [{"reason": 7}], "status": None},
            "api_error",
            "api_error",
            id="null-status",
        ),
    ],
)
def test_error_array_is_converted_to_openai_form(
    server: Server, upstream: Upstream, fields: Json, error_type: str, code: str
) -> None:
    upstream.openai.script(respond(error_array(**fields), 404))

    response = exchange(server.port, CHAT_REQUEST)

    error = {"message": 'é\n"', "type": error_type, "param": None, "code": code}
    assert (response.status, response.json) == (404, {"error": error})


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param(EVENTS, id="event-stream"),
        pytest.param({}, id="no-content-type"),
        pytest.param({"content-type": "application/json; charset=UTF-8"}, id="charset"),
    ],
)
def test_converted_error_has_json_content_type(
    server: Server, upstream: Upstream, headers: Json
) -> None:
    upstream.openai.script(respond(error_array(), 404, headers))

    response = exchange(server.port, CHAT_REQUEST)

    assert response.error["code"] == "NOT_FOUND"
    assert response.headers.get_list("content-type") == ["application/json"]


@pytest.mark.parametrize(
    ("delay", "headers", "expected"),
    [
        pytest.param("34.07s", JSON, ["35"], id="rounded-up"),
        pytest.param("0s", JSON, ["0"], id="zero"),
        pytest.param("9s", JSON | {"Retry-After": "2"}, ["2"], id="header-is-kept"),
        pytest.param("1s or so", JSON, [], id="not-a-duration"),
        pytest.param("9999999999s", JSON, [], id="too-long"),
        pytest.param(7, JSON, [], id="number"),
    ],
)
def test_retry_delay_becomes_retry_after_header(
    server: Server,
    upstream: Upstream,
    delay: object,
    headers: Json,
    expected: list[str],
) -> None:
    error = error_array(details=[7, {"retryDelay": delay}])
    upstream.openai.script(respond(error, 429, headers))

    response = exchange(server.port, CHAT_REQUEST)

    assert response.error["code"] == "NOT_FOUND"
    assert response.headers.get_list("retry-after") == expected


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(
            b'[{"error":{"message":"1"}},{"error":{"message":"2"}}]', id="two-errors"
        ),
        pytest.param(b'[{"error":{"message":null}}]', id="message-not-a-string"),
        pytest.param(b'[{"error":{"message":"m"}}', id="truncated"),
        pytest.param(
            b'[{"error":{"message":"m","details":' + b"[" * 100_000, id="deep-nesting"
        ),
        pytest.param(b'[{"error":{"message":"\xff"}}]', id="not-utf-8"),
    ],
)
def test_other_error_bodies_are_not_changed(
    server: Server, upstream: Upstream, body: bytes
) -> None:
    upstream.openai.script(respond(body, 400, TEXT_JSON))

    response = exchange(server.port, CHAT_REQUEST)

    assert (response.status, response.body) == (400, body)
    assert response.headers["content-type"] == "text/json"
    assert "retry-after" not in response.headers


def test_error_object_is_not_changed_but_gets_retry_after(
    server: Server, upstream: Upstream
) -> None:
    body = b'{"error":{"code":429,"details":[7,{"retryDelay":"9.5s"}]}}\n'
    upstream.openai.script(respond(body, 429, TEXT_JSON))

    response = exchange(server.port, CHAT_REQUEST)

    assert (response.status, response.body) == (429, body)
    assert response.headers["content-type"] == "text/json"
    assert response.headers["retry-after"] == "10"


def test_array_without_error_status_is_not_changed(
    server: Server, upstream: Upstream
) -> None:
    upstream.openai.script(respond(error_array(), 399, TEXT_JSON))

    response = exchange(server.port, CHAT_REQUEST)

    assert (response.status, response.body) == (399, error_array())
