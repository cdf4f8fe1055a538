"""The measurements: what is asked of a server in one round, and once."""

import asyncio
import statistics
import time
from collections.abc import Sequence
from typing import Final, NamedTuple, Self

import uvloop

from tests.bench.caller import Connection, Stream, connect
from tests.bench.payloads import KINDS
from tests.bench.targets import Target
from tests.bench.wrk import Load, Wrk

CONNECTIONS: Final = 16
HELD: Final = 500
_SAMPLE_SECONDS: Final = 0.05


class BenchError(Exception):
    """A server did not do what it is measured for."""


class Spans(NamedTuple):
    """How long each measurement of a round takes, in seconds (wrk: whole ones)."""

    load: int
    single: int
    streams: int
    first: float


class Round(NamedTuple):
    """The figures of one round.

    Attributes:
        rate: Calls per second at 16 connections.
        cpu: CPU time of the serving process for one of them, in seconds.
        p50: Median time of a call at one connection, in seconds.
        streams: Streams of 200 chunks per second at 16 connections.
        first: Median time to the first chunk at one connection, in seconds.
    """

    rate: float
    cpu: float
    p50: float
    streams: float
    first: float

    @classmethod
    def median(cls, rounds: Sequence[Self]) -> Self:
        """Return the median of each figure."""
        return cls(*map(statistics.median, zip(*rounds, strict=True)))


class Held(NamedTuple):
    """What many slow streams at once came to.

    Attributes:
        whole: How many arrived complete and in order.
        at_once: How many of them were open at the same time.
        kib: Memory of the serving process for one of them, in KiB.
        cpu: CPU time of the serving process for one chunk, in seconds.
    """

    whole: int
    at_once: int
    kib: float
    cpu: float


def one_round(target: Target, wrk: Wrk, spans: Spans) -> Round:
    """Measure a server once.

    Args:
        target: The server.
        wrk: The load generator.
        spans: How long each measurement takes.

    Returns:
        The figures.

    Raises:
        BenchError: It answered with an error, or not at all.
    """
    before = target.cpu_seconds
    load = wrk.load(target.url, "regular", CONNECTIONS, spans.load)
    cpu = (target.cpu_seconds - before) / _good(load, target)
    single = wrk.load(target.url, "regular", 1, spans.single)
    streams = wrk.load(target.url, "burst", CONNECTIONS, spans.streams)
    _good(single, target)
    _good(streams, target)
    first = uvloop.run(_first_chunk(target, spans.first))
    return Round(load.rate, cpu, single.p50, streams.rate, first)


def most_events_in_a_read(target: Target) -> int:
    """Return the largest number of events of a slow stream that came in one read.

    Raises:
        BenchError: The stream was not whole.
    """
    stream = uvloop.run(_call(target, "slow"))
    return _whole(stream, "slow", target).most


def many_held_streams(target: Target) -> Held:
    """Let 500 callers read a slow stream each, all at once.

    Returns:
        How that went.

    Raises:
        OSError: A connection was refused or broke off.
        TimeoutError: A stream did not end.
    """
    return uvloop.run(_held(target))


async def _first_chunk(target: Target, seconds: float) -> float:
    connection = await connect(target.url)
    end = time.perf_counter() + seconds
    times = []
    while time.perf_counter() < end:
        stream = _whole(await connection.call("first"), "first", target)
        times.append(stream.first)
    connection.close()
    return statistics.median(times)


async def _call(target: Target, kind: str) -> Stream:
    connection = await connect(target.url)
    try:
        return await connection.call(kind)
    finally:
        connection.close()


async def _held(target: Target) -> Held:
    memory, cpu = target.resident_kib, target.cpu_seconds
    peak = asyncio.create_task(_peak_kib(target))
    connections = [await connect(target.url) for _ in range(HELD)]
    streams = await asyncio.gather(*(one.call("held") for one in connections))
    peak.cancel()
    cpu = target.cpu_seconds - cpu
    _close(connections)
    return Held(
        whole=sum(stream.is_whole("held") for stream in streams),
        at_once=_open_at_once(streams),
        kib=(max(await peak, memory) - memory) / HELD,
        cpu=cpu / HELD / KINDS["held"].events,
    )


async def _peak_kib(target: Target) -> float:
    peak = 0.0
    try:
        while True:
            peak = max(peak, target.resident_kib)
            await asyncio.sleep(_SAMPLE_SECONDS)
    except asyncio.CancelledError:
        return peak


def _close(connections: list[Connection]) -> None:
    for connection in connections:
        connection.close()


def _open_at_once(streams: list[Stream]) -> int:
    # All calls begin together, so the streams open when the first one ends are those
    # that had their first chunk before.
    ends = min(stream.last for stream in streams)
    return sum(stream.first < ends for stream in streams)


def _good(load: Load, target: Target) -> int:
    if load.failed or not load.calls:
        message = f"{target.name}: {load.failed} of {load.calls} calls failed"
        raise BenchError(message)
    return load.calls


def _whole(stream: Stream, kind: str, target: Target) -> Stream:
    if not stream.is_whole(kind, done=target.says_done):
        message = f"{target.name}: a stream ({kind}) came with status {stream.status}, "
        raise BenchError(message + "or not whole")
    return stream
