"""HTTP/1.1 as the mock upstream speaks it: requests as received, responses as bytes."""

import asyncio
import concurrent.futures
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from http.client import responses as PHRASES  # noqa: N812 - a constant, there too
from typing import Any

import h11

type Json = dict[str, Any]
type Headers = Mapping[str, str] | Iterable[tuple[str, str]]

JSON = {"content-type": "application/json"}
EVENTS = {"content-type": "text/event-stream"}
DONE = b"data: [DONE]\n\n"
LAST_CHUNK = b"0\r\n\r\n"


class Gate:
    """A point in a scripted response that is passed when the test opens it."""

    def __init__(self) -> None:
        self._opened: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._reached = threading.Event()

    def open(self) -> None:
        """Open it for good, from any thread; opening it again does nothing."""
        if not self._opened.done():
            self._opened.set_result(None)

    def wait_reached(self, seconds: float = 10) -> None:
        """Wait in a test until a response has come this far."""
        assert self._reached.wait(seconds), "no response has reached the gate"

    async def wait(self) -> None:
        self._reached.set()
        # Shielded: cancelling one response must not cancel the gate for the others.
        await asyncio.shield(asyncio.wrap_future(self._opened))


class Action(Enum):
    """A step of a scripted response that writes nothing."""

    READ_BODY = auto()
    CLOSE = auto()
    RESET = auto()
    SILENCE = auto()


READ_BODY, CLOSE, RESET, SILENCE = Action


@dataclass(eq=False)
class Request:
    """A request as it arrived; a test may read it while the response is running."""

    method: str
    target: str
    headers: list[tuple[bytes, bytes]] = field(repr=False)
    body: bytes = field(default=b"", repr=False)
    complete: bool = False
    written: int = 0
    responded: threading.Event = field(default_factory=threading.Event, repr=False)
    disconnected: threading.Event = field(default_factory=threading.Event, repr=False)

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def json(self) -> Any:  # noqa: ANN401 - JSON has every type
        return json.loads(self.body)

    @property
    def key(self) -> str | None:
        """The key of a bearer `Authorization`."""
        scheme, _, key = (self.header("authorization") or "").partition(" ")
        return key.strip() or None if scheme.lower() == "bearer" else None

    def header(self, name: str) -> str | None:
        """Return the value of a header; the values of a repeated one are joined."""
        wanted = name.lower().encode()
        values = [value for sent, value in self.headers if sent.lower() == wanted]
        return b", ".join(values).decode("latin-1") if values else None


type Step = bytes | Gate | Action | Iterable[bytes] | Callable[[Request], bytes]


class Connection(asyncio.StreamReaderProtocol):
    """An accepted connection; notices a disconnect during a response as well."""

    def __init__(
        self,
        on_connect: Callable[["Connection"], None],
        on_disconnect: Callable[["Connection"], None],
    ) -> None:
        """Build a protocol for `loop.create_server`; the loop calls both callbacks."""
        self._reader = asyncio.StreamReader()
        super().__init__(self._reader, self._start)
        self.request: Request | None = None
        self._on_connect = on_connect
        self._on_disconnect = on_disconnect
        self._unparsed = b""
        self._parser: h11.Connection
        self._writer: asyncio.StreamWriter
        self.closed = False

    def _start(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._on_connect(self)

    def eof_received(self) -> bool:
        self._disconnect()
        return bool(super().eof_received())

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._disconnect()

    def _disconnect(self) -> None:
        request = self.request
        if request and not self.closed and not request.responded.is_set():
            request.disconnected.set()
        self.closed = True
        self._on_disconnect(self)

    async def read_headers(self) -> Request | None:
        """Read a request up to its body; return None when the peer closes instead."""
        # A parser for each request: scripted responses break its state machine.
        self._parser = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 22)
        if self._unparsed:
            self._parser.receive_data(self._unparsed)
        start = await self._next_event()
        if not isinstance(start, h11.Request):
            return None
        self.request = Request(
            start.method.decode(),
            start.target.decode(),
            [(bytes(n), bytes(v)) for n, v in start.headers.raw_items()],
        )
        return self.request

    async def read_body(self, request: Request) -> None:
        """Read the rest of the request, after a 100 if the client waits for one."""
        if request.complete:
            return
        if self._parser.they_are_waiting_for_100_continue:
            await self.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = bytearray()
        while isinstance(part := await self._next_event(), h11.Data):
            body += part.data
        if not isinstance(part, h11.EndOfMessage):
            raise ConnectionAbortedError
        request.body, request.complete = bytes(body), True
        self._unparsed = self._parser.trailing_data[0]

    async def _next_event(self) -> object:
        while (event := self._parser.next_event()) is h11.NEED_DATA:
            data = await self._reader.read(65536)
            if not data and self._parser.their_state is h11.SEND_BODY:
                raise ConnectionAbortedError
            self._parser.receive_data(data)
        return event

    @property
    def keeps_alive(self) -> bool:
        """Whether another request can follow on this connection."""
        return self._parser.their_state is h11.DONE and not self.closed

    async def write(self, data: bytes) -> None:
        """Write bytes, and wait while the peer does not read them."""
        self._writer.write(data)
        await self._writer.drain()
        if self.request:
            self.request.written += len(data)

    def close(self, *, reset: bool = False) -> None:
        """Close in order, or with a TCP reset, which discards unread bytes."""
        self.closed = True
        if not reset:
            self._writer.close()
            return
        if not self._writer.is_closing():
            no_linger = struct.pack("ii", 1, 0)
            raw = self._writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_linger)
        self._writer.transport.abort()

    async def play(self, steps: Iterable[Step], request: Request, pause: float) -> None:
        """Write a scripted response, with a pause before each step but the first."""
        for number, step in enumerate(steps):
            match step:
                case bytes():
                    # Also without a pause: each write then leaves separately.
                    await asyncio.sleep(pause if number else 0)
                    await self.write(step)
                case Gate():
                    await step.wait()
                case Action.READ_BODY:
                    await self.read_body(request)
                case Action.SILENCE:
                    await asyncio.Event().wait()
                case Action.CLOSE | Action.RESET:
                    self.close(reset=step is RESET)
                case _:
                    for piece in [step(request)] if callable(step) else step:
                        await self.write(piece)
        request.responded.set()


def response_head(status: int, headers: Headers, *more: tuple[str, str]) -> bytes:
    """Return the bytes of a status line and headers."""
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    lines = [f"HTTP/1.1 {status} {PHRASES.get(status, 'Unknown')}"]
    lines += [f"{name}: {value}" for name, value in (*pairs, *more)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def respond(
    body: bytes = b'{"ok":true}', status: int = 200, headers: Headers = JSON
) -> bytes:
    """Return the bytes of a complete response with its content-length."""
    return response_head(status, headers, ("content-length", str(len(body)))) + body


def chunk(data: bytes) -> bytes:
    """Return the bytes of one chunk of the chunked transfer coding."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def stream(
    *pieces: bytes | Gate, headers: Headers = EVENTS, end: bytes | Action = LAST_CHUNK
) -> list[Step]:
    """Return the steps of a chunked response, with one chunk for each piece."""
    start = response_head(200, headers, ("transfer-encoding", "chunked"))
    return [start, *(chunk(p) if isinstance(p, bytes) else p for p in pieces), end]


def event(data: object, name: str | None = None) -> bytes:
    """Return the bytes of one server-sent event with JSON in it."""
    start = f"event: {name}\n" if name else ""
    return f"{start}data: {json.dumps(data, separators=(',', ':'))}\n\n".encode()


FIRST_EVENT = event({"n": 1})
