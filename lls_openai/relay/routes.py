"""The table of routes: which are relayed, and how any other is refused."""

from typing import NamedTuple

from starlette.routing import BaseRoute, Match
from starlette.types import Scope

from lls_openai.errors import RelayError
from lls_openai.stack import ModelType

# A longer path is not repeated in a message.
LONGEST_PATH = 128


class Route(NamedTuple):
    """A route that is relayed to the upstream's own of the same name.

    Args:
        model_type: the type of model that it takes.
        anthropic: whether keys and errors have Anthropic's form there.
    """

    model_type: ModelType = ModelType.llm
    anthropic: bool = False


# By the path as callers name it; the upstream's URL ends like it, without `/v1`.
ROUTES = {
    "/v1/chat/completions": Route(),
    "/v1/completions": Route(),
    "/v1/embeddings": Route(ModelType.embedding),
    "/v1/responses": Route(),
    "/v1/messages": Route(anthropic=True),
    "/v1/messages/count_tokens": Route(anthropic=True),
}

# Names of OpenTelemetry's GenAI conventions; another route is named by its last part.
OPERATIONS = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "text_completion",
    "/v1/embeddings": "embeddings",
    "/v1/messages": "chat",
    "/v1/responses": "chat",
}

# Llama Stack's own that run.yaml leaves open.
_OPEN = ("GET /v1/models", "GET /v1/models/{model}", "GET /v1/health")


_METHODS = ("DELETE", "GET", "PATCH", "POST", "PUT")


def is_anthropic(path: str) -> bool:
    """Whether errors on this path have Anthropic's form."""
    return path in ROUTES and ROUTES[path].anthropic


def refuse_others(scope: Scope, routes: list[BaseRoute]) -> None:
    """Let a request pass that is for a relayed route, or one of Llama Stack's `routes`.

    Raises:
        RelayError: there is no such route, or it does not take the method.
    """
    path, method = scope["path"], scope["method"]
    if path in ROUTES:
        methods = {"POST"}
    # Starlette takes "/v1/chat/completions\n" for the route without the line feed.
    elif not path.isprintable():
        methods = set()
    elif any(_serves(route, scope, method) for route in routes):
        methods = {method}
    else:
        methods = {m for m in _METHODS for each in routes if _serves(each, scope, m)}
    if not methods:
        raise unknown_route(path)
    if method not in methods:
        # RFC 9110, section 15.5.6: it names the right ones.
        allowed = ", ".join(sorted(methods))
        error = RelayError("method_not_allowed", f"{path} takes {allowed}")
        error.headers = [(b"allow", allowed.encode())]
        raise error


def _serves(route: BaseRoute, scope: Scope, method: str) -> bool:
    return route.matches({**scope, "method": method})[0] is Match.FULL


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
