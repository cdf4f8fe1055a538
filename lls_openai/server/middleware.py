"""The first application that a request meets, in front of Llama Stack's whole chain.

It gives every answer its request id, reads what a refusal leaves of a body, and ends a
request with its line in the log and its measurements.
"""

import asyncio
import uuid
from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lls_openai.context import context_of
from lls_openai.server.access_log import AccessLog
from lls_openai.server.caller import Caller
from lls_openai.server.metrics import measure

# How much of a refused body is discarded, in bytes: a client that sends it all before
# it looks would see a reset and not the answer.
LINGER_BYTES = 512 * 1024 * 1024


def new_request_id() -> bytes:
    """Make an id for an answer that has none of the vendor's."""
    return b"req_%b" % uuid.uuid4().hex.encode()


class Front:
    """Wraps the server's application.

    Args:
        app: Llama Stack's, with its middlewares.
        linger: for how long a refused body is discarded, in seconds.
    """

    def __init__(self, app: ASGIApp, linger: float) -> None:
        self._app = app
        self._log = AccessLog()
        self._linger = linger

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # FastAPI would measure the request a second time, and look for who wants that.
        scope["fastapi.telemetry"] = None
        if not all(value.isascii() for _, value in scope["headers"]):
            scope["headers"] = [(n, _readable(value)) for n, value in scope["headers"]]
        exchange = _Exchange(scope, receive, send, self._linger)
        try:
            await self._app(scope, receive, exchange.send)
        except asyncio.CancelledError:
            # The caller is gone, its answer broke off, or a stop's drain time is over.
            await exchange.caller.abort()
        finally:
            # It knows the scope: such a circle waits for the collector.
            scope.pop("lls_openai.caller")
            self._log(scope, exchange.record)
            measure(exchange.record)


def _readable(value: bytes) -> bytes:
    """Make UTF-8 of what is none: Llama Stack raises over that, and logs it."""
    text = value.decode(errors="replace").encode()
    # With this at its end it is neither a key nor JSON.
    return text if text == value else text + b"\xef\xbf\xbd"


class _Exchange:
    """One request and its answer."""

    caller: Caller

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, linger: float
    ) -> None:
        self._linger = linger
        self._receive = receive
        self._send = send
        self.caller = scope["lls_openai.caller"]
        self.record = context_of(scope)

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.record.status = message["status"]
            message = self._with_id(message)
        elif not message.get("more_body") and self.caller.is_sending:
            await self._send({**message, "more_body": True})
            message = {"type": "http.response.body"}
            await self._discard()
        await self._send(message)

    def _with_id(self, start: Message) -> Message:
        """Use the vendor's id where there is one; Anthropic's has another name."""
        there = dict(start["headers"])
        own = there.get(b"x-request-id") or there.get(b"request-id")
        own = own or new_request_id()
        self.record.request_id = own.decode("latin-1")
        if b"x-request-id" in there:
            return start
        return {**start, "headers": [*start["headers"], (b"x-request-id", own)]}

    async def _discard(self) -> None:
        """Read on for a bounded time and size, then give up on the connection."""
        size = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(self._linger):
                while self.caller.is_sending and size < LINGER_BYTES:
                    size += len((await self._receive()).get("body", b""))
        if self.caller.is_sending:
            await self.caller.abort()
