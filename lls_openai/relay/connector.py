"""How a connection to an upstream is made: addresses, tunnel, TLS."""

import asyncio
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from aiohappyeyeballs import AddrInfoType, start_connection

from lls_openai.relay.connection import Connection
from lls_openai.relay.endpoints import Endpoint, Proxy
from lls_openai.relay.tls import ClientContext
from lls_openai.relay.tunnel import open_tunnel
from lls_openai.relay.upstream_errors import connect_error, connect_timeout
from lls_openai.tcp import enable_keep_alive

# RFC 8305, section 8: after so many seconds the next address of a host is tried, too.
NEXT_ADDRESS_DELAY = 0.25


class Connector:
    """Makes connections to one upstream; each may take `timeout` seconds."""

    def __init__(self, upstream: Endpoint, proxy: Proxy | None, timeout: float) -> None:
        self._upstream, self._proxy, self._timeout = upstream, proxy, timeout
        self._lookup: asyncio.Task[Sequence[AddrInfoType]] | None = None

    async def connect(self, connection: Connection) -> None:
        """Connect, with TLS where it is spoken, or raise UpstreamError."""
        try:
            async with asyncio.timeout(self._timeout):
                await self._connect(connection)
        except TimeoutError:
            raise connect_timeout(self._timeout) from None

    async def _connect(self, connection: Connection) -> None:
        proxy = self._proxy
        if proxy is None:
            with _errors_of("upstream"):
                await self._connect_to(self._upstream, connection)
            return
        with _errors_of("proxy"):
            await self._connect_to(proxy.endpoint, connection)
        if tls := self._upstream.tls:
            try:
                await self._start_tunnel(connection, proxy, tls)
            except BaseException:
                connection.abort()
                raise

    async def _start_tunnel(
        self, connection: Connection, proxy: Proxy, tls: ClientContext
    ) -> None:
        upstream = self._upstream
        target = upstream.authority.encode()
        await open_tunnel(connection.transport, target, proxy.authorization)
        with _errors_of("upstream"):
            transport = await asyncio.get_running_loop().start_tls(
                connection.transport, connection, tls, server_hostname=upstream.host
            )
            if transport is None:
                raise ConnectionResetError
            connection.transport = transport

    async def _connect_to(self, endpoint: Endpoint, connection: Connection) -> None:
        sock = await start_connection(
            await self._resolve(endpoint), happy_eyeballs_delay=NEXT_ADDRESS_DELAY
        )
        enable_keep_alive(sock)
        try:
            await asyncio.get_running_loop().create_connection(
                lambda: connection,
                sock=sock,
                ssl=endpoint.tls,
                server_hostname=endpoint.host if endpoint.tls else None,
            )
        except BaseException:
            sock.close()
            raise

    async def _resolve(self, endpoint: Endpoint) -> Sequence[AddrInfoType]:
        """Return the host's addresses; connections made at once share a look-up."""
        if self._lookup is None:
            loop = asyncio.get_running_loop()
            lookup = loop.getaddrinfo(
                endpoint.host, endpoint.port, type=socket.SOCK_STREAM
            )
            self._lookup = loop.create_task(lookup)
            self._lookup.add_done_callback(self._end_lookup)
        return await asyncio.shield(self._lookup)

    def _end_lookup(self, lookup: asyncio.Task[Sequence[AddrInfoType]]) -> None:
        self._lookup = None
        # Nobody else looks at its error if all who waited were cancelled.
        if not lookup.cancelled():
            lookup.exception()

    def keep_session(self, connection: Connection) -> None:
        """Keep the TLS session of a connection for the next one."""
        if self._upstream.tls:
            self._upstream.tls.keep_session(connection.transport)


@contextmanager
def _errors_of(peer: str) -> Iterator[None]:
    """Turn an error of the event loop into an `UpstreamError` that names the peer."""
    try:
        yield
    except TimeoutError:
        # Also one of the kernel: both mean the same.
        raise
    except (OSError, UnicodeError) as error:
        raise connect_error(error, peer) from None
