"""A caller's connection: uvicorn's, with bounds that it has none of.

httptools joins a long header piece by piece, in time that grows with its square: 200 MB
of one header hold the event loop, and with it every other caller, for two minutes.
What the relay sees, `lls_openai/body.py` bounds.

It also says when the caller leaves, which ASGI tells only to a task that waits for it.
"""

import asyncio
from collections.abc import Sequence

from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import (
    HttpToolsProtocol,
    RequestResponseCycle,
)

from lls_openai.caller import Caller, caller_of
from lls_openai.errors import error_body
from lls_openai.logs import AccessLog

# The largest head, in bytes: what uvicorn allows with h11, its other parser. It is
# looked at after each read, so that a head may be larger by one read (256 KiB).
HEAD_BYTES = 64 * 1024

# How many requests may wait behind the one that is answered. uvicorn reads on after
# each answer, and keeps what it has read: 40 times the bytes of small requests.
PIPELINED = 32

# How long a caller may take to send a head and the first of its body, in seconds.
HEAD_SECONDS = 30.0

_MESSAGE = f"The request's headers are over the limit of {HEAD_BYTES:,} bytes"
_BODY = error_body(_MESSAGE, "invalid_request_error", None, "request_too_large")
_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n"
    b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
    % (len(_BODY), _BODY)
)


def accept_with_bounds(config: Config) -> None:
    """Have a server make `Connection`s of what it accepts.

    Args:
        config: the server's, loaded.

    Raises:
        RuntimeError: its parser is not httptools, a dependency of this project.
    """
    if config.http_protocol_class is not HttpToolsProtocol:
        raise RuntimeError("uvicorn does not parse with httptools")
    Connection.access_lines = AccessLog()
    config.http_protocol_class = Connection


class Connection(HttpToolsProtocol):
    """uvicorn's connection, where a head ends in time and trailers are no headers."""

    access_lines: AccessLog

    _in_head = False
    # Whether neither a part of a body has come nor the end of the request.
    _begins = True
    # Bytes that came since the parser last passed on a head or a part of a body: of a
    # head, or of trailers, of which it makes headers too.
    _pending = 0
    _deadline: asyncio.TimerHandle | None = None
    # The requests that are not answered yet: one, and those that wait behind it.
    _open: Sequence[RequestResponseCycle] = ()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # (uvicorn's own signature)
        """Expect a first head.

        Args:
            transport: the connection.
        """
        super().connection_made(transport)
        self.access_logger = self.access_lines  # type: ignore[assignment]  # (uvicorn calls its `info`, and nothing else)
        self._expect_more()

    def connection_lost(self, exc: Exception | None) -> None:
        """Expect no more, and end what is done for the caller.

        Args:
            exc: why the connection ended.
        """
        self._drop_deadline()
        super().connection_lost(exc)
        for cycle in self._open:
            # uvicorn tells the last one only.
            cycle.disconnected = True
            caller_of(cycle.scope).leave()  # type: ignore[arg-type]  # (a dict)

    def data_received(self, data: bytes) -> None:
        """Take what was read, and no more when it is too much.

        Args:
            data: the bytes of one read.
        """
        self._pending += len(data)
        super().data_received(data)
        if self._begins:
            self._expect_more()
        elif self._deadline:
            self._drop_deadline()
        if self._pending > HEAD_BYTES and not self.transport.is_closing():
            self.logger.warning(_MESSAGE)
            if self._in_head:
                self.transport.write(_TOO_LARGE)
            self.transport.close()

    def on_message_begin(self) -> None:
        """Begin with a head."""
        super().on_message_begin()
        self._in_head = self._begins = True

    def on_headers_complete(self) -> None:
        """Hand the head on, to which nothing is added any more.

        A trailer is appended to `self.headers` (RFC 9110, section 6.5.1, forbids that
        for all that count here): to a copy, it reaches nobody.

        Raises:
            OverflowError: too many requests wait; uvicorn then ends the connection.
        """
        self._in_head = False
        self._pending = 0
        if len(self.pipeline) >= PIPELINED:
            raise OverflowError
        self.scope["lls_openai.caller"] = Caller()  # type: ignore[typeddict-unknown-key]
        super().on_headers_complete()
        self.headers = self.headers.copy()
        if self.pipeline:
            self._open = [*self._open, self.cycle]
            # uvicorn reads no more, and so would not see the caller leave.
            self.flow.resume_reading()
        else:
            self._open = [self.cycle]

    def on_body(self, body: bytes) -> None:
        """Take a part of a body.

        Args:
            body: the part.
        """
        self._pending = 0
        self._begins = False
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Take the end of a request, which may be that of its head."""
        self._begins = False
        super().on_message_complete()

    def _expect_more(self) -> None:
        if not self._deadline:
            self._deadline = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _drop_deadline(self) -> None:
        if self._deadline:
            self._deadline.cancel()
            self._deadline = None
