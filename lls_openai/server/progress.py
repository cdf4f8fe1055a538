"""The idle timer of a client connection."""

import asyncio
from collections.abc import Callable

# This many bytes of a body, or of a response that the client reads, are progress.
PROGRESS_BYTES = 16 * 1024

# How often a connection is checked within its timeout.
CHECKS = 4


class ProgressTimer:
    """Calls back when a client has made no progress for too long.

    Args:
        timeout: how long that is, in seconds.
        is_waiting: whether the connection waits for its client at the moment.
        count_unread: how many bytes are buffered that the client has not read.
        on_timeout: called once; the timer has stopped then.
    """

    def __init__(
        self,
        timeout: float,
        is_waiting: Callable[[], bool],
        count_unread: Callable[[], int],
        on_timeout: Callable[[], None],
    ) -> None:
        self._timeout = timeout
        self._is_waiting, self._count_unread = is_waiting, count_unread
        self._on_timeout = on_timeout
        self._loop = asyncio.get_running_loop()
        # Bytes since the last progress, and all bytes of responses.
        self._body_bytes = self._read_bytes = 0
        self.written_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self.note()

    def start(self) -> None:
        """Check now and then."""
        read = self.written_bytes - self._count_unread()
        if not self._is_waiting() or read - self._read_bytes >= PROGRESS_BYTES:
            self._read_bytes = read
            self.note()
        left = self._last + self._timeout - self._loop.time()
        if left <= 0:
            self._on_timeout()
        else:
            pause = min(left, self._timeout / CHECKS)
            self._timer = self._loop.call_later(pause, self.start)

    def stop(self) -> None:
        """Check no longer."""
        if self._timer:
            self._timer.cancel()

    def note(self) -> None:
        """Note progress."""
        self._body_bytes = 0
        self._last = self._loop.time()

    def add_body(self, size: int) -> None:
        """Count bytes of a body."""
        self._body_bytes += size
        if self._body_bytes >= PROGRESS_BYTES:
            self.note()
