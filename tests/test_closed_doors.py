"""Of Llama Stack's routes those of run.yaml are open, every other one is closed."""

from typing import Any, NamedTuple

import httpx
import pytest

from tests.calls import BEARER, CHAT, call, chat
from tests.inside import Watched
from tests.raw import ask, request
from tests.server import Server
from tests.upstream import Upstream

pytest_plugins = ["tests.watched"]

TOKEN = {"Authorization": "Bearer good"}
METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE")


class Door(NamedTuple):
    """A method on a route, as the OpenAPI document names it."""

    method: str
    route: str

    @property
    def path(self) -> str:
        """A path of that route."""
        parts = ["x" if part[:1] == "{" else part for part in self.route.split("/")]
        return "/".join(parts)


OPEN = {
    Door("POST", "/v1/chat/completions"),
    # Llama Stack's history of them, which has nothing in it.
    Door("GET", "/v1/chat/completions"),
    Door("POST", "/v1/completions"),
    Door("POST", "/v1/embeddings"),
    Door("GET", "/v1/models"),
    Door("GET", "/v1/models/{model_id}"),
    Door("GET", "/v1/health"),
    Door("GET", "/v1/version"),
}


@pytest.fixture(scope="module")
def doors(guarded: Watched) -> set[Door]:
    """Every door of Llama Stack's, from the server that closes none."""
    with httpx.Client(base_url=guarded.server.url, headers=TOKEN) as http:
        documented: dict[str, Any] = http.get("/openapi.json").json()["paths"]
        listed: list[dict[str, Any]] = http.get("/v1/inspect/routes").json()["data"]
    return {
        Door(method.upper(), route)
        for route, methods in documented.items()
        for method in methods
    } | {
        # Starlette's own spelling of a parameter that may hold slashes.
        Door(each["method"], each["route"].replace(":path}", "}"))
        for each in listed
    }


def _status(http: httpx.Client, server: Server, method: str, path: str) -> int:
    return http.request(method, server.url + path, json={}).status_code


def test_every_door_of_llama_stack_is_open_on_purpose_or_closed(
    server: Server, upstream: Upstream, http: httpx.Client, doors: set[Door]
) -> None:
    """A door that a new Llama Stack brings along is closed, until someone opens it."""
    closed = {door for door in doors if _status(http, server, *_of(door)) == 403}

    assert len(doors) > 40
    assert doors - closed == OPEN
    assert upstream.openai.calls == []


def _of(door: Door) -> tuple[str, str]:
    return door.method, door.path


@pytest.mark.parametrize("method", METHODS)
def test_an_open_route_has_no_other_door(
    server: Server, http: httpx.Client, method: str
) -> None:
    """A model can neither be made nor deleted, by nobody."""
    routes = {door.path for door in OPEN if Door(method, door.route) not in OPEN}

    found = {path: _status(http, server, method, path) for path in routes}

    assert dict.fromkeys(routes, 405) == found
    assert len(http.get(f"{server.url}/v1/models").json()["data"]) == 5


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json", "/", "/metrics"])
def test_what_the_document_does_not_name_is_closed(
    server: Server, http: httpx.Client, path: str
) -> None:
    """Not even what there is can be read."""
    assert _status(http, server, "GET", path) == 403


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/files/", 403),
        ("//v1/files", 403),
        ("/v1/./files", 403),
        ("/v1//files", 403),
        ("/v1/health/../files", 403),
        ("/v1%2ffiles", 403),
        ("/v1/files%2f", 403),
        ("/v1/%66iles", 403),
        ("/V1/FILES", 403),
        ("/v1/files;/v1/models", 403),
        ("/v1/files%00/v1/models", 403),
        ("/v1/health%0a/../files", 403),
        ("http://localhost/v1/files", 403),
        # These are names of models, and of none that there is.
        ("/v1/models/../files", 404),
        ("/v1/models/%2e%2e%2ffiles", 404),
        ("/v1/models//v1/files", 404),
        # A slash too many is one that FastAPI takes away.
        (f"{CHAT}/", 307),
        (f"{CHAT}/%2e%2e/files", 403),
    ],
)
def test_another_spelling_opens_nothing(server: Server, path: str, status: int) -> None:
    """The policy and the router agree on what a path is."""
    assert status == ask(server.port, request(f"GET {path} HTTP/1.1".encode())).status


@pytest.mark.parametrize("query", ["", "?limit=100", "?model=openai/gpt-4o&order=asc"])
def test_there_is_no_history(
    server: Server, upstream: Upstream, http: httpx.Client, query: str
) -> None:
    """The one route of it that is open has an empty list."""
    for stream in (False, True):
        assert call(http, server.url, chat(stream=stream)).status == 200
    assert len(upstream.openai.calls) == 2

    listed = http.get(server.url + CHAT + query, headers=BEARER)

    assert (listed.status_code, listed.json()["data"]) == (200, [])


def test_there_is_no_history_behind_open_doors_either(
    guarded: Watched, upstream: Upstream, http: httpx.Client
) -> None:
    """A server that closes no route, to who has a token, has kept no call."""
    headers = TOKEN | {"X-LlamaStack-Provider-Data": '{"passthrough_api_key": "k"}'}
    assert call(http, guarded.server.url, chat(), headers=headers).status == 200

    listed = http.get(guarded.server.url + CHAT, headers=TOKEN)

    assert len(upstream.openai.calls) == 1
    assert (listed.status_code, listed.json()["data"]) == (200, [])


def test_a_web_socket_is_not_opened(
    server: Server, upstream: Upstream, http: httpx.Client
) -> None:
    """Neither on a route that is open nor on another, and the server goes on."""
    asking = (
        b"Connection: Upgrade",
        b"Upgrade: websocket",
        b"Sec-WebSocket-Version: 13",
    )
    statuses = [
        ask(server.port, request(f"GET {path} HTTP/1.1".encode(), *asking)).status
        for path in ("/v1/models", CHAT, "/", "/ws")
    ]

    assert statuses == [200, 200, 403, 403]
    assert call(http, server.url, chat()).status == 200
    assert len(upstream.openai.calls) == 1
