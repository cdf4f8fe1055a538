"""The relay: an ASGI middleware in Llama Stack's own chain.

It runs behind authentication, route policy, quota and CORS, and before FastAPI. It
serves the relayed routes for models of this project's providers, and passes every other
request on. Every error of the server becomes a response here.
"""

import asyncio
from functools import partial
from typing import NamedTuple

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lls_openai.context import RequestContext, context_of
from lls_openai.errors import ClientDisconnected, RelayError
from lls_openai.relay.body import BytesInFlight, RequestBody, let_others_run, read_body
from lls_openai.relay.credentials import Credentials, missing_api_key, read_credentials
from lls_openai.relay.held_response import HeldResponse
from lls_openai.relay.model_list import complete_models
from lls_openai.relay.model_lookup import ModelLookup
from lls_openai.relay.response import relay_error, send_response
from lls_openai.relay.routes import Route, Routes, uses_anthropic_form
from lls_openai.relay.upstream import Upstream
from lls_openai.relay.upstream_errors import UpstreamError
from lls_openai.relay.upstream_response import UpstreamResponse
from lls_openai.stack import Stack


class _Request(NamedTuple):
    """A request as ASGI passes it, and the application that serves other requests."""

    scope: Scope
    receive: Receive
    send: Send
    next_app: ASGIApp
    context: RequestContext


class Relay:
    """Serves the relayed routes, for models of this project's providers."""

    def __init__(self, stack: Stack) -> None:
        self.routes = Routes(stack.run_config)
        self._models = ModelLookup(stack)
        providers = self._models.providers
        found = {name: upstream_of(each) for name, each in providers.items()}
        upstreams = {name: each for name, each in found.items() if each}
        # The settings of this project's providers, by their ids.
        self.settings = {name: each.config for name, each in upstreams.items()}
        # True where no provider could serve a request without the client's key.
        self._needs_key = len(upstreams) == len(providers) and all(
            each.needs_client_key for each in upstreams.values()
        )
        settings = self.settings.values()
        self._body_limit = max(each.max_request_bytes for each in settings)
        limit = max(each.max_bytes_in_flight for each in settings)
        self.bytes_in_flight = BytesInFlight(limit)

    async def __call__(
        self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp
    ) -> None:
        """Serve one HTTP request, or pass it on to `next_app`."""
        request = _Request(scope, receive, send, next_app, context_of(scope))
        try:
            await self._dispatch(request)
        except RelayError as error:
            await send_error(error, scope, send)
        except ClientDisconnected:
            # Nobody reads a response; the access log has status 499.
            return

    async def _dispatch(self, request: _Request) -> None:
        scope, receive, send, next_app, _ = request
        is_key = not self._models.has_authentication
        credentials = read_credentials(scope["headers"], bearer_is_key=is_key)
        route = self.routes.check(scope)
        if route:
            await self._relay(request, route, credentials)
        elif scope["path"].startswith("/v1/models"):
            await self._complete_model_name(scope)
            held = HeldResponse(send, complete_models)
            await next_app(scope, receive, held.send)
        else:
            await next_app(scope, receive, send)

    async def _relay(
        self, request: _Request, route: Route, credentials: Credentials
    ) -> None:
        if self._needs_key and not credentials.key:
            raise missing_api_key()
        try:
            response = await self._call_upstream(request, route, credentials)
        finally:
            self.bytes_in_flight.release(request.context)
        if response is None:
            return
        # A stream may last for minutes, and nobody reads these again.
        request.scope["headers"] = []
        try:
            await send_response(response, request.send, request.context, route)
        finally:
            response.close()

    async def _call_upstream(
        self, request: _Request, route: Route, credentials: Credentials
    ) -> UpstreamResponse | None:
        """Return the upstream's response; None if another provider has served it."""
        scope, receive, send, next_app, context = request
        acquire = partial(self.bytes_in_flight.acquire, context)
        text = await read_body(receive, scope["headers"], self._body_limit, acquire)
        body = RequestBody(text)
        model = await self._models.resolve(body.model, route.model_type, scope)
        upstream = upstream_of(model.provider)
        if upstream is None:
            await next_app(scope, _replay(text, receive), send)
            return None
        upstream.check(model.name, len(text), credentials)
        await let_others_run(text)
        text = body.with_model(model.name)
        head = upstream.request_head(scope, credentials, route, len(text))
        context.model, context.provider = model.listed_name, model.provider_id
        context.stream, context.operation = body.stream, route.operation
        # Only one copy of the body is kept while the upstream reads it.
        del body
        _cancel_on_disconnect(context)
        try:
            return await upstream.pool.send(head, text)
        except UpstreamError as error:
            raise relay_error(error, "upstream_unreachable") from None

    async def _complete_model_name(self, scope: Scope) -> None:
        """Replace a bare name in `GET /v1/models/{id}` by the listed one."""
        name = scope["path"].removeprefix("/v1/models/")
        if name != scope["path"]:
            name = await self._models.listed_name(name, scope)
            scope["path"] = f"/v1/models/{name}"


def attach_relay(stack: Stack) -> Relay:
    """Create the relay of a running stack, where `relay_of` finds it."""
    relay = stack.relay = Relay(stack)
    return relay


def relay_of(scope: Scope) -> Relay:
    """Return the relay of the stack that serves a request."""
    relay: Relay = scope["app"].stack.relay
    return relay


class RelayMiddleware:
    """Puts the relay into Llama Stack's chain of middlewares."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        if scope["type"] == "http":
            await relay_of(scope)(scope, receive, send, self._app)
        else:
            await self._app(scope, receive, send)


async def send_error(error: RelayError, scope: Scope, send: Send) -> None:
    """Send one of the server's own errors, in the form that the client expects."""
    context_of(scope).fail(error)
    body = error.body(anthropic=uses_anthropic_form(scope))
    headers = error.response_headers(body)
    start = {"type": "http.response.start", "status": error.status, "headers": headers}
    await send(start)
    await send({"type": "http.response.body", "body": body})


def upstream_of(provider: object) -> Upstream | None:
    """Return the upstream of one of this project's providers; None for others."""
    upstream = getattr(provider, "upstream", None)
    return upstream if isinstance(upstream, Upstream) else None


def _cancel_on_disconnect(context: RequestContext) -> None:
    """End the call when the client disconnects, which ASGI reports only to readers."""
    if task := asyncio.current_task():
        context.on_disconnect(task.cancel)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a receive that returns the body, then what `receive` returns."""
    messages: list[Message] = [{"type": "http.request", "body": body}]

    async def receive_replayed() -> Message:
        return messages.pop() if messages else await receive()

    return receive_replayed
