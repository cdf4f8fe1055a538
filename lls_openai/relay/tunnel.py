"""A tunnel to an upstream through an HTTP proxy (RFC 9110, section 9.3.6)."""

import asyncio
import re

from lls_openai.relay.upstream_errors import UpstreamError, proxy_failed, proxy_refused

MAX_HEADER_BYTES = 64 * 1024

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] (\d{3})[ \r]")
_SUCCESS = range(200, 300)


async def open_tunnel(
    transport: asyncio.Transport, target: bytes, authorization: bytes
) -> None:
    """Send CONNECT to a proxy and wait until it is connected to the target.

    The target is host and port, an IPv6 address in brackets; the authorization is a
    header line, or empty.
    """
    response = _ConnectResponse()
    transport.set_protocol(response)
    lines = [b"CONNECT " + target + b" HTTP/1.1", b"Host: " + target]
    if authorization:
        lines.append(authorization)
    transport.write(b"\r\n".join([*lines, b"", b""]))
    await response.complete


class _ConnectResponse(asyncio.Protocol):
    """Reads the headers of the response to CONNECT."""

    def __init__(self) -> None:
        self.complete = asyncio.get_running_loop().create_future()
        self._received = b""

    def data_received(self, data: bytes) -> None:
        self._received += data
        headers, end, rest = self._received.partition(b"\r\n\r\n")
        if end:
            self._finish(_error(headers + end, rest))
        elif len(self._received) > MAX_HEADER_BYTES:
            self._finish(proxy_failed())

    def connection_lost(self, _: Exception | None) -> None:
        self._finish(proxy_failed())

    def _finish(self, error: UpstreamError | None) -> None:
        if self.complete.done():
            return
        if error:
            self.complete.set_exception(error)
        else:
            self.complete.set_result(None)


def _error(headers: bytes, rest: bytes) -> UpstreamError | None:
    line = _STATUS_LINE.match(headers)
    if line is None:
        return proxy_failed()
    if int(line[1]) not in _SUCCESS:
        return proxy_refused(int(line[1]))
    # A TLS server does not speak first: these bytes are not the upstream's.
    return proxy_failed() if rest else None
