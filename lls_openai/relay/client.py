"""A pool of connections to one upstream, and one call through it.

A pool serves all keys: a client per request or per key costs a TLS context each time
and leaks descriptors.
"""

import asyncio
import select
import ssl
from collections.abc import AsyncIterator
from functools import partial
from http import HTTPStatus

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http import RawResponseMessage
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import StreamReader
from multidict import CIMultiDict
from yarl import URL

from lls_openai.relay.faults import upstream_errors

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
    _head_timer: asyncio.TimerHandle | None = None

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
        # aiohttp counts from the last byte, and not at all after a 1xx: a head that
        # drips, or never follows, would be waited for without end.
        timeout = self.read_timeout or 0
        self._head_timer = self._loop.call_later(timeout, self._miss_head)

    def _miss_head(self) -> None:
        self.set_exception(aiohttp.SocketTimeoutError())

    def feed_data(
        self, data: tuple[RawResponseMessage, StreamReader], size: int = 0
    ) -> None:
        """Take the head of an answer, unless it is one 1xx too many."""
        if data[0].code >= HTTPStatus.OK:
            self._stop_head_timer()
        else:
            self._interim += 1
        if self._interim > INTERIM_ANSWERS and self.transport:
            self.set_exception(HttpProcessingError())
            self.transport.abort()
            return
        super().feed_data(data, size)

    def _stop_head_timer(self) -> None:
        if self._head_timer:
            self._head_timer.cancel()

    def close(self) -> None:
        """End at once: what is still buffered is for nobody."""
        self.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Fail a body on a reset, which aiohttp takes for the end of some."""
        self._stop_head_timer()
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


def open_pool(
    *, tls: ssl.SSLContext | bool, proxy: URL | None, timeout: aiohttp.ClientTimeout
) -> aiohttp.ClientSession:
    """Open a pool in the running loop, to be closed there.

    Args:
        tls: how the upstream's certificate is verified.
        proxy: what calls go through.
        timeout: for how long a connection and each read are waited for.
    """
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE, ssl=tls)
    connector._factory = partial(PooledConnection, loop=connector._loop)  # type: ignore[assignment]  # noqa: SLF001 (docs/design.md)
    return aiohttp.ClientSession(
        connector=connector,
        # One caller's cookie would go out with the next caller's call.
        cookie_jar=aiohttp.DummyCookieJar(),
        request_class=_Request,
        auto_decompress=False,
        read_bufsize=READ_BYTES,
        proxy=proxy,
        timeout=timeout,
    )


async def post(
    pool: aiohttp.ClientSession, url: URL, headers: CIMultiDict[str], text: bytes
) -> aiohttp.ClientResponse:
    """Send a call and wait for the head of its answer.

    Args:
        pool: the upstream's.
        url: the upstream's, for the route that was asked for.
        headers: all that are sent.
        text: the body.

    Raises:
        RelayError: no connection, no answer on it, or none in time.
    """
    body = aiohttp.BytesPayload(text) if len(text) <= READ_BYTES else _pieces(text)
    headers["Content-Length"] = str(len(text))
    with upstream_errors():
        while True:
            try:
                return await pool.post(
                    url, headers=headers, data=body, allow_redirects=False
                )
            except StaleConnection:
                # The pool has dropped it. Each try drops one, so this ends.
                continue


async def _pieces(text: bytes) -> AsyncIterator[bytes]:
    """Give a body no faster than the upstream reads it."""
    for at in range(0, len(text), READ_BYTES):
        yield text[at : at + READ_BYTES]
