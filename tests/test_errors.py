"""Errors that the server raises itself: status, code, and the form of the route."""

import httpx
import pytest

from tests.support.http import (
    CHAT,
    CHAT_BODY,
    MESSAGES,
    MODELS,
    ROUTES,
    bearer,
    chat,
    exchange,
    provider_data,
    request,
    to_json,
)
from tests.support.server import Server
from tests.support.upstream import Upstream

pytestmark = pytest.mark.providers({"gone": {"base_url": "${env.REFUSED_URL}"}})
JSON_TYPE = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("status", "code", "param", "headers", "body"),
    [
        pytest.param(
            401, "missing_api_key", None, JSON_TYPE, CHAT_BODY, id="missing_api_key"
        ),
        pytest.param(
            400,
            "invalid_provider_data",
            None,
            JSON_TYPE | {"x-llamastack-provider-data": "[]"},
            CHAT_BODY,
            id="invalid_provider_data",
        ),
        pytest.param(
            400,
            "upstream_not_allowed",
            "passthrough_url",
            JSON_TYPE | provider_data(passthrough_url="http://127.0.0.1:1/"),
            CHAT_BODY,
            id="upstream_not_allowed",
        ),
        pytest.param(
            400,
            "invalid_request_body",
            "model",
            JSON_TYPE | bearer(),
            b"{}",
            id="invalid_request_body",
        ),
        pytest.param(
            404,
            "model_not_found",
            "model",
            JSON_TYPE | bearer(),
            to_json({"model": "unknown/x"}),
            id="model_not_found",
        ),
        pytest.param(
            415,
            "unsupported_content_encoding",
            None,
            JSON_TYPE | bearer() | {"content-encoding": "gzip"},
            b"x",
            id="unsupported_content_encoding",
        ),
        pytest.param(
            415,
            "unsupported_media_type",
            None,
            bearer() | {"content-type": "application/x-www-form-urlencoded"},
            b"model=openai/gpt-4o",
            id="unsupported_media_type",
        ),
        pytest.param(
            413,
            "request_too_large",
            None,
            JSON_TYPE | bearer(),
            b" " * (65 * 2**20),
            id="request_too_large",
        ),
        pytest.param(
            502,
            "upstream_unreachable",
            None,
            JSON_TYPE | bearer(),
            to_json({"model": "gone/x"}),
            id="upstream_unreachable",
        ),
    ],
)
def test_error_has_form_of_its_route(
    client: httpx.Client,
    status: int,
    code: str,
    param: str | None,
    headers: dict[str, str],
    body: bytes,
) -> None:
    openai_types = {401: "authentication_error", 502: "server_error"}
    anthropic_types = {
        401: "authentication_error",
        404: "not_found_error",
        413: "request_too_large",
        502: "api_error",
    }

    openai = client.post(CHAT, content=body, headers=headers)
    anthropic = client.post(MESSAGES, content=body, headers=headers)

    message = openai.json()["error"]["message"]
    assert (openai.status_code, openai.json()["error"]) == (
        status,
        {
            "message": message,
            "type": openai_types.get(status, "invalid_request_error"),
            "param": param,
            "code": code,
        },
    )
    assert (anthropic.status_code, anthropic.json()) == (
        status,
        {
            "type": "error",
            "error": {
                "type": anthropic_types.get(status, "invalid_request_error"),
                "message": message,
            },
        },
    )
    for response in (openai, anthropic):
        assert response.headers["content-type"] == "application/json"
        assert response.headers["x-request-id"].startswith("req_")


def test_missing_key_error_shows_which_headers_to_send(client: httpx.Client) -> None:
    response = client.post(CHAT, json=chat())

    message = response.json()["error"]["message"]
    for header in ("X-LlamaStack-Provider-Data", "x-api-key", "Authorization: Bearer"):
        assert header in message
    assert response.headers["www-authenticate"] == "Bearer"


def test_content_encoding_error_says_identity_is_accepted(client: httpx.Client) -> None:
    headers = JSON_TYPE | bearer() | {"content-encoding": "gzip"}

    response = client.post(CHAT, content=b"x", headers=headers)

    assert response.headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("method", [b"GET", b"POST"])
@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/favicon.ico",
        "/docs",
        "/v1x",
        "/v1/files",
        "/v1/chat/completions/",
        "//v1/chat/completions",
        "/v1/chat/completions/1",
        "/v1/responses/1",
        "/v1/conversations",
    ],
)
def test_unknown_route_returns_404_with_available_routes(
    server: Server, upstream: Upstream, path: str, method: bytes
) -> None:
    response = exchange(server.port, request(method, path, body=CHAT_BODY))

    assert response.status_and_code == (404, "unknown_route")
    message = response.error["message"]
    assert path in message
    for route in (*(f"POST {each}" for each in ROUTES), f"GET {MODELS}"):
        assert route in message
    assert upstream.requests == []


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("/v1/chat/completions%0a", id="line-feed-after-route"),
        pytest.param("/v1/models/a%0a", id="line-feed-after-model"),
        pytest.param(f"/{'x' * 128}", id="128-characters"),
    ],
)
def test_unknown_route_error_does_not_repeat_unprintable_or_long_path(
    server: Server, path: str
) -> None:
    response = exchange(server.port, request(path=path, body=CHAT_BODY))

    assert response.status_and_code == (404, "unknown_route")
    message = response.error["message"]
    assert "\n" not in message
    assert path[1:] not in message


@pytest.mark.parametrize("path", ROUTES)
def test_get_on_relayed_route_returns_405(client: httpx.Client, path: str) -> None:
    response = client.get(path, headers=bearer())

    assert (response.status_code, response.headers["allow"]) == (405, "POST")
    error = response.json()["error"]
    code = None if path.startswith(MESSAGES) else "method_not_allowed"
    assert error.get("code") == code


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        pytest.param("DELETE", CHAT, "POST", id="DELETE-chat"),
        pytest.param("POST", MODELS, "GET", id="POST-models"),
        pytest.param("PUT", "/v1/health", "GET", id="PUT-health"),
    ],
)
def test_method_that_route_lacks_returns_405(
    client: httpx.Client, method: str, path: str, allowed: str
) -> None:
    response = client.request(method, path, headers=bearer())

    assert (response.status_code, response.headers["allow"]) == (405, allowed)
    assert response.json()["error"]["code"] == "method_not_allowed"
