"""An upstream that costs next to nothing: bytes made beforehand, no web framework.

Run as `python -m tests.bench.upstream`; it prints the port it listens on.
"""

import asyncio
import re
from typing import Final, cast

import uvloop

from tests.bench.payloads import KINDS, Kind, events, regular_answer

_KIND: Final = re.compile(rb"bench:(\w+)")
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_STREAM_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
    b"x-request-id: req_bench\r\nTransfer-Encoding: chunked\r\n\r\n"
)
_END: Final = b"0\r\n\r\n"


def _whole(body: bytes) -> bytes:
    head = (
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
        f"x-request-id: req_bench\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _chunked(event: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(event), event)


_REGULAR: Final = _whole(regular_answer())
# Stock Llama Stack asks for the models at boot, without a key. The connection is closed
# because it would be left behind in an event loop that has ended, to long tracebacks.
_NO_KEY: Final = (
    b"HTTP/1.1 401 Unauthorized\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"
)
_EVENTS: Final = {name: [_chunked(e) for e in events(name)] for name in KINDS}


class Upstream(asyncio.Protocol):
    """One connection: a request is read, its answer written, and so on."""

    def __init__(self) -> None:
        """Start with nothing read."""
        self._loop = asyncio.get_running_loop()
        self._read = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport to write to."""
        # uvloop's transports are no subclass of asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer as soon as a request is there whole (callers do not pipeline)."""
        self._read += data
        head, separator, body = self._read.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not separator or len(body) < (int(length[1]) if length else 0):
            return
        self._read = b""
        kind = _KIND.search(body)
        if kind:
            self._answer(kind[1].decode())
        else:
            self._transport.write(_NO_KEY)
            self._transport.close()

    def _answer(self, kind: str) -> None:
        if not KINDS[kind].events:
            self._transport.write(_REGULAR)
        else:
            self._transport.write(_STREAM_HEAD + _EVENTS[kind][0])
            self._later(KINDS[kind], _EVENTS[kind], 1)

    def _later(self, kind: Kind, chunks: list[bytes], number: int) -> None:
        # One write in each turn of the loop: uvloop joins the writes of a turn, and a
        # vendor sends each event by itself.
        if kind.pause:
            self._loop.call_later(kind.pause, self._next, kind, chunks, number)
        else:
            self._loop.call_soon(self._next, kind, chunks, number)

    def _next(self, kind: Kind, chunks: list[bytes], number: int) -> None:
        if self._transport.is_closing():
            return
        if number == len(chunks):
            self._transport.write(_END)
            return
        self._transport.write(chunks[number])
        self._later(kind, chunks, number + 1)


async def main() -> None:
    """Serve on a free port of the loopback interface until the process is ended."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Upstream, "127.0.0.1", 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
