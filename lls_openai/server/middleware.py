"""The outermost ASGI middleware: paths, unreadable headers, access log and metrics."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lls_openai.context import RequestContext, context_of
from lls_openai.relay.app import Relay
from lls_openai.relay.routes import uses_anthropic_form
from lls_openai.server.access_log import AccessLog
from lls_openai.server.metrics import measure
from lls_openai.server.stack_errors import convert_stack_error, is_stack_error


class RequestLifecycleMiddleware:
    """Wraps Llama Stack's application with all its middlewares.

    Args:
        app: Llama Stack's.
        relay: the relay of this process.
        has_guards: whether authentication or a quota is configured, which may send a
            401 or 429.
        skips_chain: whether Llama Stack's middlewares have nothing to do for a route
            that the route policy permits; they cost 12 % of a call.
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
            send = _ErrorConverter(scope, context, send).send
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


class _ErrorConverter:
    """Converts Llama Stack's own 401 and 429; every other response passes."""

    def __init__(self, scope: Scope, context: RequestContext, send: Send) -> None:
        self._anthropic = uses_anthropic_form(scope)
        self._context = context
        self._send = send
        self._start: Message = {}
        self._body = b""

    async def send(self, message: Message) -> None:
        """Send a message, or hold it back until its error is complete."""
        if message["type"] == "http.response.start":
            # The relay's own errors have a code, and an upstream's responses a model.
            is_ours = self._context.code or self._context.model
            if is_stack_error(message["status"]) and not is_ours:
                self._start = message
                return
        if not self._start:
            await self._send(message)
            return
        self._body += message.get("body", b"")
        if not message.get("more_body"):
            await self._send_converted()

    async def _send_converted(self) -> None:
        start = self._start
        error = convert_stack_error(
            start["status"],
            list(start["headers"]),
            self._body,
            anthropic=self._anthropic,
        )
        self._context.code = error.code
        await self._send({**start, "headers": error.headers})
        await self._send({"type": "http.response.body", "body": error.body})
