"""The table of routes: which are relayed, and how any other is refused."""

from dataclasses import dataclass

from llama_stack_api import ModelType
from starlette.routing import BaseRoute, Match
from starlette.types import Scope

from lls_openai.relay.errors import RelayError

# A longer path is not repeated in a message.
LONGEST_PATH = 128


@dataclass(frozen=True, slots=True)
class Route:
    """A route that is relayed to the upstream's own of the same name.

    Args:
        path: as callers name it; the upstream's URL ends like it, without `/v1`.
        model_type: the type of model that it takes.
        anthropic: whether keys and errors have Anthropic's form there.
    """

    path: str
    model_type: ModelType = ModelType.llm
    anthropic: bool = False


ROUTES = {
    route.path: route
    for route in (
        Route("/v1/chat/completions"),
        Route("/v1/completions"),
        Route("/v1/embeddings", ModelType.embedding),
        Route("/v1/responses"),
        Route("/v1/messages", anthropic=True),
        Route("/v1/messages/count_tokens", anthropic=True),
    )
}

# Llama Stack's own that run.yaml leaves open.
_OPEN = ("GET /v1/models", "GET /v1/models/{model}", "GET /v1/health")


_METHODS = ("DELETE", "GET", "PATCH", "POST", "PUT")


def is_anthropic(path: str) -> bool:
    """Whether errors on this path have Anthropic's form."""
    return path in ROUTES and ROUTES[path].anthropic


def refusal(scope: Scope, routes: list[BaseRoute]) -> RelayError | None:
    """Say why a request is for no route of this server; None if it is for one.

    Args:
        scope: the request's.
        routes: the routes of Llama Stack's application.
    """
    path = scope["path"]
    if path in ROUTES:
        return None if scope["method"] == "POST" else _wrong_method(path, {"POST"})
    # Starlette takes "/v1/chat/completions\n" for the route without the line feed.
    if not path.isprintable():
        return unknown_route(path)
    if any(_serves(route, scope, scope["method"]) for route in routes):
        return None
    methods = {m for m in _METHODS for route in routes if _serves(route, scope, m)}
    return _wrong_method(path, methods) if methods else unknown_route(path)


def _serves(route: BaseRoute, scope: Scope, method: str) -> bool:
    return route.matches({**scope, "method": method})[0] is Match.FULL


def _wrong_method(path: str, methods: set[str]) -> RelayError:
    """Make the error that names the right ones (RFC 9110, section 15.5.6)."""
    allowed = ", ".join(sorted(methods))
    error = RelayError("method_not_allowed", f"{path} takes {allowed}")
    error.headers = [(b"allow", allowed.encode())]
    return error


def unknown_route(path: str) -> RelayError:
    """Make the error that names the routes, and explains a wrong base URL."""
    if f"/v1{path}" in ROUTES or f"/v1{path}" == "/v1/models":
        hint = "The base URL lacks /v1 at its end. "
    elif path.startswith("/v1/v1"):
        hint = "The base URL has one /v1 too many. "
    else:
        hint = ""
    shown = path if path.isprintable() and len(path) <= LONGEST_PATH else "That path"
    routes = ", ".join([*(f"POST {each}" for each in ROUTES), *_OPEN])
    return RelayError(
        "unknown_route", f"{shown} is no route here. {hint}Open: {routes}"
    )
