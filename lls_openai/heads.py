"""Bounds of what a caller sends before the relay sees it: uvicorn has none.

httptools joins a long header piece by piece, in time that grows with its square: 200 MB
of one header hold the event loop, and with it every other caller, for two minutes.
What the relay sees, `lls_openai/body.py` bounds.
"""

import asyncio

from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from lls_openai.errors import error_body

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


def bound_heads(config: Config) -> None:
    """Bound the heads on the connections that a server is about to accept.

    Args:
        config: the server's, loaded. With h11 in it, heads are bounded already.
    """
    if config.http_protocol_class is HttpToolsProtocol:
        config.http_protocol_class = BoundedHead


class BoundedHead(HttpToolsProtocol):
    """uvicorn's connection, where a head ends in time and trailers are no headers."""

    _in_head = True
    # Bytes that came since the parser last passed on a head or a part of a body: of a
    # head, or of trailers, of which it makes headers too.
    _pending = 0
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # (uvicorn's own signature)
        """Expect a first head.

        Args:
            transport: the connection.
        """
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Expect no more.

        Args:
            exc: why the connection ended.
        """
        self._drop_deadline()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what was read, and no more when it is too much.

        Args:
            data: the bytes of one read.
        """
        self._pending += len(data)
        super().data_received(data)
        if self._pending > HEAD_BYTES and not self.transport.is_closing():
            self.logger.warning(_MESSAGE)
            if self._in_head:
                self.transport.write(_TOO_LARGE)
            self.transport.close()

    def on_message_begin(self) -> None:
        """Begin with a head."""
        super().on_message_begin()
        self._expect_head()

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
        super().on_headers_complete()
        self.headers = self.headers.copy()

    def on_body(self, body: bytes) -> None:
        """Take a part of a body.

        Args:
            body: the part.
        """
        self._pending = 0
        self._drop_deadline()
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Take the end of a request, which may be that of its head."""
        self._drop_deadline()
        super().on_message_complete()

    def _expect_head(self) -> None:
        self._in_head = True
        if not self._deadline:
            self._deadline = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _drop_deadline(self) -> None:
        if self._deadline:
            self._deadline.cancel()
            self._deadline = None
