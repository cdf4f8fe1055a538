"""The shared pool of connections to the upstreams.

One pool serves all providers and all keys: a client per request or per key costs a TLS
context each time and leaks descriptors.
"""

import resource
import select
from collections.abc import Callable  # noqa: TC003 (mypy and readers see it at run time)
from functools import partial

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection

# How long an idle connection is kept, in seconds: below the 60 s after which common
# load balancers close theirs, so that it is rarely they who close it first.
KEEP_ALIVE = 55.0

# How much of an answer is read ahead of a caller that reads slowly, in bytes: aiohttp
# holds up to twice as much, and its own default is four times this.
READ_BYTES = 64 * 1024

# How many descriptors are asked for: two a stream, and thousands of streams.
DESCRIPTORS = 65_536


class StaleConnection(Exception):  # noqa: N818 (not an error to answer: it is retried)
    """An idle connection has been closed or written to; nothing was sent on it."""


class PooledRequest(aiohttp.ClientRequest):
    """A request that goes out on a reused connection only if that is still open.

    The end of an idle connection may wait in the kernel unread; what is written to such
    a connection is lost. A look at the socket right before (as urllib3 and httpcore
    take it) tells, while it is certain that nothing has been sent.
    """

    # aiohttp would say that any encoding will do: that is for the caller to say.
    DEFAULT_HEADERS = {}  # noqa: RUF012 (aiohttp's own attribute)

    async def send(self, conn: Connection) -> aiohttp.ClientResponse:
        """Send the request.

        Args:
            conn: the connection that the pool gave.

        Raises:
            StaleConnection: it was used before, and something has come on it since.
        """
        if isinstance(conn.protocol, PooledConnection):
            conn.protocol.take()
        return await super().send(conn)


class PooledConnection(ResponseHandler):
    """A connection that takes the answer on it along when it fails.

    On bytes that are no HTTP, aiohttp (3.14) closes the connection and tells only who
    waits for a head; who reads a body would wait for ever.
    """

    _poll: "select.poll | None" = None

    def take(self) -> None:
        """Take it for a request.

        Raises:
            StaleConnection: it was used before, and something has come on it since: its
                end, or what would be taken for the answer to this request.
        """
        if self._poll:
            if self.should_close or self._poll.poll(0):
                raise StaleConnection
        elif self.transport:
            # A new one is not asked: with TLS, tickets for a later session come first.
            self._poll = select.poll()
            socket = self.transport.get_extra_info("socket")
            self._poll.register(socket, select.POLLIN)

    def connection_lost(self, exc: BaseException | None) -> None:
        """End a body that would end with the connection, if that ends with an error.

        aiohttp takes a reset for the end of such a body.

        Args:
            exc: why the connection ended; None when the upstream closed it in order.
        """
        body = self._payload
        if exc and body and not body.is_eof():
            body.set_exception(exc)
        super().connection_lost(exc)

    def set_exception(self, exc: BaseException, *cause: BaseException) -> None:
        """End the connection with an error, and the body that is being read.

        Args:
            exc: what happened.
            cause: what it came from.
        """
        super().set_exception(exc, *cause)
        body = self._payload
        if body and not body.is_eof() and not body.exception():
            body.set_exception(exc)


class PooledConnector(aiohttp.TCPConnector):
    """Makes `PooledConnection`s; `tests/test_internals.py` sees that it does."""

    def __init__(self) -> None:
        super().__init__(limit=0, keepalive_timeout=KEEP_ALIVE)
        make: Callable[..., ResponseHandler] = PooledConnection
        self._factory = partial(make, loop=self._loop)


def open_pool() -> aiohttp.ClientSession:
    """Open the pool; it belongs to the running loop and is closed as a context."""
    return aiohttp.ClientSession(
        connector=PooledConnector(),
        cookie_jar=aiohttp.DummyCookieJar(),
        request_class=PooledRequest,
        auto_decompress=False,
        read_bufsize=READ_BYTES,
    )


def allow_many_connections() -> None:
    """Raise this process's limit of descriptors as far as the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
