"""A caller that sees what wrk does not: when each part of a stream arrives, and which.

Raw asyncio, so that little of the time measured is its own.
"""

import asyncio
import re
import time
from typing import Final, NamedTuple, cast
from urllib.parse import urlsplit

from tests.bench.payloads import DONE, HEADERS, KINDS, PATH, request_body

_NUMBER: Final = re.compile(rb'"content": ?" (\d+)"')
_END: Final = b"0\r\n\r\n"
_LIMIT: Final = 60.0


class Stream(NamedTuple):
    """One streamed answer as its caller saw it.

    Attributes:
        status: The HTTP status.
        body: The events, joined.
        first: When the first event arrived, in seconds after the request.
        last: When the answer was over, likewise.
        most: The largest number of events that arrived in one read.
    """

    status: int
    body: bytes
    first: float
    last: float
    most: int

    def is_whole(self, kind: str, *, done: bool = True) -> bool:
        """Tell whether all events of this kind came, in order, and then `[DONE]`.

        Args:
            kind: One of `payloads.KINDS` that is a stream.
            done: False when `[DONE]` is not expected.
        """
        numbers = [int(number) for number in _NUMBER.findall(self.body)]
        in_order = numbers == list(range(KINDS[kind].events))
        return self.status == 200 and in_order and self.body.endswith(DONE) == done


class Connection(asyncio.Protocol):
    """A connection on which one streamed call follows another."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport to write to."""
        # uvloop's transports are no subclass of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self._over: asyncio.Future[None] | None = None

    def data_received(self, data: bytes) -> None:
        """Note when these bytes came; a stream is over with its last HTTP chunk."""
        self._reads.append((time.perf_counter(), data))
        if data.endswith(_END) and self._over and not self._over.done():
            self._over.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the call under way: its stream will not go on."""
        if self._over and not self._over.done():
            self._over.set_exception(exc or ConnectionResetError("closed by the peer"))

    async def call(self, kind: str) -> Stream:
        """Make one streamed call and wait for its end.

        Args:
            kind: One of `payloads.KINDS` that is a stream.

        Returns:
            What arrived and when.

        Raises:
            OSError: The server closed the connection before the end.
            TimeoutError: The stream was not over within a minute.
        """
        self._reads: list[tuple[float, bytes]] = []
        self._over = asyncio.get_running_loop().create_future()
        request = _request(kind)
        start = time.perf_counter()
        self._transport.write(request)
        async with asyncio.timeout(_LIMIT):
            await self._over
        return _stream(self._reads, start)

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()


async def connect(url: str) -> Connection:
    """Open a connection to a server.

    Args:
        url: The server's URL, without a path.

    Returns:
        The connection.

    Raises:
        OSError: Nobody listens there.
    """
    address = urlsplit(url)
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(
        Connection, address.hostname or "", address.port or 80
    )
    return connection


def _request(kind: str) -> bytes:
    body = request_body(kind)
    headers = HEADERS | {"Host": "127.0.0.1", "Content-Length": str(len(body))}
    lines = [f"POST {PATH} HTTP/1.1", *(f"{k}: {v}" for k, v in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


def _stream(reads: list[tuple[float, bytes]], start: float) -> Stream:
    head, _, chunks = b"".join(data for _, data in reads).partition(b"\r\n\r\n")
    with_events = [
        (at, data.count(b"data: ")) for at, data in reads if b"data:" in data
    ]
    return Stream(
        status=int(head.split(b" ", 2)[1]),
        body=_dechunked(chunks),
        first=(with_events or reads)[0][0] - start,
        last=reads[-1][0] - start,
        most=max((count for _, count in with_events), default=0),
    )


def _dechunked(chunks: bytes) -> bytes:
    parts = []
    size, _, rest = chunks.partition(b"\r\n")
    while length := int(size, 16):
        parts.append(rest[:length])
        size, _, rest = rest[length + 2 :].partition(b"\r\n")
    return b"".join(parts)
