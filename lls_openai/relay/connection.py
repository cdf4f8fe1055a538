"""One HTTP/1.1 connection to an upstream, which carries one call at a time.

It is idle, waits for the headers of a response, or reads its body. Bytes that do not
belong to its state end the connection and fail the call.
"""

import asyncio
import select
from array import array
from collections.abc import Callable
from contextlib import suppress
from fcntl import ioctl
from termios import TIOCOUTQ
from typing import cast

from lls_openai.relay.response_parser import ResponseParser
from lls_openai.relay.upstream_errors import UpstreamError, disconnected, read_timeout
from lls_openai.relay.upstream_response import UpstreamResponse

# How far a response is read ahead of its client, and how much of a request body the
# transport gets at a time.
BUFFER_BYTES = 64 * 1024

# How often the progress of an upload is checked within the read timeout.
UPLOAD_CHECKS = 8


class Connection(asyncio.Protocol):
    """A connection that a pool uses for one call after another.

    `timeout` is how long the upstream may be silent during a call, in seconds. It calls
    `on_idle` when another request can follow a response, `on_lost` at the end.
    """

    transport: asyncio.Transport

    def __init__(
        self,
        timeout: float,
        on_idle: Callable[["Connection"], None],
        on_lost: Callable[["Connection"], None],
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.calls = 0
        self._timeout, self._on_idle, self._on_lost = timeout, on_idle, on_lost
        self._parser = ResponseParser(self)
        self._poll: select.poll | None = None
        # The first is set while headers are awaited, the second while a body is.
        self._waiter: asyncio.Future[UpstreamResponse] | None = None
        self._response: UpstreamResponse | None = None
        self._lost = self._reading_paused = self._writing_paused = False
        self._unwritten: memoryview | None = None
        self._unsent = 0
        self._last_progress = 0.0
        # One for all calls: it checks how long ago there was progress.
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Accept the transport."""
        self.transport = cast("asyncio.Transport", transport)

    def is_stale(self) -> bool:
        """Return whether an idle connection has ended, or has bytes to read.

        Either can be unread in the kernel: a request sent now would be lost, or get
        those bytes as its response.
        """
        if self._poll is None:
            self._poll = select.poll()
            socket = self.transport.get_extra_info("socket")
            self._poll.register(socket, select.POLLIN)
        return self.transport.is_closing() or bool(self._poll.poll(0))

    def request(self, head: bytes, body: bytes) -> asyncio.Future[UpstreamResponse]:
        """Send a request; the future gets its response or an `UpstreamError`."""
        waiter = self._waiter = self.loop.create_future()
        self.calls += 1
        self._unsent = 0
        self._last_progress = self.loop.time()
        if self._lost:
            self._fail(disconnected(None, None))
        elif len(body) <= BUFFER_BYTES:
            self.transport.write(head + body)
            if self._timer is None:
                self._check_after(self._timeout)
        else:
            self._unwritten, self._unsent = memoryview(body), len(body)
            self.transport.write(head)
            self._write_more()
            self._check_after(self._timeout / UPLOAD_CHECKS)
        return waiter

    def note_progress(self) -> None:
        """Start the timeout again."""
        self._last_progress = self.loop.time()

    def resume_reading(self) -> None:
        """Read on if the response was read too far ahead."""
        if self._reading_paused:
            self._reading_paused = False
            self.note_progress()
            self.transport.resume_reading()

    def abort(self) -> None:
        """End the connection at once and discard unsent bytes."""
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Parse bytes that belong to a call; any others end the connection."""
        if self._waiter is None and self._response is None:
            self.abort()
            return
        try:
            self._parser.feed(data)
        except UpstreamError as error:
            self._deliver()
            self._fail(error)
            return
        if self._waiter is not None:
            self._deliver()
        response = self._response
        if response is None:
            return
        if response.complete:
            self._end_call()
            return
        self._last_progress = self.loop.time()
        ahead = response.received - response.returned
        if ahead > BUFFER_BYTES and not self._reading_paused:
            self._reading_paused = True
            self.transport.pause_reading()

    def _deliver(self) -> None:
        """Deliver the response once its headers are complete."""
        waiter, response = self._waiter, self._parser.response
        if waiter is not None and response is not None:
            self._waiter, self._response = None, response
            if waiter.cancelled():
                # No other call may get this connection before it has ended.
                self.abort()
            else:
                waiter.set_result(response)

    def _end_call(self) -> None:
        """Become idle if another request can follow, else end."""
        self._response = None
        self.resume_reading()
        keep_alive = self._parser.keep_alive
        self._parser.begin()
        sent = self._unwritten is None and not self.transport.get_write_buffer_size()
        if keep_alive and sent and not self.transport.is_closing():
            self._on_idle(self)
        else:
            self.abort()

    def _fail(self, error: UpstreamError) -> None:
        """End the connection, and its call with an error."""
        waiter, self._waiter = self._waiter, None
        response, self._response = self._response, None
        if waiter and not waiter.done():
            waiter.set_exception(error)
        if response and not response.complete:
            response.finish(error)
        self.abort()

    def pause_writing(self) -> None:
        """Hold back the rest of the request body."""
        self._writing_paused = True

    def resume_writing(self) -> None:
        """Write on, because the upstream has read something."""
        self._writing_paused = False
        self.note_progress()
        self._write_more()

    def _write_more(self) -> None:
        while self._unwritten and not self._writing_paused:
            piece = self._unwritten[:BUFFER_BYTES]
            self._unwritten = self._unwritten[BUFFER_BYTES:] or None
            self.transport.write(piece)

    def _check_after(self, seconds: float) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer = self.loop.call_later(seconds, self._check_progress)

    def _check_progress(self) -> None:
        """Fail the call if there was no byte in either direction for too long."""
        self._timer = None
        if self._waiter is None and self._response is None:
            return
        now = self.loop.time()
        unsent = self._count_unsent()
        # A client that reads slowly is not the upstream's silence.
        if self._reading_paused or unsent < self._unsent:
            self._last_progress = now
        self._unsent = unsent
        left = self._last_progress + self._timeout - now
        if left <= 0:
            self._fail(read_timeout(self._timeout))
        else:
            soon = self._timeout / UPLOAD_CHECKS
            self._check_after(min(left, soon) if unsent else left)

    def _count_unsent(self) -> int:
        """Return how much of the request the upstream has not acknowledged."""
        unwritten = len(self._unwritten or b"")
        buffered = self.transport.get_write_buffer_size()
        return unwritten + buffered + _queued_in_kernel(self.transport)

    def eof_received(self) -> None:
        """Accept the upstream's end: that of a body without a length, or a break."""
        response = self._response
        if response and not response.is_framed:
            response.finish()
        self._lose(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail a call that is not complete."""
        self._lost = True
        self._lose(exc)
        if self._timer:
            self._timer.cancel()
        self._parser.close()
        del self._parser, self._unwritten
        self._on_lost(self)

    def _lose(self, cause: Exception | None) -> None:
        received = self._response.received if self._response else None
        self._fail(disconnected(cause, received))


def _queued_in_kernel(transport: asyncio.Transport) -> int:
    """Return the bytes in a socket's send queue, where the system tells."""
    size = array("i", [0])
    with suppress(OSError, ValueError):
        ioctl(transport.get_extra_info("socket").fileno(), TIOCOUTQ, size)
    return size[0]
