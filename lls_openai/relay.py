"""The relay: an ASGI middleware in Llama Stack's own chain.

It stands in the place of `llama_stack.core.server.server.ProviderDataMiddleware`:
behind authentication, route policy, quota, CORS and request metrics, before FastAPI.
It answers the inference routes for models of this project's providers, and hands every
other request on untouched.
"""

from importlib.metadata import version

import aiohttp
from llama_stack.core.server.server import ProviderDataMiddleware
from multidict import CIMultiDict
from starlette.types import Message, Receive, Scope, Send

from lls_openai.adapter import PassthroughAdapter, missing_api_key
from lls_openai.answer import BrokenOff, relay_answer
from lls_openai.body import CallerLeft, RequestBody, read_body
from lls_openai.caller import caller_of
from lls_openai.credentials import Credentials, Headers, read_credentials
from lls_openai.errors import RelayError, send_error
from lls_openai.lifecycle import serving
from lls_openai.metrics import CallMetrics
from lls_openai.pool import allow_many_connections, open_pool
from lls_openai.routes import CHAT, MODEL_TYPES
from lls_openai.routing import Routing
from lls_openai.transport import Call, post

RELAYED_HEADERS = frozenset(
    {
        b"accept-encoding",
        b"anthropic-beta",
        b"anthropic-version",
        b"idempotency-key",
        b"openai-beta",
        b"openai-organization",
        b"openai-project",
        b"traceparent",
        b"tracestate",
        b"x-client-request-id",
    }
)

OWN_HEADERS = {
    "Accept": "*/*",
    "Content-Type": "application/json",
    "User-Agent": f"lls-openai/{version('lls-openai')}",
}


class Relay(ProviderDataMiddleware):  # type: ignore[misc]
    """Answers the inference routes by relaying them; the rest it hands on.

    Args:
        app: the next application in Llama Stack's chain.
    """

    _pool: aiohttp.ClientSession
    _routing: Routing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope; the pool lives as long as the lifespan's.

        Args:
            scope: what is asked for.
            receive: ASGI's receive.
            send: ASGI's send.
        """
        if scope["type"] == "http":
            await self._answer(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._live(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_at_last(message: Message) -> None:
            # After this message uvicorn waits for nothing more.
            if message["type"].startswith("lifespan.shutdown"):
                await self._pool.close()
            await send(message)

        self._routing = Routing(scope["app"].stack)
        allow_many_connections()
        with serving():
            async with open_pool() as self._pool:
                await super().__call__(scope, receive, send_at_last)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            credentials = read_credentials(
                scope["headers"], bearer_is_key=not self._routing.has_authentication
            )
            if scope["method"] == "POST" and scope["path"] in MODEL_TYPES:
                await self._relay(scope, receive, send, credentials)
            else:
                await super().__call__(_readable(scope), receive, send)
        except RelayError as error:
            await send_error(send, error)
        except (CallerLeft, BrokenOff):
            # An answer that is left unfinished ends with its connection.
            return

    async def _relay(
        self, scope: Scope, receive: Receive, send: Send, credentials: Credentials
    ) -> None:
        if not credentials.key and self._routing.needs_key:
            raise missing_api_key()
        text = await read_body(receive, scope["headers"], self._routing.body_limit)
        body = RequestBody(text)
        provider, model = await self._routing.find(body.model, scope)
        if not isinstance(provider, PassthroughAdapter):
            await super().__call__(_readable(scope), _again(text, receive), send)
            return
        provider.check(model, len(text))
        metrics = CallMetrics(body.model, provider.__provider_id__)
        call = Call(
            provider.upstream,
            scope["path"],
            _headers(scope["headers"], provider.headers(credentials)),
            body.for_model(model),
        )
        # A stream may last for minutes: what was read to begin it is let go of.
        del text, body, credentials
        with caller_of(scope):
            await self._exchange(call, send, metrics)

    async def _exchange(self, call: Call, send: Send, metrics: CallMetrics) -> None:
        """Send the call, and relay what comes back."""
        success = False
        try:
            response = await post(self._pool, call)
            try:
                success = await relay_answer(response, send, metrics)
            finally:
                if not success:
                    # Unless the answer is whole, this ends the connection and the call.
                    response.close()
        finally:
            # Llama Stack's router measures no other route either.
            if call.route == CHAT:
                metrics.record(success=success)


def _headers(caller: Headers, provider: dict[str, str]) -> CIMultiDict[str]:
    """Put the headers of a call together; the provider's go before the caller's."""
    headers = CIMultiDict(
        (name.decode(), value.decode())
        for name, value in caller
        if name in RELAYED_HEADERS and value.isascii()
    )
    for own, fixed in OWN_HEADERS.items():
        headers.setdefault(own, fixed)
    headers.update(provider)
    return headers


def _readable(scope: Scope) -> Scope:
    """Leave out the headers that Llama Stack raises over: it decodes them as UTF-8."""
    headers = scope["headers"]
    if all(value.isascii() for _, value in headers):
        return scope
    return {**scope, "headers": [pair for pair in headers if pair[1].isascii()]}


def _again(body: bytes, receive: Receive) -> Receive:
    """Make a receive that gives a body once more, then what the first one gives."""
    messages: list[Message] = [{"type": "http.request", "body": body}]

    async def receive_again() -> Message:
        return messages.pop() if messages else await receive()

    return receive_again
