"""One request on a client connection, and its response: ASGI's receive and send."""

import asyncio
import logging
from collections.abc import Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Message, Scope

from lls_openai.context import SCOPE_KEY, RequestContext, new_request_id
from lls_openai.errors import RelayError, ResponseTruncated
from lls_openai.relay.routes import uses_anthropic_form
from lls_openai.server.log_format import place_of

if TYPE_CHECKING:
    from lls_openai.server.protocol import ClientConnection

# How much of a body is buffered before the connection stops reading, in bytes.
MAX_BUFFERED_BODY_BYTES = 64 * 1024

# RFC 9110, sections 15.2, 15.3.5 and 15.4.5: these responses have no body.
_NO_BODY = frozenset({*range(100, 200), 204, 304})

_STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode()
    for status in HTTPStatus
}

_LAST_CHUNK = b"0\r\n\r\n"

logger = logging.getLogger("lls_openai.connection")


class RequestCycle:
    """A request from its headers to the end of its response.

    `keep_alive` says whether another request may follow on the connection,
    `expects_continue` whether the client waits for `100 Continue` before the body.
    """

    def __init__(
        self,
        connection: "ClientConnection",
        scope: Scope,
        *,
        keep_alive: bool,
        expects_continue: bool,
    ) -> None:
        self.scope = scope
        self.context = scope[SCOPE_KEY] = RequestContext()
        self.keep_alive = keep_alive
        self.more_body = True
        self.is_started = self.has_begun_response = False
        self._connection = connection
        self._expects_continue = expects_continue
        self._is_over = self._is_body_returned = False
        self._body = bytearray()
        self._changed: asyncio.Event | None = None
        # The start of the response, until the first part of its body is sent.
        self._head = b""
        self._has_body = self._is_chunked = False
        # How much of the announced length is still to be sent, in bytes.
        self._unsent: int | None = None

    # The connection reports what it has received.

    def add_body(self, data: bytes) -> bool:
        """Buffer a part of the body; return whether too much of it is buffered."""
        self._expects_continue = False
        self._body += data
        self._notify()
        return len(self._body) > MAX_BUFFERED_BODY_BYTES

    def end_body(self) -> None:
        """Note that the request is complete."""
        self.more_body = self._expects_continue = False
        self._notify()

    def disconnect(self) -> None:
        """Note that the client has disconnected; nothing is written any more."""
        self._is_over = True
        self._notify()
        self.context.disconnect()

    # The application's side.

    async def run(self, app: ASGIApp) -> None:
        """Call the application, and make sure that the response has an end."""
        try:
            await app(self.scope, self.receive, self.send)
        except (asyncio.CancelledError, ResponseTruncated):
            # The client has disconnected, the upstream's response is incomplete, or the
            # time for a graceful shutdown is over.
            self._connection.abort()
        except Exception as error:  # noqa: BLE001 (the last resort of the application)
            # Starlette raises it again after it has sent a response.
            if not self._is_over:
                # Without its message, which may contain a secret.
                logger.error(  # noqa: TRY400 (without a traceback)
                    "Unexpected %s in a request, raised at %s",
                    type(error).__name__,
                    place_of(error),
                )
        if self._is_over:
            return
        if self.has_begun_response:
            self._connection.abort()
        else:
            self._send_error(RelayError("internal_error", "Internal server error"))

    async def receive(self) -> Message:
        """Return the next part of the body, or that the client has disconnected."""
        if self._expects_continue and not self._is_over:
            self._expects_continue = False
            self._connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        while not self._is_over and (
            self._is_body_returned or (self.more_body and not self._body)
        ):
            await self._wait_for_change()
        if self._is_over:
            return {"type": "http.disconnect"}
        self._is_body_returned = not self.more_body
        body, self._body = bytes(self._body), bytearray()
        self._connection.read_on()
        return {"type": "http.request", "body": body, "more_body": self.more_body}

    async def send(self, message: Message) -> None:
        """Send the start of the response, or a part of its body.

        The start is sent with the first part of the body, which may be empty.
        """
        if self._connection.is_writing_paused:
            await self._connection.writable.wait()
        if self._is_over:
            return
        if message["type"] == "http.response.start":
            self._start(message["status"], message.get("headers", ()))
        else:
            self._send_body(message.get("body", b""), message.get("more_body", False))

    async def _wait_for_change(self) -> None:
        if self._changed is None:
            self._changed = asyncio.Event()
        self._changed.clear()
        await self._changed.wait()

    def _notify(self) -> None:
        if self._changed:
            self._changed.set()

    def _start(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self.context.status = status
        # An error may take the place of a start that failed.
        self._is_chunked, self._unsent = False, None
        self._has_body = status not in _NO_BODY and self.scope["method"] != "HEAD"
        lines = [_STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status]
        request_id = other_id = b""
        for name, value in (*self._connection.server.default_headers, *headers):
            if name == b"connection":
                self.keep_alive = self.keep_alive and value.lower() != b"close"
                continue
            if name == b"content-length" and self._has_body:
                self._unsent = int(value)
            elif name == b"x-request-id":
                request_id = value
            elif name == b"request-id":
                other_id = value
            lines.append(b"%b: %b\r\n" % (name, value))
        if not request_id:
            request_id = other_id or new_request_id()
            lines.append(b"x-request-id: %b\r\n" % request_id)
        self.context.request_id = request_id.decode("latin-1")
        lines += [*self._framing_lines(), b"\r\n"]
        self._head = b"".join(lines)
        # RFC 9110, section 5.5: a line feed in a value would begin another header.
        if self._head.count(b"\n") != len(lines):
            raise ValueError("A response header contains a line feed")

    def _framing_lines(self) -> Iterable[bytes]:
        """Yield the headers that say how the body ends, and the connection."""
        if self._has_body and self._unsent is None:
            self._is_chunked = self.scope["http_version"] != "1.0"
            if self._is_chunked:
                yield b"transfer-encoding: chunked\r\n"
            else:
                self.keep_alive = False
        # A client that still waits to send its body may never send it.
        if self._expects_continue:
            self.keep_alive = False
        if not self.keep_alive:
            yield b"connection: close\r\n"

    def _send_body(self, body: bytes, more_body: bool) -> None:  # noqa: FBT001 (ASGI's)
        if not self._has_body:
            body = b""
        elif self._is_chunked:
            body = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            body += b"" if more_body else _LAST_CHUNK
        elif self._unsent is not None:
            self._unsent -= len(body)
            if self._unsent < 0 or (self._unsent and not more_body):
                raise ValueError("The response body has not the announced length")
        self.has_begun_response = True
        if data := self._head + body:
            self._connection.write(data)
        self._head = b""
        if not more_body:
            self._end()

    def _end(self) -> None:
        self._is_over = True
        self._body.clear()
        self._notify()
        self._connection.end_response(self)

    def _send_error(self, error: RelayError) -> None:
        self.context.fail(error)
        body = error.body(anthropic=uses_anthropic_form(self.scope))
        self._start(error.status, error.response_headers(body))
        self._send_body(body, more_body=False)
