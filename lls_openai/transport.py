"""The shared connection pool, and one request through it.

One pool serves all providers and all keys: a client per request or per key costs a TLS
context each time and leaks descriptors.
"""

import asyncio
import io
import resource
import select
from collections.abc import Callable  # noqa: TC003 (mypy and readers see it at run time)
from functools import partial
from types import TracebackType

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDict

from lls_openai.errors import RelayError, UpstreamTimeout, UpstreamUnreachable
from lls_openai.upstream import Upstream

# How long an idle connection is kept, in seconds: below the 60 s after which common
# load balancers close theirs, so that it is rarely they who close it first.
KEEP_ALIVE = 55.0

# How many descriptors are asked for: two a stream, and thousands of streams.
DESCRIPTORS = 65_536

# From this size on aiohttp wants a body as a file, which it sends in pieces.
LARGE_BODY_BYTES = 1024 * 1024

_SILENT = "The upstream was silent for longer than its timeout in run.yaml"
_CLIENT_ERRORS = (aiohttp.ClientError, HttpProcessingError, OSError)

# aiohttp adds these by itself. What is sent is what the caller or this project chose.
_NOT_ADDED = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")


class Call:
    """One call to an upstream. It holds a key and a prompt, and its repr neither.

    Args:
        upstream: where to.
        route: the path the caller asked for, such as `/v1/chat/completions`.
        headers: all the headers to send.
        body: the JSON text.
    """

    __slots__ = ("_body", "headers", "route", "upstream")

    def __init__(
        self, upstream: Upstream, route: str, headers: CIMultiDict[str], body: bytes
    ) -> None:
        self.upstream = upstream
        self.route = route
        self.headers = headers
        self._body = body

    def take_body(self) -> bytes:
        """Give the body and let go of it: a stream outlasts it by far."""
        body, self._body = self._body, b""
        return body


class StaleConnection(Exception):  # noqa: N818 (not an error to answer: it is retried)
    """An idle connection has been closed or written to; nothing was sent on it."""


class PooledRequest(aiohttp.ClientRequest):
    """A request that goes out on a reused connection only if that is still open.

    The end of an idle connection may wait in the kernel unread; what is written to such
    a connection is lost. A look at the socket right before (as urllib3 and httpcore
    take it) tells, while it is certain that nothing has been sent.
    """

    async def send(self, conn: Connection) -> aiohttp.ClientResponse:
        """Send the request.

        Args:
            conn: the connection that the pool gave.

        Raises:
            StaleConnection: it was used before, and something has come on it since.
        """
        if isinstance(conn.protocol, PooledConnection):
            # What has come unasked would be taken for the answer to this request.
            if conn.protocol.is_reused and (
                conn.protocol.should_close or _is_readable(conn)
            ):
                raise StaleConnection
            conn.protocol.is_reused = True
        return await super().send(conn)


class PooledConnection(ResponseHandler):
    """A connection that takes the answer on it along when it fails.

    On bytes that are no HTTP, aiohttp (3.14) closes the connection and tells only who
    waits for a head; who reads a body would wait for ever.
    """

    is_reused = False

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


def _is_readable(conn: Connection) -> bool:
    """Whether bytes or an end wait on an idle connection, where neither belongs."""
    transport = conn.transport
    if transport is None:
        return True
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
    return bool(poll.poll(0))


def open_pool() -> aiohttp.ClientSession:
    """Open the pool; it belongs to the running loop and is closed as a context."""
    return aiohttp.ClientSession(
        connector=PooledConnector(),
        cookie_jar=aiohttp.DummyCookieJar(),
        request_class=PooledRequest,
        skip_auto_headers=_NOT_ADDED,
        auto_decompress=False,
    )


def allow_many_connections() -> None:
    """Raise this process's limit of descriptors as far as the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def post(pool: aiohttp.ClientSession, call: Call) -> aiohttp.ClientResponse:
    """Send a call and wait for the head of its answer.

    Args:
        pool: the shared pool.
        call: what to send, and where.

    Raises:
        UpstreamUnreachable: no connection, or no answer on it.
        UpstreamTimeout: the upstream was silent for too long.
    """
    upstream, body = call.upstream, call.take_body()
    with upstream_errors():
        async with asyncio.timeout(_until_head(upstream.timeout)):
            while True:
                try:
                    return await pool.post(
                        upstream.endpoints[call.route],
                        headers=call.headers,
                        data=body if len(body) < LARGE_BODY_BYTES else io.BytesIO(body),
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


class upstream_errors:  # noqa: N801 (a context manager is named for what it does)
    """Turns what an HTTP client raises into an error of the contract.

    The message is one of ours; the client's own may show what was sent.

    Args:
        broken: what stands for everything but a timeout.

    Raises:
        RelayError: at the end of the block, in the place of the client's.
    """

    __slots__ = ("_broken",)

    def __init__(self, broken: type[RelayError] = UpstreamUnreachable) -> None:
        self._broken = broken

    def __enter__(self) -> None:
        """Begin the block."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Translate the error, if there is one."""
        if isinstance(error, TimeoutError):
            raise UpstreamTimeout(_SILENT) from None
        if isinstance(error, _CLIENT_ERRORS):
            raise self._broken(_explain(error)) from None


def _explain(error: Exception) -> str:
    """Say which part of the way failed, in words that hold nothing of the request."""
    match error:
        case aiohttp.ClientConnectorDNSError():
            return "The upstream's name could not be resolved"
        case aiohttp.ClientSSLError():
            return "No TLS connection to the upstream: its certificate or ours failed"
        case aiohttp.ClientConnectorError():
            return "The upstream refused the connection"
        case aiohttp.ClientHttpProxyError():
            return "The proxy on the way to the upstream refused"
        case aiohttp.ClientResponseError() | HttpProcessingError():
            return "The upstream's answer is not HTTP"
        case _:
            return "The upstream closed the connection before its answer was whole"
