"""Callers that do not read: what the server holds for each, and who else notices."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from tests import process
from tests.calls import chat
from tests.polling import poll
from tests.raw import request
from tests.scripts import EVENTS
from tests.soak.figures import Figure, all_of, milliseconds
from tests.soak.latency import Latency, measure
from tests.soak.stage import Stage, progress
from tests.upstream import Connection, Request

READERS = 50
# What a stream would come to, in bytes: far more than all buffers on its way, of which
# those of the kernel are the largest, with 4 to 6 MiB each.
STREAM = 64 * 1024 * 1024
# In KiB a caller. Seen were 1,800, of a stream of 16 MiB and of 64 MiB alike: the
# event loop reads 256 KiB at a time, and several such reads are on their way at once,
# waiting in the client, joined, and being written. Python's own share is in it.
MOST = 2048

_PART = "slow"
_EVENT = b"data: " + b"x" * 16_000 + b"\n\n"
_STILL_SECONDS = 1.0
_RECEIVE_BYTES = 4096


@dataclass
class Large:
    """A large stream for whoever asks.

    Attributes:
        sent: The bytes that the server has taken so far, for all callers together.
        streams: How many streams have begun.
    """

    sent: int = 0
    streams: int = 0

    async def __call__(self, _request: Request, connection: Connection) -> None:
        """Send it, as fast as the server takes it."""
        self.streams += 1
        await connection.head(200, EVENTS)
        for _ in range(STREAM // len(_EVENT)):
            await connection.chunk(_EVENT)
            self.sent += len(_EVENT)
        await connection.end()


def slow_readers(stage: Stage) -> list[Figure]:
    """Let callers ask for a large stream and read nothing of it.

    Args:
        stage: What it runs on.
    """
    progress(f"{_PART}: latency without them")
    calls = min(1000, stage.calls)
    url, before = stage.server.url, process.resident(stage.server.pid)
    alone = stage.measurer.submit(measure, url, calls).result()
    progress(f"{_PART}: {READERS} callers that do not read")
    large = Large()
    stage.upstream.openai.answer_with(large)
    with _readers(stage.server.port):
        stopped = _wait_until_still(large, stage, before)
        kib = (process.resident(stage.server.pid) - before) / READERS / 1024
        beside = stage.measurer.submit(measure, url, calls).result()
    stage.upstream.openai.reset()
    taken = large.sent / READERS / 1024
    return [
        all_of(_PART, "streams that nobody reads", large.streams, READERS),
        Figure(
            _PART,
            f"taken from the upstream of {STREAM // 1024:,}, KiB a stream",
            f"{taken:,.0f}",
            bound="less than half",
            holds=stopped,
        ),
        Figure(
            _PART,
            "memory of the server, KiB a stream",
            f"{kib:,.0f}",
            bound=f"at most {MOST:,}",
            holds=kib <= MOST,
        ),
        *latencies(_PART, alone, beside, calls),
    ]


def latencies(part: str, alone: Latency, beside: Latency, calls: int) -> list[Figure]:
    """The lines that tell latency without a load and with it.

    Args:
        part: The part of the soak.
        alone: Without.
        beside: With.
        calls: How many calls each had to complete.
    """
    complete = alone.complete == beside.complete == calls
    return [
        Figure(
            part,
            "calls to another vendor, complete",
            f"{beside.complete:,}",
            f"{alone.complete:,}",
            f"{calls:,}",
            complete,
        ),
        Figure(part, "p50, ms", milliseconds(beside.p50), milliseconds(alone.p50)),
        Figure(part, "p95, ms", milliseconds(beside.p95), milliseconds(alone.p95)),
    ]


@contextmanager
def _readers(port: int) -> Iterator[None]:
    """Hold calls open whose answers are not read."""
    with ExitStack() as opened:
        for _ in range(READERS):
            caller = opened.enter_context(socket.socket())
            # Before it connects: the window is agreed on then.
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)
            caller.connect(("127.0.0.1", port))
            caller.sendall(request(body=chat(stream=True)))
        yield


def _wait_until_still(large: Large, stage: Stage, before: int) -> bool:
    """Wait until all streams have begun and no byte is taken for a second.

    It does not wait for a server that holds far more than it may.
    """
    most = before + 2 * READERS * MOST * 1024
    last, since = -1, time.monotonic()

    def still() -> bool:
        nonlocal last, since
        if large.sent != last:
            last, since = large.sent, time.monotonic()
        too_much = process.resident(stage.server.pid) > most
        begun = large.streams == READERS
        return too_much or (begun and time.monotonic() - since > _STILL_SECONDS)

    return poll(still, 60) and large.sent < READERS * STREAM // 2
