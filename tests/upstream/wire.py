"""HTTP/1.1 from the serving side, with every byte, pause and reset under control."""

import asyncio
import json
import socket
import struct
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

# Large enough for the heads that tests of oversized headers send.
_READ_LIMIT = 4 * 1024 * 1024

type Headers = Mapping[str, str] | Iterable[tuple[str, str]]


class WireError(Exception):
    """The peer sent something that is not HTTP/1.1."""


@dataclass(eq=False)
class Request:
    """One request as it arrived.

    Attributes:
        connection: The connection it arrived on.
        method: The method, for example "POST".
        target: The request target as sent, with its query.
        headers: Name and value of each header, in order, as sent.
        body: The body, with the chunked coding taken off.
        answered_at: When the answer was written whole (`time.monotonic()`), or None.
    """

    connection: "Connection" = field(repr=False)
    method: str
    target: str
    headers: list[tuple[bytes, bytes]] = field(repr=False)
    body: bytes = field(default=b"", repr=False)
    answered_at: float | None = None

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    @property
    def json(self) -> Any:  # noqa: ANN401 - JSON has every type
        """The body, parsed."""
        return json.loads(self.body)

    @property
    def key(self) -> str | None:
        """The key of a bearer `Authorization`, or None."""
        scheme, _, key = (self.header("authorization") or "").partition(" ")
        return key.strip() or None if scheme.lower() == "bearer" else None

    @property
    def wants_close(self) -> bool:
        """Whether the peer asks to close the connection after the answer."""
        return (self.header("connection") or "").lower() == "close"

    @property
    def peer_closed_at(self) -> float | None:
        """When the peer closed the connection (`time.monotonic()`), or None."""
        return self.connection.peer_closed_at

    def header(self, name: str) -> str | None:
        """The first value of a header, found without regard to case."""
        return next(iter(self.header_values(name)), None)

    def header_values(self, name: str) -> list[str]:
        """Every value of a header, in order, found without regard to case."""
        wanted = name.lower().encode("latin-1")
        return [
            value.decode("latin-1")
            for sent, value in self.headers
            if sent.lower() == wanted
        ]


class Connection(asyncio.StreamReaderProtocol):
    """One accepted connection.

    Attributes:
        number: Counts the connections of a vendor from 1, so that reuse can be seen.
        peer_closed_at: When the peer closed or reset it (`time.monotonic()`), or None;
            noticed while an answer is underway as well.
    """

    def __init__(
        self,
        number: int,
        serve: Callable[["Connection"], None],
        peer_left: Callable[["Connection"], None],
    ) -> None:
        """Make a connection for `loop.create_server`.

        Args:
            number: Its number.
            serve: Called in the loop when the connection is there.
            peer_left: Called in the loop when the peer left.
        """
        self._reader = asyncio.StreamReader(limit=_READ_LIMIT)
        super().__init__(self._reader, self._connected)
        self.number = number
        self.peer_closed_at: float | None = None
        self._serve = serve
        self._peer_left = peer_left
        self._writer: asyncio.StreamWriter
        self._closed_here = False

    def _connected(
        self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._writer = writer
        self._serve(self)

    def eof_received(self) -> bool:
        """Note that the peer will send no more (`asyncio.Protocol`)."""
        self._note_leaving()
        return bool(super().eof_received())

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that the connection is gone (`asyncio.Protocol`)."""
        super().connection_lost(exc)
        if not self._closed_here:
            self._note_leaving()

    def _note_leaving(self) -> None:
        if self.peer_closed_at is None:
            self.peer_closed_at = time.monotonic()
            self._peer_left(self)

    async def read_head(self) -> Request | None:
        """Read a request up to its body; None when the peer has closed instead.

        Raises:
            WireError: What arrived is no HTTP/1.1 head.
        """
        try:
            head = await self._reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return None
        except asyncio.LimitOverrunError as error:
            message = "the request head is too long"
            raise WireError(message) from error
        request_line, *lines = head[:-4].split(b"\r\n")
        words = request_line.decode("latin-1").split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            message = "no HTTP/1.1 request line"
            raise WireError(message)
        return Request(self, words[0], words[1], [_header(line) for line in lines])

    async def read_body(self, request: Request) -> None:
        """Read the body into the request, whole; ask for it first if it is held back.

        Raises:
            ConnectionError: The peer left inside the body.
            WireError: The body is wrongly framed.
        """
        if (request.header("expect") or "").lower() == "100-continue":
            await self.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        try:
            request.body = await self._read_framed(request)
        except asyncio.IncompleteReadError as error:
            raise ConnectionAbortedError from error
        except ValueError as error:
            message = "the request body is wrongly framed"
            raise WireError(message) from error

    async def _read_framed(self, request: Request) -> bytes:
        if (request.header("transfer-encoding") or "").lower() != "chunked":
            length = int(request.header("content-length") or 0)
            return await self._reader.readexactly(length)
        body = bytearray()
        while size := int((await self._reader.readuntil(b"\r\n")).split(b";")[0], 16):
            body += await self._reader.readexactly(size)
            await self._reader.readexactly(2)
        while await self._reader.readuntil(b"\r\n") != b"\r\n":
            pass
        return bytes(body)

    async def write(self, data: bytes) -> None:
        """Write raw bytes, and wait while the peer does not take them.

        Raises:
            ConnectionError: The peer is gone.
        """
        self._writer.write(data)
        await self._writer.drain()

    async def head(self, status: int, headers: Headers) -> None:
        """Write a status line and headers; the body follows in chunks.

        `transfer-encoding: chunked` is added unless the headers frame the body.
        """
        pairs = _pairs(headers)
        if not {"content-length", "transfer-encoding"} & {n.lower() for n, _ in pairs}:
            pairs.append(("transfer-encoding", "chunked"))
        await self.write(_head(status, pairs))

    async def chunk(self, data: bytes) -> None:
        """Write one HTTP chunk in one write."""
        await self.write(b"%x\r\n%b\r\n" % (len(data), data))

    async def end(self) -> None:
        """Write the chunk that ends a chunked body."""
        await self.write(b"0\r\n\r\n")

    async def answer(self, status: int, headers: Headers, body: bytes = b"") -> None:
        """Write a whole answer with its `content-length`, in one write."""
        pairs = [*_pairs(headers), ("content-length", str(len(body)))]
        await self.write(_head(status, pairs) + body)

    def close(self) -> None:
        """Close in order: what was written still arrives."""
        self._closed_here = True
        self._writer.close()

    def reset(self) -> None:
        """Break off: the peer gets a TCP reset, and what it has not read is lost."""
        self._closed_here = True
        raw = self._writer.get_extra_info("socket")
        if raw is not None and not self._writer.is_closing():
            linger_no_time = struct.pack("ii", 1, 0)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_no_time)
        self._writer.transport.abort()

    @property
    def closed(self) -> bool:
        """Whether either side has closed it."""
        return self._writer.is_closing() or self.peer_closed_at is not None


def _header(line: bytes) -> tuple[bytes, bytes]:
    name, colon, value = line.partition(b":")
    if not colon or not name or name.strip() != name:
        message = "no HTTP/1.1 header line"
        raise WireError(message)
    return name, value.strip(b" \t")


def _pairs(headers: Headers) -> list[tuple[str, str]]:
    return list(headers.items() if isinstance(headers, Mapping) else headers)


def _head(status: int, headers: list[tuple[str, str]]) -> bytes:
    known = {known.value: known.phrase for known in HTTPStatus}
    lines = [f"HTTP/1.1 {status} {known.get(status, 'Unknown')}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")
