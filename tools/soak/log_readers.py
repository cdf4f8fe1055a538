"""Servers whose log cannot be written: they must serve and stop as usual."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from subprocess import TimeoutExpired

from tests.support.http import CHAT_REQUEST, RawConnection
from tests.support.upstream import Upstream
from tools.servers import BIN, Server, running
from tools.soak.report import Bystander, Line, at_most, exactly, title

# More log lines than a pipe of 64 KiB takes.
_CALLS = 2000
_STOP_SECONDS = 10


def log_readers(upstream: Upstream) -> Iterator[Line]:
    """Serve calls while nobody can write the log."""
    yield title("A log that nobody reads")
    reading, writing = os.pipe()
    yield from _serve(upstream, writing)
    os.close(reading)
    yield title("A log whose reader exits")
    reading, writing = os.pipe()
    yield from _serve(upstream, writing, partial(os.close, reading))
    yield title("A log on a full disk")
    yield from _serve(upstream, os.open("/dev/full", os.O_WRONLY))


def _serve(
    upstream: Upstream, stderr: int, after_boot: Callable[[], None] = lambda: None
) -> Iterator[Line]:
    command = [str(BIN / "llama"), "stack", "run", "run.yaml"]
    with running("llama stack run", command, upstream.environment, stderr) as server:
        os.close(stderr)
        after_boot()
        with Bystander(server.port) as bystander:
            yield from _call(server.port)
        yield from bystander.report()
        yield from _stop(server)
    upstream.reset()


def _call(port: int) -> Iterator[Line]:
    """Send the calls, on as few connections as the server allows."""
    statuses, connections = list[int](), 0
    while len(statuses) < _CALLS and connections <= 5:
        connections += 1
        try:
            with RawConnection(port) as connection:
                while len(statuses) < _CALLS:
                    connection.send(CHAT_REQUEST)
                    statuses.append(connection.read_response().status)
        except (OSError, AssertionError):
            continue
    yield exactly("calls that were answered", statuses.count(200), _CALLS)
    yield exactly("connections that this took", connections, 1)


def _stop(server: Server) -> Iterator[Line]:
    start = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    try:
        status = server.process.wait(_STOP_SECONDS * 2)
    except TimeoutExpired:
        status = -signal.SIGKILL
    yield exactly("status after SIGTERM", status, 0)
    yield at_most("it took", time.monotonic() - start, _STOP_SECONDS, " s")
