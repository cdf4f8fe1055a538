"""The relay: an ASGI middleware in Llama Stack's own chain.

It stands in the place of `llama_stack.core.server.server.ProviderDataMiddleware`:
behind authentication, route policy, quota, CORS and request metrics, before FastAPI.
It answers the routes of its table for models of this project's providers, and hands
every other request on untouched. Every error becomes an answer here.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import aiohttp
from llama_stack.core.server.server import ProviderDataMiddleware
from starlette.types import Message, Receive, Scope, Send

from lls_openai.relay.client import open_pool, post
from lls_openai.relay.credentials import Credentials, missing_api_key, read_credentials
from lls_openai.relay.errors import RelayError, send_error
from lls_openai.relay.models import openai_form
from lls_openai.relay.record import record_of
from lls_openai.relay.request import InFlight, RequestBody, read_body
from lls_openai.relay.response import relay_answer
from lls_openai.relay.routes import ROUTES, is_anthropic, refusal
from lls_openai.relay.routing import Routing
from lls_openai.relay.upstream import Upstream


class Relay(ProviderDataMiddleware):  # type: ignore[misc]
    """Answers the relayed routes; the rest it hands on to the next application."""

    upstreams: list[Upstream]
    _routing: Routing
    _pool: aiohttp.ClientSession
    _in_flight: InFlight
    _body_limit: int
    _needs_key: bool

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope; the pool lives as long as the lifespan's."""
        if scope["type"] == "http":
            await self._answer(scope, receive, send)
        else:
            async with self.serving(scope):
                await super().__call__(scope, receive, self._closing_pool(send))

    @asynccontextmanager
    async def serving(self, scope: Scope) -> AsyncIterator[None]:
        """Hold what all requests share; the block is the server's life."""
        self._routing = Routing(scope["app"].stack)
        providers = list(self._routing.providers.values())
        self.upstreams = ours = [up for up in map(upstream_of, providers) if up]
        self._body_limit = max(up.config.max_request_bytes for up in ours)
        self._in_flight = InFlight(max(up.config.max_bytes_in_flight for up in ours))
        # Without a key a body need not even be read, where no provider is content.
        self._needs_key = len(ours) == len(providers) and all(
            up.needs_key for up in ours
        )
        async with open_pool() as self._pool:
            yield

    def _closing_pool(self, send: Send) -> Send:
        async def send_at_last(message: Message) -> None:
            # After this message uvicorn waits for nothing more.
            if message["type"].startswith("lifespan.shutdown"):
                await self._pool.close()
            await send(message)

        return send_at_last

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        record = record_of(scope)
        path = scope["path"]
        try:
            credentials = read_credentials(
                scope["headers"], bearer_is_key=not self._routing.has_authentication
            )
            if error := refusal(scope, scope["app"].routes):
                raise error
            if path in ROUTES:
                try:
                    await self._relay(scope, receive, send, credentials)
                finally:
                    self._in_flight.give_back(record)
            else:
                send = openai_form(send) if path.startswith("/v1/models") else send
                await super().__call__(scope, receive, send)
        except RelayError as error:
            record.code = error.code
            # They hold the body, and what is left of that may be discarded for long.
            error.__traceback__ = error.__context__ = None
            await send_error(send, error, anthropic=is_anthropic(path))

    async def _relay(
        self, scope: Scope, receive: Receive, send: Send, credentials: Credentials
    ) -> None:
        if not credentials.key and self._needs_key:
            raise missing_api_key()
        record, in_flight = record_of(scope), self._in_flight
        take = partial(in_flight.take, record)
        text = await read_body(receive, scope["headers"], self._body_limit, take)
        body, route = RequestBody(text), ROUTES[scope["path"]]
        provider, model, listed = await self._routing.find(body.model, route, scope)
        upstream = upstream_of(provider)
        if upstream is None:
            await super().__call__(scope, _again(text, receive), send)
            return
        record.model, record.provider = listed, provider.__provider_id__
        record.stream = body.stream
        upstream.check(model, len(text), credentials)
        headers = upstream.headers(scope["headers"], credentials, route)
        url = upstream.endpoint(route, scope["query_string"])
        call = post(self._pool, upstream, url, headers, body.for_model(model))
        # A stream may last for minutes: what was read to begin it is let go of.
        del text, body, credentials, headers, url
        _end_with_caller(scope)
        response = await call
        in_flight.give_back(record)
        try:
            await relay_answer(response, send, record, anthropic=route.anthropic)
        finally:
            # Unless the answer is whole, this ends the connection.
            response.close()


def _end_with_caller(scope: Scope) -> None:
    """Have the running task cancelled as soon as its caller disconnects.

    By ASGI alone, that takes a task for each request, which waits for the message.
    """
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
