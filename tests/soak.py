"""`python -m tests.soak` (`make soak`): whether the server stays as it is.

Over many calls, and beside callers that hurt it: the mock upstream, the real server,
and a table of what was looked at, what was measured, and its bound. Each part does
something to the server, and measures it.
"""

import argparse
import asyncio
import math
import os
import re
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from itertools import chain, cycle, islice
from pathlib import Path
from statistics import median
from typing import NamedTuple

from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector

from tests.support.http import (
    CHAT,
    CLAUDE,
    MODEL,
    OWN,
    Raw,
    ask,
    bearer,
    chat,
    encoded,
    eventually,
    provider_data,
    request,
)
from tests.support.server import Server, ServerError, Servers, Variation
from tests.support.tool import aligned, end_on_signals
from tests.support.upstream import Upstream, in_background
from tests.support.vendors import KEYS
from tests.support.wire import EVENTS, SILENCE, Gate, answer, chunk, head, stream

MIB = 1024 * 1024
# Settings of the server: small, so that little is waited for.
CALLER_TIMEOUT = 5.0
IN_FLIGHT = 256 * MIB
GEMINI = "gemini/gemini-2.5-flash-lite"


class Line(NamedTuple):
    """A line of the table; without a bound it only tells."""

    what: str
    measured: str
    bound: str = ""
    verdict: str = ""


def at_most(what: str, measured: float, bound: float, unit: str = "") -> Line:
    """A figure with an upper bound."""
    verdict = "ok" if measured <= bound else "FAILED"
    shown = f"{round(measured, 2):,}{unit}"
    return Line(what, shown, f"at most {bound:,}{unit}", verdict)


def exactly(what: str, measured: int, expected: int) -> Line:
    """A count that must be complete, or 0."""
    verdict = "ok" if measured == expected else "FAILED"
    return Line(what, f"{measured:,}", f"{expected:,}", verdict)


class Stage(NamedTuple):
    """What a part runs on."""

    server: Server
    upstream: Upstream
    calls: int


AT_ONCE, KEYS_USED = 16, 1000
# A part of every key that is nowhere else.
MARK = "k3y0fs0ak"
# A call's body and key, and what the answer must be; without a text the caller leaves.
type Kind = tuple[bytes, str, int, bytes]


def _kinds() -> Iterator[Kind]:
    # Enough words that a stream is under way when its caller leaves.
    words = [{"role": "user", "content": "on and on " * 100}]
    for model in (MODEL, GEMINI, CLAUDE):
        vendor, error = model.partition("/")[0], b'"error"'
        whole, key = encoded(chat(model)), KEYS[vendor]
        yield whole, key, 200, b"heard: hello"
        yield encoded(chat(model, stream=True)), key, 200, b"data: [DONE]"
        yield encoded(chat(model, stream=True, messages=words)), key, 200, b""
        yield whole, "wrong", 400 if vendor == "gemini" else 401, error
        yield encoded(chat(f"{vendor}/rate-limited")), key, 429, error
        yield encoded(chat(f"{vendor}/no-such-model")), key, 404, error
        yield encoded(chat(f"{vendor}/breaks-off")), key, 502, error
        yield whole[:-1], key, 400, error


def endurance(stage: Stage) -> Iterator[Line]:
    """Mixed calls: does the process stay as it is?"""
    # The first keys are not used again.
    numbers = chain(range(KEYS_USED), cycle(range(KEYS_USED, 2 * KEYS_USED)))
    everything = zip(numbers, cycle(_kinds()), strict=False)
    memory, descriptors, wrong = [], [], Counter[str]()
    for size in (KEYS_USED, *[stage.calls // 5] * 5):
        start = time.monotonic()
        wrong += asyncio.run(_make(stage.server.url, islice(everything, size)))
        rate = size / (time.monotonic() - start)
        stage.upstream.reset()
        memory.append(stage.server.memory() // 1024)
        # Those to an upstream are pooled.
        pooled = sum(vendor.open_connections for vendor in stage.upstream.vendors)
        descriptors.append(stage.server.descriptors() - pooled)
    what = f"{stage.calls:,} mixed calls, {KEYS_USED:,} keys, {AT_ONCE} at once"
    yield Line(what, f"{rate:.0f}/s")
    yield exactly("answers other than expected", wrong.total(), 0)
    yield from (Line(f"  {fault}", f"{count:,}") for fault, count in wrong.items())
    what = f"memory, above that after {KEYS_USED:,} calls more"
    yield at_most(what, max(memory) - memory[0], 2048, " KiB")
    grown = descriptors[-1] - descriptors[0]
    yield at_most("descriptors that are no pooled connection, likewise", grown, 0)


async def _make(url: str, calls: Iterable[tuple[int, Kind]]) -> Counter[str]:
    """Make calls, and count those that were not answered as they had to be."""
    pool, patience = TCPConnector(limit=AT_ONCE), ClientTimeout(sock_read=60)
    async with ClientSession(url, connector=pool, timeout=patience) as session:
        got = await asyncio.gather(*(_call(session, *call) for call in calls))
    return Counter(filter(None, got))


async def _call(session: ClientSession, number: int, kind: Kind) -> str:
    """Make a call, and say what is wrong with its answer."""
    body, key, status, text = kind
    key = f"{key}-{MARK}-{number:04}"
    headers = provider_data(key) if number % 2 else bearer(key)
    headers |= {"content-type": "application/json"}
    try:
        async with session.post(CHAT, data=body, headers=headers) as response:
            got = b""
            if text:
                got = await response.read()
            else:
                await response.content.readany()
                response.close()
    except (ClientError, TimeoutError) as error:
        return f"{error!r} for {body[:60]!r}"
    is_right = response.status == status and text in got
    return "" if is_right else f"{response.status} for {body[:60]!r}"


def keys(stage: Stage) -> Iterator[Line]:
    """Look for the first keys in all of the process's memory, byte for byte."""
    found = set[bytes]()
    process = Path(f"/proc/{stage.server.pid}")
    with (process / "mem").open("rb", buffering=0) as memory:
        areas = re.findall(r"(?m)^(\w+)-(\w+) rw", (process / "maps").read_text())
        for start, end in areas:
            memory.seek(int(start, 16))
            data = memory.read(int(end, 16) - int(start, 16))
            found |= set(re.findall(rb"%b-(0\d{3})" % MARK.encode(), data))
    what = f"the first {KEYS_USED:,} keys: still in its memory, freed memory included"
    yield at_most(what, len(found), KEYS_USED // 4)
    yield exactly("keys in the log", stage.server.log.count(MARK), 0)


HANGING, MEASURED = 100, 500


def isolation(stage: Stage) -> Iterator[Line]:
    """Calls to one vendor while another hangs."""
    gemini, gate = stage.upstream.gemini, Gate()
    gemini.script(gate, answer(), times=None)
    yield from _others(stage, f"before {HANGING} calls to a vendor that hangs")
    with ExitStack() as opened:
        hanging = [opened.enter_context(Raw(stage.server.port)) for _ in range(HANGING)]
        for raw in hanging:
            raw.send(request(body=encoded(chat(GEMINI))))
        gemini.wait_requests(HANGING, 30)
        yield from _others(stage, "beside them")
        gate.open()
        released = [raw.answer().status for raw in hanging].count(200)
    stage.upstream.reset()
    yield exactly("hanging calls answered once the vendor is back", released, HANGING)


def _others(stage: Stage, when: str) -> Iterator[Line]:
    times, call = list[float](), request(body=encoded(chat()))
    with Raw(stage.server.port, timeout=30) as raw:
        for _ in range(MEASURED):
            start = time.monotonic()
            raw.send(call)
            times += [time.monotonic() - start] if raw.answer().status == 200 else []
    yield exactly(f"{when}: calls to another answered", len(times), MEASURED)
    yield Line("  their p50", f"{median(times or [math.inf]) * 1000:.1f} ms")


def leaving(stage: Stage) -> Iterator[Line]:
    """Callers that leave after bodies of all sizes, half of them inside a stream."""
    sizes, memory = [1, 300, 1000, 5000, 20_000] * 8, stage.server.memory()
    times = [_leave(stage, kb * 1000, n % 2) for n, kb in enumerate(sizes)]
    what = f"{len(sizes)} callers leave after bodies of 1 KB to 20 MB: noticed within"
    yield at_most(what, max(times), 1.0, " s")
    left = (stage.server.memory() - memory) // MIB
    yield at_most("memory afterwards", left, 64, " MiB")


def _leave(stage: Stage, size: int, in_stream: int) -> float:
    """Call and leave; the seconds until the upstream has noticed, `inf` if never."""
    openai, first = stage.upstream.openai, b"data: 1\n\n"
    openai.script(*(stream(first, Gate()) if in_stream else [SILENCE]))
    message = {"role": "user", "content": "x" * size}
    with Raw(stage.server.port) as raw:
        raw.send(request(body=encoded(chat(stream=True, messages=[message]))))
        (arrived,) = openai.wait_requests()
        if in_stream:
            raw.read_until(first)
        left = time.monotonic()
    arrived.disconnected.wait(3)
    openai.reset()
    return (arrived.disconnected_at or math.inf) - left


READERS, LARGE = 50, 64 * MIB


def not_reading(stage: Stage) -> Iterator[Line]:
    """Callers that ask for a large stream and read nothing of it."""
    openai, event = stage.upstream.openai, chunk(b"data: %b\n\n" % (b"x" * 16_000))
    begin = head(200, EVENTS | {"transfer-encoding": "chunked"})
    openai.script(begin, [event] * (LARGE // len(event)), times=None)
    stage.server.forget_peak()
    memory = stage.server.memory()
    with ExitStack() as opened:
        for _ in range(READERS):
            caller = opened.enter_context(socket.socket())
            # Before it connects: the window is agreed on then.
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            caller.connect(("127.0.0.1", stage.server.port))
            caller.sendall(request(body=encoded(chat(stream=True))))
        start, arrived = time.monotonic(), openai.wait_requests(READERS, 30)
        dropped = [each.disconnected.wait(CALLER_TIMEOUT * 3) for each in arrived]
        seconds = time.monotonic() - start
    taken = sum(each.written for each in arrived) // READERS // 1024
    held = (stage.server.memory("VmHWM") - memory) // READERS // 1024
    openai.reset()
    what = f"{READERS} callers read nothing of {LARGE // MIB} MiB: taken upstream, each"
    yield at_most(what, taken, LARGE // 2048, " KiB")
    # Several reads of 256 KiB are on their way at once.
    yield at_most("most memory, each", held, 2048, " KiB")
    yield exactly("upstream connections closed", sum(dropped), READERS)
    # The server looks every quarter of the time, and a busy machine makes it later.
    yield at_most("the last of them after", seconds, CALLER_TIMEOUT * 2 + 3, " s")


BODIES, BODY = 40, 60 * 1000 * 1000


def half_bodies(stage: Stage) -> Iterator[Line]:
    """Bodies that are never whole, with a key that is none, and all at once."""
    stage.server.forget_peak()
    memory = stage.server.memory()
    with ExitStack() as opened, ThreadPoolExecutor(BODIES) as pool:
        raws = [opened.enter_context(Raw(stage.server.port)) for _ in range(BODIES)]
        statuses = Counter(pool.map(_send_half, raws))
        peak = (stage.server.memory("VmHWM") - memory) // MIB
    what = f"{BODIES} half bodies of 60 MB, {IN_FLIGHT // MIB} MiB may be in flight:"
    yield at_most(f"{what} most memory", peak, IN_FLIGHT // MIB + 64, " MiB")
    yield at_most("not answered 503", BODIES - statuses[503], IN_FLIGHT // BODY)
    whole = request(body=encoded(chat(user="x" * 20 * MIB)))
    after = eventually(lambda: ask(stage.server.port, whole).status)
    yield exactly("a whole body of 20 MiB afterwards is answered", after, 200)


def _send_half(raw: Raw) -> int:
    lines = b"Content-Length: %d" % BODY, b"x-api-key: nonsense"
    raw.send(request(b"POST", CHAT, *lines, own=OWN[:2]))
    raw.send(*[b"x" * MIB] * (BODY // MIB))
    return int(raw.read_until(b"\r\n").partition(b" ")[2][:3] or 0)


ALL = (endurance, isolation, leaving, not_reading, half_bodies, keys)

# The largest counts of what the providers say.
PROVIDERS = {
    name: {"caller_timeout": CALLER_TIMEOUT, "max_bytes_in_flight": IN_FLIGHT}
    for name in ("openai", "openai-mini", "gemini", "anthropic")
}


def soak(calls: int) -> Iterator[Line]:
    """Start everything, run the parts, and stop the server."""
    with (
        tempfile.TemporaryDirectory() as name,
        in_background() as upstream,
        closing(Servers(Path(name), upstream.environment)) as servers,
    ):
        server = servers.start(Variation(providers=PROVIDERS))
        for part in ALL:
            yield from part(Stage(server, upstream, calls))
        start = time.monotonic()
        os.kill(server.pid, signal.SIGTERM)
        yield exactly("status after SIGTERM", server.wait(), 0)
        yield at_most("it took", time.monotonic() - start, 10, " s")
        traces = server.log.count("Traceback")
        yield exactly("tracebacks in the log", traces, 0)


def main() -> int:
    """Run the soak; 1 when something does not hold, or a server failed."""
    parser = argparse.ArgumentParser("python -m tests.soak")
    calls = "how many mixed calls (default: %(default)s)"
    parser.add_argument("--calls", type=int, default=10_000, metavar="N", help=calls)
    options = parser.parse_args()
    end_on_signals()
    start, lines = time.monotonic(), list[Line]()
    try:
        for line in soak(options.calls):
            print(f"{time.strftime('%H:%M:%S')}  {line.what}", file=sys.stderr)
            lines.append(line)
    except (ServerError, OSError) as error:
        sys.exit(f"soak: {error}")
    print(aligned([("", "measured", "bound", ""), *lines], range(1, 2)))
    print(f"\nin {time.monotonic() - start:.0f} s")
    return int(any(line.verdict == "FAILED" for line in lines))


if __name__ == "__main__":
    sys.exit(main())
