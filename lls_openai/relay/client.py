"""The shared pool of connections to the upstreams, and one call through it.

One pool serves all providers and all keys: a client per request or per key costs a TLS
context each time and leaks descriptors.
"""

import asyncio
import select
from functools import partial
from http import HTTPStatus

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http import RawResponseMessage
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import StreamReader
from multidict import CIMultiDict
from yarl import URL

from lls_openai.relay.faults import upstream_errors
from lls_openai.relay.upstream import Upstream

# How long an idle connection is kept, in seconds: below the 60 s after which common
# load balancers close theirs, so that it is rarely they who close it first.
KEEP_ALIVE = 55.0

# How much of an answer is read ahead of a caller that reads slowly, in bytes: aiohttp
# holds up to twice as much, and its own default is four times this.
READ_BYTES = 64 * 1024

# How many 1xx answers may come before the final one: aiohttp takes any number.
INTERIM_ANSWERS = 16


class StaleConnection(Exception):  # noqa: N818 (not an error to answer: it is retried)
    """An idle connection has been closed or written to; nothing was sent on it."""


class _Body(aiohttp.Payload):
    """A body that goes out in pieces, and is let go of then: a stream outlasts it.

    Given as bytes, aiohttp would hold it until the end of the answer.
    """

    _value: bytes

    def __init__(self, text: bytes) -> None:
        super().__init__(text)
        self._size = len(text)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Give the text; aiohttp asks for it only in its own debug output."""
        return self._value.decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Write the body, as fast as the upstream reads it."""
        text = memoryview(self._value)
        for at in range(0, len(text), READ_BYTES):
            await writer.write(text[at : at + READ_BYTES])
        self._value = b""


class _Request(aiohttp.ClientRequest):
    """A request that goes out on a reused connection only if that is still open.

    The end of an idle connection may wait in the kernel unread; what is written to such
    a connection is lost. A look at the socket right before (as urllib3 and httpcore
    take it) tells, while it is certain that nothing has been sent.
    """

    async def send(self, conn: Connection) -> aiohttp.ClientResponse:
        """Send the request on a connection of the pool, unless that is stale."""
        if isinstance(conn.protocol, PooledConnection):
            conn.protocol.take()
        return await super().send(conn)


class PooledConnection(ResponseHandler):
    """Fails the answer that is being read when the connection fails.

    On bytes that are no HTTP, aiohttp (3.14) closes the connection and tells only who
    waits for a head; who reads a body would wait for ever.
    """

    _poll: "select.poll | None" = None
    _interim = 0

    def take(self) -> None:
        """Take it for a request.

        Raises:
            StaleConnection: it was used before, and something has come on it since: its
                end, or what would be taken for the answer to this request.
        """
        self._interim = 0
        if self._poll:
            if self.should_close or self._poll.poll(0):
                raise StaleConnection
        elif self.transport:
            # A new one is not asked: with TLS, tickets for a later session come first.
            self._poll = select.poll()
            socket = self.transport.get_extra_info("socket")
            self._poll.register(socket, select.POLLIN)

    def feed_data(
        self, data: tuple[RawResponseMessage, StreamReader], size: int = 0
    ) -> None:
        """Take the head of an answer, unless it is one 1xx too many."""
        self._interim += data[0].code < HTTPStatus.OK
        if self._interim > INTERIM_ANSWERS and self.transport:
            self.set_exception(HttpProcessingError())
            self.transport.abort()
            return
        super().feed_data(data, size)

    def close(self) -> None:
        """End at once: what is still buffered is for nobody."""
        self.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Fail a body that would end with the connection, if that ends with an error.

        aiohttp takes a reset for the end of such a body.
        """
        body = self._payload
        if exc and body and not body.is_eof():
            body.set_exception(exc)
        super().connection_lost(exc)

    def set_exception(self, exc: BaseException, *cause: BaseException) -> None:
        """Fail the connection, and the body that is being read."""
        super().set_exception(exc, *cause)
        body = self._payload
        if body and not body.is_eof() and not body.exception():
            body.set_exception(exc)


class _Connector(aiohttp.TCPConnector):
    """Makes `PooledConnection`s; `tests/test_internals.py` sees that it does."""

    def __init__(self) -> None:
        super().__init__(limit=0, keepalive_timeout=KEEP_ALIVE)
        self._factory = partial(PooledConnection, loop=self._loop)  # type: ignore[assignment]  # (a kind of it)


def open_pool() -> aiohttp.ClientSession:
    """Open the pool; it belongs to the running loop and is closed as a context."""
    return aiohttp.ClientSession(
        connector=_Connector(),
        # One caller's cookie would go out with the next caller's call.
        cookie_jar=aiohttp.DummyCookieJar(),
        request_class=_Request,
        auto_decompress=False,
        read_bufsize=READ_BYTES,
    )


async def post(
    pool: aiohttp.ClientSession,
    upstream: Upstream,
    url: URL,
    headers: CIMultiDict[str],
    text: bytes,
) -> aiohttp.ClientResponse:
    """Send a call and wait for the head of its answer.

    Args:
        pool: the shared pool.
        upstream: where to.
        url: the upstream's, for the route that was asked for.
        headers: all the headers to send.
        text: the JSON text.

    Raises:
        RelayError: no connection, or no answer on it.
        RelayError: the upstream was silent for too long.
    """
    body = _Body(text)
    del text
    with upstream_errors():
        async with asyncio.timeout(_until_head(upstream.timeout)):
            while True:
                try:
                    return await pool.post(
                        url,
                        headers=headers,
                        data=body,
                        ssl=upstream.tls,
                        proxy=upstream.proxy,
                        timeout=upstream.timeout,
                        allow_redirects=False,
                    )
                except StaleConnection:
                    # The pool has dropped it. Each try drops one, so this ends.
                    continue


def _until_head(timeout: aiohttp.ClientTimeout) -> float:
    """Say how long the head of an answer is waited for at most, in seconds.

    aiohttp counts from the last byte, and not at all after a 1xx: a head that drips, or
    never follows, would be waited for without end.
    """
    return (timeout.connect or 0) + (timeout.sock_read or 0)
