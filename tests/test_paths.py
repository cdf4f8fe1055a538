"""A route has one name, with `/v1`, `/v1/v1` or nothing in front."""

import re

import httpx
import pytest

from tests.support.http import (
    CHAT,
    CHAT_BODY,
    MODELS,
    RESPONSES,
    ROUTES,
    RawConnection,
    bearer,
    chat,
    exchange,
    request,
    to_json,
)
from tests.support.server import Server
from tests.support.upstream import Upstream
from tests.support.wire import respond

CREATED = re.compile(r'"created": ?\d+')
PREFIXES = [
    pytest.param("", id="bare"),
    pytest.param("/v1", id="v1"),
    pytest.param("/v1/v1", id="v1-v1"),
]


def spell(path: str, prefix: str) -> str:
    return prefix + path.removeprefix("/v1")


def logged_path(server: Server, response: httpx.Response) -> object:
    request_id = response.headers["x-request-id"]
    (entry,) = server.wait_access_log(request_id=request_id)
    return entry["path"]


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("prefix", PREFIXES)
def test_call_is_relayed_and_logged_under_one_path(
    server: Server, upstream: Upstream, client: httpx.Client, path: str, prefix: str
) -> None:
    upstream.openai.script(respond())
    body = chat("openai/m-1")

    response = client.post(spell(path, prefix), json=body, headers=bearer())

    assert response.status_code == 200, response.text
    assert upstream.openai.request.path == path
    assert logged_path(server, response) == path


@pytest.mark.parametrize(
    ("path", "logged"),
    [
        pytest.param(MODELS, MODELS, id="list"),
        pytest.param(
            f"{MODELS}/openai/gpt-4o", f"{MODELS}/openai/gpt-4o", id="full-name"
        ),
        pytest.param(f"{MODELS}/gpt-4o", f"{MODELS}/openai/gpt-4o", id="bare-name"),
        pytest.param("/v1/health", "/v1/health", id="health"),
    ],
)
@pytest.mark.parametrize("prefix", PREFIXES)
def test_route_of_llama_stack_is_served_and_logged_under_one_path(
    server: Server, client: httpx.Client, path: str, logged: str, prefix: str
) -> None:
    response = client.get(spell(path, prefix))

    assert response.status_code == 200, response.text
    # `created` is the time of the response.
    bodies = [CREATED.sub("", r.text) for r in (response, client.get(path))]
    assert bodies[0] == bodies[1]
    assert logged_path(server, response) == logged


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    "path",
    [
        pytest.param("/v1/files", id="not-there"),
        pytest.param("/v1/providers", id="llama-stacks"),
        pytest.param("/v1/prompts", id="llama-stacks-with-post"),
        pytest.param("/v1/chat/completions/1", id="stored-response"),
    ],
)
@pytest.mark.parametrize("prefix", [*PREFIXES, pytest.param("/v1/v1/v1", id="v1-x3")])
def test_closed_route_is_closed_under_every_path(
    upstream: Upstream, client: httpx.Client, path: str, prefix: str, method: str
) -> None:
    response = client.request(
        method, spell(path, prefix), json=chat(), headers=bearer()
    )

    assert response.status_code == 404, response.text
    assert response.json()["error"]["code"] == "unknown_route"
    assert upstream.requests == []


@pytest.mark.parametrize("path", [*ROUTES, MODELS])
def test_three_versions_in_a_path_are_an_unknown_route(
    upstream: Upstream, client: httpx.Client, path: str
) -> None:
    response = client.post(f"/v1/v1{path}", json=chat(), headers=bearer())

    assert response.status_code == 404, response.text
    assert "Unknown route" in response.json()["error"]["message"]
    assert upstream.requests == []


HANDSHAKE = (
    b"Connection: Upgrade",
    b"Upgrade: WebSocket",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    b"Sec-WebSocket-Version: 13",
)


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("prefix", PREFIXES)
def test_websocket_handshake_on_a_relayed_route_returns_426(
    server: Server, upstream: Upstream, path: str, prefix: str
) -> None:
    response = exchange(server.port, request(b"GET", spell(path, prefix), *HANDSHAKE))

    assert response.status == 426, response
    assert "use POST" in response.error["message"]
    # RFC 9110, section 15.5.22: it names the protocol.
    assert response.headers["upgrade"] == "HTTP/1.1"
    (entry,) = server.wait_access_log(request_id=response.headers["x-request-id"])
    assert (entry["code"], entry["path"]) == ("upgrade_required", path)
    assert upstream.requests == []


def test_client_uses_http_on_the_connection_whose_handshake_was_rejected(
    server: Server, upstream: Upstream
) -> None:
    """As Codex does."""
    upstream.openai.script(respond())

    with RawConnection(server.port) as connection:
        connection.send(request(b"GET", RESPONSES, *HANDSHAKE))
        assert connection.read_response().status_and_code == (426, "upgrade_required")
        connection.send(request(path=RESPONSES, body=CHAT_BODY))
        assert connection.read_response().status == 200

    assert upstream.openai.request.path == RESPONSES


@pytest.mark.parametrize(
    ("path", "status"),
    [
        pytest.param("/v1/files", 404, id="closed-route"),
        pytest.param(MODELS, 200, id="route-of-llama-stack"),
    ],
)
def test_websocket_handshake_elsewhere_is_served_as_http(
    server: Server, path: str, status: int
) -> None:
    assert exchange(server.port, request(b"GET", path, *HANDSHAKE)).status == status


@pytest.mark.parametrize("method", ["DELETE", "PATCH", "POST", "PUT"])
@pytest.mark.parametrize("path", [MODELS, f"{MODELS}/openai/gpt-4o", "/models/gpt-4o"])
def test_model_routes_allow_only_get(
    client: httpx.Client, path: str, method: str
) -> None:
    response = client.request(method, path, headers=bearer())

    assert (response.status_code, response.headers["allow"]) == (405, "GET")
    assert response.json()["error"]["code"] == "method_not_allowed"


IMAGES = "/v1/images/generations"
OPENED = pytest.mark.server(
    {
        "server": {
            "auth": {
                "route_policy": [
                    {
                        "permit": {
                            "paths": [IMAGES, "/v1/providers", "/v1/inspect/routes"]
                        }
                    },
                    {"forbid": {"paths": "*"}},
                ]
            }
        }
    }
)


@OPENED
@pytest.mark.parametrize("prefix", PREFIXES)
def test_route_that_one_line_of_run_yaml_opens_is_relayed(
    server: Server, upstream: Upstream, prefix: str
) -> None:
    upstream.openai.script(respond(b'{"data":[]}'))
    body = to_json({"model": "openai/gpt-image-1", "prompt": "a cat"})

    response = exchange(server.port, request(path=spell(IMAGES, prefix), body=body))

    assert (response.status, response.body) == (200, b'{"data":[]}')
    sent = upstream.openai.request
    assert (sent.path, sent.body) == (IMAGES, body.replace(b"openai/", b""))


@OPENED
def test_message_about_an_unknown_route_lists_the_opened_ones(
    client: httpx.Client, upstream: Upstream
) -> None:
    response = client.post(CHAT, json=chat(), headers=bearer())

    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (404, "unknown_route")
    assert f"POST {IMAGES}" in error["message"]
    assert f"POST {CHAT}" not in error["message"]
    assert upstream.requests == []


@OPENED
@pytest.mark.parametrize(
    ("path", "prefix"),
    [
        pytest.param("/v1/providers", "", id="providers"),
        pytest.param("/v1/inspect/routes", "/v1", id="inspect"),
    ],
)
def test_opened_route_of_llama_stack_is_served_by_llama_stack(
    client: httpx.Client, upstream: Upstream, path: str, prefix: str
) -> None:
    """The relay's routes and Llama Stack's are opened in the same list."""
    response = client.get(spell(path, prefix))

    assert response.status_code == 200, response.text
    assert len(response.json()["data"]) > 0
    assert upstream.requests == []
