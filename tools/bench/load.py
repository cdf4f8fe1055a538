"""What is asked of a server: by wrk, and by callers that see when each chunk comes."""

import asyncio
import json
import os
import re
import statistics
import subprocess
import time
from asyncio import StreamReader, StreamWriter, open_connection
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import NamedTuple

import uvloop

from tests.support.http import CHAT, DEFAULT_HEADERS, request
from tools.bench.peers import KINDS, request_body

CONNECTIONS = 16
HELD = 500

# Stock Llama Stack takes the key from this header alone.
_KEY = b'X-LlamaStack-Provider-Data: {"passthrough_api_key": "bench-key"}'
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
type Stream = tuple[float, float, int]


class Server(NamedTuple):
    """A server that runs: its column in the table, its port, its process."""

    name: str
    port: int
    pid: int

    def cpu(self) -> float:
        """In milliseconds, since it began."""
        stat = Path(f"/proc/{self.pid}/stat").read_text()
        # utime and stime, counted from behind the name, which may hold spaces.
        user, system = stat.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK") * 1000

    def kib(self) -> float:
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1024


def one_round(server: Server, calls_for: int, streams_for: int) -> Figures:
    """The figures of one round, by their names in the table, with spans in seconds."""
    cpu = server.cpu()
    calls, rate, _ = _wrk(server, "regular", CONNECTIONS, calls_for)
    cpu = (server.cpu() - cpu) / calls
    p50 = _wrk(server, "regular", 1, 1)[2] * 1000
    streams = _wrk(server, "burst", CONNECTIONS, streams_for)[1]
    firsts = [first for first, *_ in uvloop.run(_streams(server, "first", 0.7))]
    first = statistics.median(firsts) * 1000
    return {"rate": rate, "cpu": cpu, "p50": p50, "streams": streams, "first": first}


def _wrk(
    server: Server, kind: str, connections: int, seconds: int
) -> tuple[int, float, float]:
    """How many calls there were, how many a second, and their median time."""
    command = ["wrk", "--threads=1", f"--connections={connections}", "--timeout=30s"]
    command += [f"--header={line.decode()}" for line in (*DEFAULT_HEADERS, _KEY)]
    command += [f"--duration={seconds}s", f"http://127.0.0.1:{server.port}{CHAT}"]
    env = os.environ | {"BODY": request_body(kind).decode()}
    with NamedTemporaryFile("w") as file:
        file.write(_SCRIPT)
        file.flush()
        command.append(f"--script={file.name}")
        done = subprocess.run(command, capture_output=True, check=True, env=env)
    calls, failed, took, p50 = json.loads(done.stdout.splitlines()[-1])
    # A first call may take long.
    if not calls and seconds < 30:
        return _wrk(server, kind, connections, seconds * 2)
    is_fine = calls and not failed
    assert is_fine, f"{server.name}: {failed} of {calls} calls ({kind}) failed"
    return calls, calls / took, p50


async def _call(reader: StreamReader, writer: StreamWriter, kind: str) -> Stream:
    """Read a stream; one that is not complete and in order raises.

    Gives the seconds to the first event and to the end, and the most events in a read.
    """
    call = request(b"POST", CHAT, _KEY, body=request_body(kind))
    start, first, most, text = time.perf_counter(), 0.0, 0, b""
    writer.write(call)
    async with asyncio.timeout(60):
        while not text.endswith(b"0\r\n\r\n") and (data := await reader.read(1 << 18)):
            now, count = time.perf_counter() - start, data.count(b"data: ")
            first, most = first or (now if count else 0), max(most, count)
            text += data
    numbers = [int(number) for number in _NUMBER.findall(text)]
    is_whole = b" 200 " in text[:20] and numbers == list(range(KINDS[kind][0]))
    assert is_whole, f"a stream ({kind}) was not complete: {text[:200]!r}"
    return first, now, most


async def _streams(server: Server, kind: str, seconds: float) -> list[Stream]:
    """Read one stream after another on one connection, one at least."""
    reader, writer = await open_connection("127.0.0.1", server.port)
    end = time.perf_counter() + seconds
    streams = list[Stream]()
    while not streams or time.perf_counter() < end:
        streams.append(await _call(reader, writer, kind))
    writer.close()
    return streams


def slow_stream(server: Server) -> Figures:
    """The most events that came in one read, of a stream with 50 ms between them."""
    return {"most": uvloop.run(_streams(server, "slow", 0))[0][2]}


async def held_streams(server: Server) -> Figures:
    """What 500 callers that read a slow stream at once cost."""
    peak = before = server.kib()
    cpu = server.cpu()
    pairs = [await open_connection("127.0.0.1", server.port) for _ in range(HELD)]
    calls = [asyncio.create_task(_call(*pair, "held")) for pair in pairs]
    while not all(call.done() for call in calls):
        peak = max(peak, server.kib())
        await asyncio.sleep(0.05)
    cpu = (server.cpu() - cpu) / HELD / KINDS["held"][0]
    streams = [call.result() for call in calls if not call.exception()]
    for _, writer in pairs:
        writer.close()
    # All began together: open when the first one ended were those begun before.
    end = min((last for _, last, _ in streams), default=0)
    together = sum(first < end for first, *_ in streams)
    kib = (peak - before) / HELD
    return {"whole": len(streams), "open": together, "kib": kib, "chunk": cpu}
