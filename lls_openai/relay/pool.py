"""The connections to one upstream, shared by all keys.

A pool per request or per key would cost a TLS handshake each time, and leak sockets.
"""

import asyncio

from lls_openai.relay.connection import Connection
from lls_openai.relay.connector import Connector
from lls_openai.relay.upstream_response import UpstreamResponse

# How long an idle connection is kept, in seconds: shorter than the 60 s of common load
# balancers, so that these rarely close one first.
IDLE_SECONDS = 55.0


class Pool:
    """The connections to one upstream, bound to the event loop that makes it.

    `timeout` is how long the upstream may be silent during a call, in seconds.
    """

    def __init__(self, connector: Connector, timeout: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._connector, self._timeout = connector, timeout
        self._open: set[Connection] = set()
        # With the time since when they are idle, the longest first.
        self._idle: dict[Connection, float] = {}
        self._expiry: asyncio.TimerHandle | None = None

    async def send(self, head: bytes, body: bytes) -> UpstreamResponse:
        """Send a request once; return the response when its headers are there.

        Raises UpstreamError if there is no connection or response, or none in time.
        """
        connection = self._take() or await self._connect()
        call = connection.request(head, body)
        # The connection has what is not sent yet.
        del head, body
        try:
            return await call
        except asyncio.CancelledError:
            _abandon(connection, call)
            raise
        finally:
            # Its error refers to this frame: a cycle would wait for the collector.
            del call

    async def close(self) -> None:
        """Close all connections."""
        if self._expiry:
            self._expiry.cancel()
        for each in [*self._open]:
            each.abort()
        # The sockets close in the next turn of the loop.
        await asyncio.sleep(0)

    def _take(self) -> Connection | None:
        """Return the connection that was used last and is still usable."""
        while self._idle:
            connection, _ = self._idle.popitem()
            if not connection.is_stale():
                return connection
            connection.abort()
        return None

    async def _connect(self) -> Connection:
        connection = Connection(self._timeout, self._keep, self._forget)
        self._open.add(connection)
        try:
            await self._connector.connect(connection)
        except BaseException:
            self._open.discard(connection)
            raise
        return connection

    def _keep(self, connection: Connection) -> None:
        if connection.calls == 1:
            self._connector.keep_session(connection)
        self._idle[connection] = self._loop.time()
        if self._expiry is None:
            self._expiry = self._loop.call_later(IDLE_SECONDS, self._expire)

    def _forget(self, connection: Connection) -> None:
        self._open.discard(connection)
        self._idle.pop(connection, None)

    def _expire(self) -> None:
        """Close the connections that have been idle for too long."""
        self._expiry = None
        last = self._loop.time() - IDLE_SECONDS
        for connection, since in [*self._idle.items()]:
            if since > last:
                self._expiry = self._loop.call_at(since + IDLE_SECONDS, self._expire)
                break
            del self._idle[connection]
            connection.abort()


def _abandon(connection: Connection, call: asyncio.Future[UpstreamResponse]) -> None:
    """End a connection whose call was cancelled, unless it may have another call.

    The response may have arrived just before its client disconnected.
    """
    if call.cancelled():
        connection.abort()
    elif not call.exception():
        call.result().close()
