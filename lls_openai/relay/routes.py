"""The relayed routes, as run.yaml's route policy lists them."""

import re
from collections.abc import Iterable
from typing import NamedTuple

from starlette.routing import BaseRoute, Match
from starlette.types import Scope

from lls_openai.errors import Format, RelayError
from lls_openai.stack import ModelType, StackConfig

# A longer path is not repeated in a message.
MAX_SHOWN_PATH = 128

# The names of OpenTelemetry's GenAI conventions, and the last part of other paths.
# These routes are relayed also where a pattern of the policy permits them, or where
# Llama Stack has a route of the same name.
_OPERATIONS = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "text_completion",
    "/v1/embeddings": "embeddings",
    "/v1/responses": "chat",
    "/v1/responses/compact": "compact",
    "/v1/responses/input_tokens": "input_tokens",
    "/v1/messages": "chat",
    "/v1/messages/count_tokens": "count_tokens",
}

# Llama Stack serves these itself.
_NOT_RELAYED = ("/v1/models", "/v1/health", "/v1/version")

_METHODS = ("DELETE", "GET", "PATCH", "POST", "PUT")


class Route(NamedTuple):
    """A route that is relayed to the upstream's route of the same name.

    `operation` is its name in metrics, `format` the form of keys, errors and streams.
    """

    path: str
    operation: str
    model_type: ModelType
    format: Format


class Routes:
    """The routes that a client can call, as run.yaml's route policy lists them."""

    def __init__(self, config: StackConfig) -> None:
        self._open = _permitted_paths(config)
        self.relayed = {path: _route(path) for path in self._open if _is_relayed(path)}
        # Relayed paths that the route policy has permitted to a client without a user.
        self.permitted: set[str] = set()
        # Paths of which it is known whether Llama Stack has a route with that path.
        self._known = {*_OPERATIONS}

    def canonical_path(self, path: str) -> str:
        """Return the path with `/v1` once at its start, where that is a route.

        Clients disagree on whether a base URL ends with `/v1`.
        """
        if path in self.relayed:
            return path
        if path.startswith("/v1/v1/"):
            return path.removeprefix("/v1")
        if f"/v1{path}" in self._open or path.startswith("/models/"):
            return f"/v1{path}"
        return path

    def check(self, scope: Scope) -> Route | None:
        """Return the relayed route of a request, or None for a route of Llama Stack's.

        Raises RelayError if there is no such route, or it does not allow the method.
        """
        path, method = scope["path"], scope["method"]
        if path not in self._known:
            self._leave_to_stack(scope)
        route = self.relayed.get(path)
        if route is None:
            self._check_stack_route(scope, scope["app"].routes)
        elif method != "POST":
            if dict(scope["headers"]).get(b"upgrade", b"").lower() == b"websocket":
                message = f"{path} has no WebSocket; use POST over HTTP"
                raise RelayError("upgrade_required", message)
            raise _method_not_allowed(path, method, {"POST"})
        return route

    def _leave_to_stack(self, scope: Scope) -> None:
        """Relay no path of Llama Stack's own, which the same policy opens."""
        path = scope["path"]
        if path in self.relayed:
            self._known.add(path)
            routes: Iterable[BaseRoute] = scope["app"].routes
            if any(route.matches(scope)[0] is not Match.NONE for route in routes):
                del self.relayed[path]

    def _check_stack_route(self, scope: Scope, routes: Iterable[BaseRoute]) -> None:
        path, partial = scope["path"], []
        # Starlette ignores a line feed at the end of a path.
        for route in routes if path.isprintable() else ():
            match, _ = route.matches(scope)
            if match is Match.FULL:
                return
            if match is Match.PARTIAL:
                partial.append(route)
        if not partial:
            raise self.unknown_route(path)
        allowed = {
            method
            for method in _METHODS
            for route in partial
            if route.matches({**scope, "method": method})[0] is Match.FULL
        }
        raise _method_not_allowed(path, scope["method"], allowed)

    def unknown_route(self, path: str) -> RelayError:
        """Build the error that lists the available routes."""
        is_shown = path.isprintable() and len(path) <= MAX_SHOWN_PATH
        routes = [
            f"{'POST' if path in self.relayed else 'GET'} {path}" for path in self._open
        ]
        message = (
            f"Unknown route{f' {path}' if is_shown else ''}. "
            f"Available routes: {', '.join(routes)}"
        )
        return RelayError("unknown_route", message)


def _permitted_paths(config: StackConfig) -> list[str]:
    """Return the paths of the route policy; without one, every path is permitted."""
    auth = config.server.auth
    rules = (auth.route_policy if auth else None) or []
    permits = [rule.permit.paths for rule in rules if rule.permit]
    paths = [[each] if isinstance(each, str) else each for each in permits]
    permitted = [path for each in paths for path in each] if rules else ["*"]
    known = (*_OPERATIONS, *_NOT_RELAYED)
    added = [path for path in known if _matches_pattern(path, permitted)]
    return list(dict.fromkeys([*permitted, *added]))


def _matches_pattern(path: str, patterns: Iterable[str]) -> bool:
    """Match a path as Llama Stack's route policy does, literal paths excepted."""
    return any(
        re.match(pattern.removeprefix("regex:"), path)
        if pattern.startswith("regex:")
        else pattern.endswith("*") and path.startswith(pattern[:-1])
        for pattern in patterns
    )


def _is_relayed(path: str) -> bool:
    is_literal = path.startswith("/v1/") and not path.endswith("*")
    return is_literal and path not in _NOT_RELAYED


def _route(path: str) -> Route:
    model_type = ModelType.embedding if path == "/v1/embeddings" else ModelType.llm
    operation = _OPERATIONS.get(path) or path.rpartition("/")[2]
    route_format: Format = "openai"
    if path.startswith("/v1/responses"):
        route_format = "responses"
    elif path.startswith("/v1/messages"):
        route_format = "anthropic"
    return Route(path, operation, model_type, route_format)


def _method_not_allowed(path: str, method: str, allowed: set[str]) -> RelayError:
    """Build the error; RFC 9110, section 15.5.6 asks for `Allow`."""
    methods = ", ".join(sorted(allowed))
    message = f"Method {method} not allowed for {path}; use {methods}"
    error = RelayError("method_not_allowed", message)
    error.headers = [(b"allow", methods.encode())]
    return error


def uses_anthropic_form(scope: Scope) -> bool:
    """Return whether errors have Anthropic's form: by the path, or the version sent."""
    return scope["path"].startswith("/v1/messages") or any(
        name == b"anthropic-version" for name, _ in scope["headers"]
    )
