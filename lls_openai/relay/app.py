"""The relay: an ASGI middleware in Llama Stack's own chain.

It stands in the place of `llama_stack.core.server.server.ProviderDataMiddleware`:
behind authentication, route policy, quota, CORS and request metrics, before FastAPI.
It answers the routes of its table for models of this project's providers, and hands
every other request on untouched. Every error becomes an answer here.
"""

import asyncio
from functools import partial

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lls_openai.context import context_of
from lls_openai.errors import RelayError
from lls_openai.relay.body import InFlight, RequestBody, read_body
from lls_openai.relay.connection import UpstreamError
from lls_openai.relay.credentials import Credentials, read_credentials
from lls_openai.relay.model_list import openai_form
from lls_openai.relay.model_lookup import Routing
from lls_openai.relay.response import relay_answer, relay_error
from lls_openai.relay.routes import OPERATIONS, ROUTES, is_anthropic, refuse_others
from lls_openai.relay.upstream import Upstream
from lls_openai.settings import ProviderConfig
from lls_openai.stack import Stack


class Relay:
    """Answers the relayed routes; the rest it hands on to the next application."""

    settings: list[ProviderConfig]
    _routing: Routing
    _in_flight: InFlight
    _body_limit: int

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        if scope["type"] == "http":
            await self._answer(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    @classmethod
    def begin(cls, stack: Stack) -> None:
        """Take down what all requests share, before the first."""
        cls._routing = Routing(stack)
        upstreams = map(upstream_of, cls._routing.providers.values())
        cls.settings = [each.config for each in upstreams if each]
        cls._body_limit = max(each.max_request_bytes for each in cls.settings)
        bound = max(each.max_bytes_in_flight for each in cls.settings)
        cls._in_flight = InFlight(bound)

    @classmethod
    def bytes_in_flight(cls) -> int:
        """Return the bytes of request bodies that are in memory."""
        return cls._in_flight.held

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        record = context_of(scope)
        path = scope["path"]
        try:
            bearer = not self._routing.has_authentication
            credentials = read_credentials(scope["headers"], bearer_is_key=bearer)
            refuse_others(scope, scope["app"].routes)
            if path in ROUTES:
                try:
                    await self._relay(scope, receive, send, credentials)
                finally:
                    self._in_flight.give_back(record)
            else:
                send = openai_form(send) if path.startswith("/v1/models") else send
                await self._app(scope, receive, send)
        except RelayError as error:
            await answer_error(error, scope, receive, send)

    async def _relay(
        self, scope: Scope, receive: Receive, send: Send, credentials: Credentials
    ) -> None:
        record, in_flight = context_of(scope), self._in_flight
        take = partial(in_flight.take, record)
        text = await read_body(receive, scope["headers"], self._body_limit, take)
        body, route = RequestBody(text), ROUTES[scope["path"]]
        provider, model, listed = await self._routing.find(body.model, scope)
        upstream = upstream_of(provider)
        if upstream is None:
            await self._app(scope, _again(text, receive), send)
            return
        upstream.check(model, len(text), credentials)
        body_bytes = body.for_model(model)
        head = upstream.request_head(scope, credentials, route, len(body_bytes))
        record.model, record.provider = listed, provider.__provider_id__
        record.stream = body.stream
        path = scope["path"]
        record.operation = OPERATIONS.get(path) or path.rpartition("/")[2]
        call = upstream.pool.send(head, body_bytes)
        # A stream may last for minutes: what was read to begin it is let go of.
        del text, body, credentials, head, body_bytes
        _end_with_caller(scope)
        try:
            response = await call
        except UpstreamError as error:
            raise relay_error(error) from None
        in_flight.give_back(record)
        try:
            await relay_answer(response, send, record, anthropic=route.anthropic)
        finally:
            # Unless the answer is whole, this ends the connection.
            response.close()


async def answer_error(
    error: RelayError, scope: Scope, receive: Receive, send: Send
) -> None:
    """Answer with an error of the server's own, in the form of the route."""
    record = context_of(scope)
    record.code = error.code
    if error.code.startswith("upstream_"):
        record.reason = error.message
    # They hold the body, and what is left of that may be discarded for long.
    error.__traceback__ = error.__context__ = None
    body = error.body(anthropic=is_anthropic(scope["path"]))
    response = Response(body, error.status, media_type="application/json")
    response.raw_headers += error.headers
    await response(scope, receive, send)


def _end_with_caller(scope: Scope) -> None:
    """Cancel the running task when its caller disconnects, of which ASGI tells late."""
    task = asyncio.current_task()
    if (caller := scope.get("lls_openai.caller")) and task:
        caller.on_disconnect(task.cancel)


def upstream_of(provider: object) -> Upstream | None:
    """Give the pinned upstream of one of this project's providers; None for others."""
    upstream = getattr(provider, "upstream", None)
    return upstream if isinstance(upstream, Upstream) else None


def _again(body: bytes, receive: Receive) -> Receive:
    """Make a receive that gives a body once more, then what the first one gives."""
    messages: list[Message] = [{"type": "http.request", "body": body}]

    async def receive_again() -> Message:
        return messages.pop() if messages else await receive()

    return receive_again
