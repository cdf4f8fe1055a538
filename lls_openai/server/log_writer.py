"""Log lines on their way to a file descriptor, written by a thread.

Standard error may be a pipe whose reader stalls, a terminal that is paused, or a file
on a full disk. Only a thread works with all of them: O_NONBLOCK would be set for every
process that shares the descriptor, and `poll` does not promise room for a whole line.
"""

import atexit
import os
import select
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress

# The limit of lines that wait to be written, in bytes.
MAX_WAITING_BYTES = 1024 * 1024

# The time for which lines are collected, in seconds, so that a busy server writes many
# at a time: to wake the thread for each costs more than the write itself.
COLLECT_SECONDS = 0.02

# The time that the end of the process waits for the last lines, in seconds.
FLUSH_TIMEOUT = 1.0


class LogWriter:
    """Writes lines in order; drops and counts those that cannot be written."""

    def __init__(self, descriptor: int) -> None:
        self.dropped_lines = 0
        self._descriptor = descriptor
        self._lines: list[bytes] = []
        # Of the lines that wait, and of those that are being written.
        self._waiting_bytes = 0
        self._flushing = False
        # Reentrant: a signal handler may log while its thread holds it.
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def write(self, line: bytes) -> None:
        """Hand over a line, which ends in a line feed; never waits."""
        with self._changed:
            if self._waiting_bytes + len(line) > MAX_WAITING_BYTES:
                self.dropped_lines += 1
                return
            self._lines.append(line)
            self._waiting_bytes += len(line)
            # The thread is awake, or wakes by itself, while there are other lines.
            if len(self._lines) == 1:
                self._changed.notify_all()
            if self._thread is None:
                self._start()

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()
        atexit.register(_drop_unwritable_output)
        atexit.register(self.flush)

    def flush(self) -> None:
        """Wait until all lines are written, but for at most `FLUSH_TIMEOUT`."""
        with self._changed:
            self._flushing = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._waiting_bytes, FLUSH_TIMEOUT)
            self._flushing = False

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines)
                self._changed.wait_for(lambda: self._flushing, COLLECT_SECONDS)
                lines, self._lines = self._lines, []
            for batch in _batches(lines):
                self._write(batch)

    def _write(self, batch: list[bytes]) -> None:
        rest = data = b"".join(batch)
        with suppress(OSError):
            while rest:
                rest = rest[self._write_part(rest) :]
        with self._changed:
            self._waiting_bytes -= len(data)
            # A line of which a part is written counts as well.
            self.dropped_lines += rest.count(b"\n")
            self._changed.notify_all()

    def _write_part(self, data: bytes) -> int:
        try:
            return os.write(self._descriptor, data)
        except BlockingIOError:
            # Another process has set O_NONBLOCK.
            select.select([], [self._descriptor], [])
            return 0


def _drop_unwritable_output() -> None:
    """Keep a full disk from changing the exit status, which Python would make 120."""
    for name in ("stdout", "stderr"):
        try:
            getattr(sys, name).flush()
        except OSError:
            setattr(sys, name, None)


def _batches(lines: list[bytes]) -> Iterator[list[bytes]]:
    """Group lines, so that each group is written whole where processes share a pipe."""
    batch, size = list[bytes](), 0
    for line in lines:
        if batch and size + len(line) > select.PIPE_BUF:
            yield batch
            batch, size = [], 0
        batch.append(line)
        size += len(line)
    yield batch


STANDARD_ERROR = LogWriter(descriptor=2)
