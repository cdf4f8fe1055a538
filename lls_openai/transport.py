"""One call to an upstream, through the shared pool."""

import asyncio
import io
from types import TracebackType

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDict

from lls_openai.errors import RelayError, UpstreamTimeout, UpstreamUnreachable
from lls_openai.pool import StaleConnection
from lls_openai.upstream import Upstream

# From this size on aiohttp wants a body as a file, which it sends in pieces.
LARGE_BODY_BYTES = 1024 * 1024

_SILENT = "The upstream was silent for longer than its timeout in run.yaml"
_CLIENT_ERRORS = (aiohttp.ClientError, HttpProcessingError, OSError)


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
