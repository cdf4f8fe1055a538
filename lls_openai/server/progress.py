"""The idle timer of a client connection."""

import asyncio
from collections.abc import Callable

# This many bytes of a body, or of a response that the client reads, are progress.
PROGRESS_BYTES = 16 * 1024

# How often a connection is checked within its timeout.
CHECKS = 4


class ProgressTimer:
    """Aborts a connection whose client has made no progress for `timeout` seconds.

    Time counts only while `is_waiting` returns True: the client has to act.
    """

    def __init__(
        self,
        timeout: float,
        transport: asyncio.Transport,
        is_waiting: Callable[[], bool],
    ) -> None:
        self._timeout, self._transport = timeout, transport
        self._is_waiting = is_waiting
        self._loop = asyncio.get_running_loop()
        # Bytes since the last progress, and all bytes of responses.
        self._body_bytes = self._read_bytes = 0
        self.written_bytes = 0
        self.note()
        self._check()

    def note(self) -> None:
        """Note progress."""
        self._body_bytes = 0
        self._last = self._loop.time()

    def add_body(self, size: int) -> None:
        """Count bytes of a body."""
        self._body_bytes += size
        if self._body_bytes >= PROGRESS_BYTES:
            self.note()

    def shorten(self, timeout: float) -> None:
        """Allow `timeout` seconds without progress from now on."""
        self.stop()
        self._timeout = timeout
        self.note()
        self._check()

    def stop(self) -> None:
        """Check no longer."""
        self._timer.cancel()

    def _check(self) -> None:
        """Abort the connection, or check again later."""
        read = self.written_bytes - self._transport.get_write_buffer_size()
        if not self._is_waiting() or read - self._read_bytes >= PROGRESS_BYTES:
            self._read_bytes = read
            self.note()
        left = self._last + self._timeout - self._loop.time()
        if left <= 0:
            self._transport.abort()
        else:
            pause = min(left, self._timeout / CHECKS)
            self._timer = self._loop.call_later(pause, self._check)
