"""The load: wrk for rates and times, our own client for 1,000 streams at once."""

import asyncio
import json
import os
import re
import resource
import subprocess
import time
from asyncio import open_connection
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import uvloop

from tests.support.http import CHAT, HEADERS_WITHOUT_KEY, MODEL, request
from tools.bench.upstream import KINDS, request_body
from tools.cli import log
from tools.servers import Server

CONNECTIONS = 16
OPEN_STREAMS = 1000
# A server that answers no request in a span is given twice that, up to this.
_LONGEST_SPAN = 16
# A slow stream takes 8 s, and far longer on a busy machine.
_STREAM_SECONDS = 120

_SCRIPT = """\
wrk.method, wrk.body = "POST", os.getenv("BODY")
function done(summary, latency, requests)
  local e = summary.errors
  print(string.format("\\n[%d, %d, %f, %f]", summary.requests,
    e.connect + e.read + e.write + e.status + e.timeout,
    summary.duration / 1e6, latency:percentile(50) / 1e6))
end
"""
_NUMBER = re.compile(rb'"content": ?" (\d+)"')

type Figures = dict[str, float]


class LoadError(Exception):
    """Requests failed; a speed measured from them would mean nothing."""


# The measures of the servers that are compared with this one.
FEW_MEASURES = ("calls", "latency", "streams")


class Target(NamedTuple):
    """A server to measure, the headers it needs, and the seconds of each span."""

    server: Server
    upstream: Server
    # Stock Llama Stack reads the key from the second header only.
    headers: tuple[str, ...] = (
        "Authorization: Bearer bench-key",
        'X-LlamaStack-Provider-Data: {"passthrough_api_key": "bench-key"}',
    )
    model: str = MODEL
    measures: tuple[str, ...] = FEW_MEASURES
    spans: tuple[int, int, int] = (2, 1, 2)

    @property
    def name(self) -> str:
        return self.server.name


class _Sample(NamedTuple):
    """What wrk measured in one span, in seconds."""

    rate: float
    p50: float
    # CPU of the server for a request; cores that the server and the load kept busy.
    cpu: float
    cores: float
    load_cores: float


def calls(target: Target) -> Figures:
    """Measure buffered responses at 16 connections."""
    sample = _wrk(target, "buffered", CONNECTIONS, target.spans[0])
    cores = {"cores": sample.cores, "load_cores": sample.load_cores}
    return {"calls": sample.rate, "call_cpu": sample.cpu * 1e6} | cores


def latency(target: Target) -> Figures:
    """Measure the median time of a buffered response at one connection."""
    return {"p50": _wrk(target, "buffered", 1, target.spans[1]).p50 * 1000}


def streams(target: Target) -> Figures:
    """Measure streams of 200 chunks, at 16 connections, as fast as they come."""
    sample = _wrk(target, "burst", CONNECTIONS, target.spans[2])
    chunk_cpu = sample.cpu / KINDS["burst"].chunks * 1e6
    return {"streams": sample.rate, "chunk_cpu": chunk_cpu}


def single_streams(target: Target) -> Figures:
    """Measure the same streams when the upstream writes one chunk at a time."""
    sample = _wrk(target, "single", CONNECTIONS, target.spans[2])
    return {"single_streams": sample.rate}


type Measure = Callable[[Target], Figures]
MEASURES: dict[str, Measure] = {
    "calls": calls,
    "latency": latency,
    "streams": streams,
    "single_streams": single_streams,
}


def _wrk(target: Target, kind: str, connections: int, seconds: int) -> _Sample:
    busy = target.server.cpu(), target.upstream.cpu() + _children_cpu()
    count, failed, took, p50 = run_wrk(target, kind, connections, seconds)
    if not count and seconds < _LONGEST_SPAN:
        return _wrk(target, kind, connections, seconds * 2)
    if failed or not count:
        raise LoadError(f"{target.name}: {failed} of {count} requests ({kind}) failed")
    cpu = target.server.cpu() - busy[0]
    load = target.upstream.cpu() + _children_cpu() - busy[1]
    return _Sample(count / took, p50, cpu / count, cpu / took, load / took)


def run_wrk(
    target: Target, kind: str, connections: int, seconds: int
) -> tuple[int, int, float, float]:
    """Return the requests, the failed ones, the seconds, and the median seconds."""
    command = ["wrk", "--threads=1", f"--connections={connections}", "--timeout=30s"]
    headers = ("Host: localhost", "Content-Type: application/json", *target.headers)
    command += [f"--header={line}" for line in headers]
    command += [f"--duration={seconds}s", f"http://127.0.0.1:{target.server.port}"]
    command[-1] += CHAT
    env = os.environ | {"BODY": request_body(kind, target.model).decode()}
    with TemporaryDirectory() as directory:
        script = Path(directory, "script.lua")
        script.write_text(_SCRIPT)
        command.insert(1, f"--script={script}")
        run = subprocess.run(command, capture_output=True, check=True, env=env)
    count, failed, took, p50 = json.loads(run.stdout.splitlines()[-1])
    return count, failed, took, p50


def _children_cpu() -> float:
    """Return the CPU seconds of the wrk processes so far."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def check(target: Target) -> Target:
    """Send the first requests, one at a time; leave streams out if they fail."""
    # Stock Llama Stack creates its tables then, and several at once would fail.
    latency(target)
    if "streams" not in target.measures:
        return target
    try:
        uvloop.run(_read(target, "burst"))
    except (LoadError, TimeoutError) as error:
        log(f"streams are left out: {error}")
        return target._replace(measures=("calls", "latency"))
    return target


def open_streams(target: Target) -> Figures:
    """Measure what 1,000 slow streams cost that are open at once."""
    return uvloop.run(_open_streams(target))


async def _open_streams(target: Target) -> Figures:
    server, kind = target.server, KINDS["slow"]
    rest = server.memory()
    # The first request of a process looks its model up.
    await _read(target, "burst")
    before = peak = server.memory()
    cpu = server.cpu()
    reading = [asyncio.create_task(_read(target, "slow")) for _ in range(OPEN_STREAMS)]
    while not all(task.done() for task in reading):
        peak = max(peak, server.memory())
        await asyncio.sleep(0.05)
    cpu = (server.cpu() - cpu) / OPEN_STREAMS / kind.chunks
    if errors := [error for task in reading if (error := task.exception())]:
        raise LoadError(f"{target.name}: {len(errors)} streams failed: {errors[0]!r}")
    begun, ended = zip(*(task.result() for task in reading), strict=True)
    if max(begun) > min(ended):
        raise LoadError(f"{target.name}: the streams were not all open at once")
    figures = {"stream_memory": (peak - before) / OPEN_STREAMS / 1024}
    return figures | {"rest": rest / 2**20, "slow_chunk_cpu": cpu * 1e6}


async def _read(target: Target, kind: str) -> tuple[float, float]:
    """Read one stream; return the time of its first bytes and of its end."""
    reader, writer = await open_connection("127.0.0.1", target.server.port)
    lines = [line.encode() for line in target.headers]
    body = request_body(kind, target.model)
    writer.write(request(b"POST", CHAT, *lines, body=body, headers=HEADERS_WITHOUT_KEY))
    text, begun = b"", 0.0
    async with asyncio.timeout(_STREAM_SECONDS):
        while not text.endswith(b"0\r\n\r\n") and (data := await reader.read(65536)):
            begun = begun or time.monotonic()
            text += data
    writer.close()
    numbers = [int(number) for number in _NUMBER.findall(text)]
    if b" 200 " not in text[:20] or numbers != list(range(KINDS[kind].chunks)):
        raise LoadError(f"{target.name}: an incomplete stream: {text[:200]!r}")
    return begun, time.monotonic()
