"""The outermost ASGI middleware: paths, unreadable headers, access log and metrics."""

from starlette.types import ASGIApp, Receive, Scope, Send

from lls_openai.context import context_of
from lls_openai.relay.app import Relay
from lls_openai.server.access_log import AccessLog
from lls_openai.server.metrics import measure
from lls_openai.server.stack_errors import hold_stack_errors


class RequestLifecycleMiddleware:
    """Wraps Llama Stack's application with all its middlewares.

    `has_guards` says that authentication or a quota may send a 401 or 429;
    `skips_chain` that Llama Stack's middlewares, 12 % of a call, have nothing to do for
    a route that the route policy permits.
    """

    def __init__(
        self, app: ASGIApp, relay: Relay, *, has_guards: bool, skips_chain: bool
    ) -> None:
        self._app, self._relay, self._routes = app, relay, relay.routes
        self._log = AccessLog()
        self._has_guards, self._skips_chain = has_guards, skips_chain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"] = self._routes.canonical_path(scope["path"])
        if not all(value.isascii() for _, value in scope["headers"]):
            scope["headers"] = [(n, _to_utf8(value)) for n, value in scope["headers"]]
        context = context_of(scope)
        if self._has_guards:
            send = hold_stack_errors(scope, context, send)
        try:
            if self._skips_chain and path in self._routes.permitted:
                await self._relay(scope, receive, send, self._app)
            else:
                # FastAPI would look for its own telemetry, and measure the call again.
                scope["fastapi.telemetry"] = None
                await self._app(scope, receive, send)
        finally:
            self._log(scope, context)
            measure(context)


def _to_utf8(value: bytes) -> bytes:
    """Replace what is not UTF-8, over which Llama Stack would raise."""
    text = value.decode(errors="replace").encode()
    # The last character keeps it from being a key, or JSON.
    return text if text == value else text + "\N{REPLACEMENT CHARACTER}".encode()
