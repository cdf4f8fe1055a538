"""A response that arrives from an upstream."""

from typing import TYPE_CHECKING

from lls_openai.relay.upstream_errors import UpstreamError

if TYPE_CHECKING:
    import asyncio

    from lls_openai.relay.connection import Connection

type Headers = list[tuple[bytes, bytes]]


class UpstreamResponse:
    """A response whose headers have arrived; its body may still be arriving.

    Header names are lower case. `complete` says that the whole body was received,
    `received` how many bytes of it were, `returned` how many `read` has returned.
    """

    def __init__(self, connection: "Connection", status: int, headers: Headers) -> None:
        self.status, self.headers = status, headers
        self.complete = False
        self.received = self.returned = 0
        self._chunks: list[bytes] = []
        self._connection: Connection | None = connection
        self._error: UpstreamError | None = None
        self._waiter: asyncio.Future[None] | None = None

    async def read(self) -> bytes:
        """Return the next bytes of the body, or nothing at its end.

        Raises UpstreamError if the rest of it will not arrive.
        """
        chunks = self._chunks
        while not chunks:
            if error := self._error:
                # A copy: the traceback of one that is kept would be a cycle.
                raise type(error)(*error.args)
            if self._connection is None:
                return b""
            self._waiter = self._connection.loop.create_future()
            await self._waiter
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        self.returned = self.received
        if self._connection:
            self._connection.resume_reading()
        return data

    def close(self) -> None:
        """End the connection, unless the response is complete."""
        if self._connection:
            self._connection.abort()

    @property
    def is_framed(self) -> bool:
        """Whether the body says where it ends (RFC 9112, section 6.3)."""
        framing = (b"transfer-encoding", b"content-length")
        return any(name in framing for name, _ in self.headers)

    def feed(self, data: bytes) -> None:
        """Accept the next bytes of the body."""
        self._chunks.append(data)
        self.received += len(data)
        if self._waiter is not None:
            self._wake()

    def finish(self, error: UpstreamError | None = None) -> None:
        """Accept the end of the body, or the error that ended it."""
        self.complete, self._error = error is None, error
        self._connection = None
        self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        # The client may have disconnected meanwhile.
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
