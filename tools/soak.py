"""`python -m tools.soak` (`make soak`): whether the server stays as it is.

Over many calls, and beside callers that hurt it: the mock upstream, the real server,
and a table of what was looked at, what was measured, and its bound. Each part does
something to the server, and measures it.
"""

import argparse
import math
import os
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from functools import partial
from itertools import chain, cycle, islice, product
from multiprocessing.pool import ThreadPool
from pathlib import Path
from statistics import median

import httpx

from tests.support import http
from tests.support.http import KEYS, RawConnection, chat, request, to_json
from tests.support.run_yaml import PROVIDERS, Variation
from tests.support.server import Server, ServerError, Servers
from tests.support.upstream import Upstream, in_background
from tests.support.wire import (
    FIRST_EVENT,
    JSON,
    SILENCE,
    Gate,
    Step,
    chunk,
    respond,
    stream,
)
from tools.cli import align, exit_on_signals
from tools.mock.vendors import DIALECTS

MIB = http.MEBIBYTE
# Settings of the server: small, so that little is waited for.
CALLER_TIMEOUT = 5.0
IN_FLIGHT = 256 * MIB
# The largest counts of what the providers say.
SETTINGS = {"client_timeout": CALLER_TIMEOUT, "max_bytes_in_flight": IN_FLIGHT}
VARIATION = Variation(providers=dict.fromkeys(PROVIDERS, SETTINGS))
# Calls at once, and after how many a key comes again.
AT_ONCE, KEYS_USED = 16, 1000
# A part of every key that is nowhere else.
MARK = "k3y0fs0ak"
HANGING, MEASURED = 100, 500
READERS, LARGE = 50, 64 * MIB
BODIES, BODY = 40, 60 * 1000 * 1000

# What was looked at, what was measured, its bound, and whether it holds; without a
# bound a line only tells.
type Line = tuple[str, str, str, str]
# A call's body and key, and what the answer must be; without a text the caller leaves.
type Kind = tuple[bytes, str, int, bytes]


def at_most(what: str, measured: float, bound: float, unit: str = "") -> Line:
    verdict = "ok" if measured <= bound else "FAILED"
    return what, f"{round(measured, 2):,}{unit}", f"at most {bound:,}{unit}", verdict


def exactly(what: str, measured: int, expected: int) -> Line:
    verdict = "ok" if measured == expected else "FAILED"
    return what, f"{measured:,}", f"{expected:,}", verdict


def endurance(server: Server, upstream: Upstream, calls: int) -> Iterator[Line]:
    """Mixed calls: does the process stay as it is?"""
    # The first keys are not used again.
    numbers = chain(range(KEYS_USED), cycle(range(KEYS_USED, 2 * KEYS_USED)))
    everything = zip(numbers, cycle(_kinds()), strict=False)
    memory, descriptors, wrong = [], [], Counter[str]()
    for size in (KEYS_USED, *[calls // 5] * 5):
        start = time.monotonic()
        with (
            httpx.Client(base_url=server.url, trust_env=False, timeout=60) as client,
            # Unlike an executor it drops what is left when a signal ends all.
            ThreadPool(AT_ONCE) as pool,
        ):
            got = pool.imap(partial(_call, client), islice(everything, size))
            wrong += Counter(filter(None, got))
        rate = size / (time.monotonic() - start)
        upstream.reset()
        with RawConnection(server.port) as raw:
            # Once this is answered, it has seen that the others are closed.
            raw.send(http.HEALTH_REQUEST)
            raw.read_response()
            memory.append(server.memory() // 1024)
            pooled = sum(vendor.open_connections for vendor in upstream.vendors)
            descriptors.append(server.open_files() - pooled)
    what = f"{calls:,} mixed calls, {KEYS_USED:,} keys, {AT_ONCE} at once"
    yield what, f"{rate:.0f}/s", "", ""
    yield exactly("answers other than expected", wrong.total(), 0)
    yield from ((f"  {fault}", f"{count:,}", "", "") for fault, count in wrong.items())
    what = f"memory, above that after {KEYS_USED:,} calls more"
    yield at_most(what, max(memory) - memory[0], 2048, " KiB")
    grown = descriptors[-1] - descriptors[0]
    yield at_most("descriptors that are no pooled connection, likewise", grown, 0)


def _kinds() -> Iterator[Kind]:
    # Enough words that a stream is under way when its caller leaves.
    words = [{"role": "user", "content": "on and on " * 100}]
    for model in (http.MODEL, http.GEMINI_MODEL, http.CLAUDE_MODEL):
        vendor, error = model.partition("/")[0], b'"error"'
        whole, key = to_json(chat(model)), KEYS[vendor]
        yield whole, key, 200, b"heard: hello"
        yield to_json(chat(model, stream=True)), key, 200, b"data: [DONE]"
        yield to_json(chat(model, stream=True, messages=words)), key, 200, b""
        yield whole, "wrong", 400 if vendor == "gemini" else 401, error
        yield to_json(chat(f"{vendor}/rate-limited")), key, 429, error
        yield to_json(chat(f"{vendor}/no-such-model")), key, 404, error
        yield to_json(chat(f"{vendor}/breaks-off")), key, 502, error
        yield whole[:-1], key, 400, error


def _call(client: httpx.Client, call: tuple[int, Kind]) -> str:
    """Make a call, and say what is wrong with its answer."""
    number, (body, key, status, text) = call
    key = f"{key}-{MARK}-{number:04}"
    headers = http.provider_data(key) if number % 2 else http.bearer(key)
    sent = client.stream("POST", http.CHAT, content=body, headers=headers | JSON)
    try:
        with sent as response:
            told = f"{response.status_code}"
            got = response.read() if text else next(response.iter_raw())
    except httpx.HTTPError as error:
        told, got = f"{error!r}", b""
    is_right = told == f"{status}" and text in got
    return "" if is_right else f"{told} for {body[:60]!r}"


def isolation(server: Server, upstream: Upstream) -> Iterator[Line]:
    """Calls to one vendor while another hangs."""
    gate = Gate()
    upstream.gemini.script(gate, respond(), times=None)
    yield from _others(server, f"before {HANGING} calls to a vendor that hangs")
    with ExitStack() as opened:
        hanging = [
            opened.enter_context(RawConnection(server.port)) for _ in range(HANGING)
        ]
        for raw in hanging:
            raw.send(request(body=to_json(chat(http.GEMINI_MODEL))))
        upstream.gemini.wait_requests(HANGING, 30)
        yield from _others(server, "beside them")
        gate.open()
        released = [raw.read_response().status for raw in hanging].count(200)
    yield exactly("hanging calls answered once the vendor is back", released, HANGING)
    upstream.reset()


def _others(server: Server, when: str) -> Iterator[Line]:
    times = list[float]()
    with RawConnection(server.port, timeout=30) as raw:
        for _ in range(MEASURED):
            start = time.monotonic()
            raw.send(http.CHAT_REQUEST)
            times += (
                [time.monotonic() - start] if raw.read_response().status == 200 else []
            )
    yield exactly(f"{when}: calls to another answered", len(times), MEASURED)
    yield "  their p50", f"{median(times or [math.inf]) * 1000:.1f} ms", "", ""


def leaving(server: Server, upstream: Upstream) -> Iterator[Line]:
    """Callers that leave after bodies of all sizes, half of them inside a stream."""
    times, memory = list[float](), server.memory()
    ways: list[tuple[bytes, list[Step]]]
    ways = [(b"", [SILENCE]), (FIRST_EVENT, stream(FIRST_EVENT, Gate()))]
    for kb, (seen, steps) in product([1, 300, 1000, 5000, 20_000] * 4, ways):
        upstream.openai.script(*steps)
        with RawConnection(server.port) as raw:
            raw.send(request(body=to_json(chat(stream=True, user="x" * kb * 1000))))
            (arrived,) = upstream.openai.wait_requests()
            raw.read_until(seen)
            left = time.monotonic()
        noticed = arrived.disconnected.wait(3)
        times.append(time.monotonic() - left if noticed else math.inf)
        upstream.openai.reset()
    what = f"{len(times)} callers leave after bodies of 1 KB to 20 MB: noticed within"
    yield at_most(what, max(times), 1.0, " s")
    grown = (server.memory() - memory) // MIB
    yield at_most("memory afterwards", grown, 64, " MiB")


def not_reading(server: Server, upstream: Upstream) -> Iterator[Line]:
    """Callers that ask for a large stream and read nothing of it."""
    openai, piece = upstream.openai, chunk(b"x" * 16_000 + b"\n\n")
    openai.script(stream()[0], [piece] * (LARGE // len(piece)), times=None)
    growth = server.measure_growth()
    with ExitStack() as opened:
        for _ in range(READERS):
            opened.enter_context(RawConnection(server.port)).send(
                http.STREAMING_REQUEST
            )
        start, arrived = time.monotonic(), openai.wait_requests(READERS, 30)
        dropped = [each.disconnected.wait(CALLER_TIMEOUT * 3) for each in arrived]
        seconds = time.monotonic() - start
    taken = sum(each.written for each in arrived) // READERS // 1024
    held = growth() // READERS // 1024
    what = f"{READERS} callers read nothing of {LARGE // MIB} MiB: taken upstream, each"
    yield at_most(what, taken, LARGE // 2048, " KiB")
    # Several reads of 256 KiB are on their way at once.
    yield at_most("most memory, each", held, 2048, " KiB")
    yield exactly("upstream connections closed", sum(dropped), READERS)
    # The server looks every quarter of the time, and a busy machine makes it later.
    yield at_most("the last of them after", seconds, CALLER_TIMEOUT * 2 + 3, " s")
    upstream.reset()


def half_bodies(server: Server) -> Iterator[Line]:
    """Bodies that are never whole, with a key that is none, and all at once."""
    growth = server.measure_growth()
    with ThreadPoolExecutor(BODIES) as pool:
        statuses = list(pool.map(_send_half, [server.port] * BODIES))
    peak = growth() // MIB
    what = f"{BODIES} half bodies of 60 MB, {IN_FLIGHT // MIB} MiB may be in flight:"
    yield at_most(f"{what} most memory", peak, IN_FLIGHT // MIB + 64, " MiB")
    not_refused = BODIES - statuses.count(b"HTTP/1.1 503")
    yield at_most("not answered 503", not_refused, IN_FLIGHT // BODY)
    whole = request(body=to_json(chat(user="x" * 20 * MIB)))
    after = http.exchange(server.port, whole).status
    yield exactly("a whole body of 20 MiB afterwards is answered", after, 200)


def _send_half(port: int) -> bytes:
    """Give the beginning of the answer, if there is one."""
    lines = b"Content-Length: %d" % BODY, b"x-api-key: nonsense"
    with RawConnection(port) as raw:
        raw.send(request(b"POST", http.CHAT, *lines, headers=http.DEFAULT_HEADERS[:2]))
        raw.send(*[b"x" * MIB] * (BODY // MIB))
        return raw.read(12)


def keys(server: Server) -> Iterator[Line]:
    """Look for the first keys in all of the process's memory, byte for byte."""
    found = set[bytes]()
    maps = Path(f"/proc/{server.pid}/maps").read_text()
    with Path(f"/proc/{server.pid}/mem").open("rb", buffering=0) as memory:
        for start, end in re.findall(r"(?m)^(\w+)-(\w+) rw", maps):
            memory.seek(int(start, 16))
            data = memory.read(int(end, 16) - int(start, 16))
            found |= set(re.findall(rb"%b-(0\d{3})" % MARK.encode(), data))
    what = f"the first {KEYS_USED:,} keys: still in its memory, freed memory included"
    yield at_most(what, len(found), KEYS_USED // 4)
    yield exactly("keys in the log", server.log.count(MARK), 0)


def ending(server: Server) -> Iterator[Line]:
    start = time.monotonic()
    os.kill(server.pid, signal.SIGTERM)
    yield exactly("status after SIGTERM", server.wait_exit(), 0)
    yield at_most("it took", time.monotonic() - start, 10, " s")
    yield exactly("tracebacks in the log", server.log.count("Traceback"), 0)


def main() -> int:
    """Run the soak; 1 when something does not hold, or a server failed."""
    parser = argparse.ArgumentParser("python -m tools.soak")
    calls = "how many mixed calls (default: %(default)s)"
    parser.add_argument("--calls", type=int, default=10_000, metavar="N", help=calls)
    options = parser.parse_args()
    exit_on_signals()
    start, lines = time.monotonic(), list[Line]()
    try:
        with (
            tempfile.TemporaryDirectory() as name,
            in_background(**DIALECTS) as upstream,
            closing(Servers(Path(name), upstream.environment)) as servers,
        ):
            server = servers.start(VARIATION)
            calling = [endurance(server, upstream, options.calls)]
            calling += [p(server, upstream) for p in (isolation, leaving, not_reading)]
            alone = [part(server) for part in (half_bodies, keys, ending)]
            for line in chain(*calling, *alone):
                print(f"{time.strftime('%H:%M:%S')}  {line[0]}", file=sys.stderr)
                lines.append(line)
    except (ServerError, OSError) as error:
        sys.exit(f"soak: {error}")
    print(align([("", "measured", "bound", ""), *lines], range(1, 2)))
    print(f"\nin {time.monotonic() - start:.0f} s")
    return int(any("FAILED" in line for line in lines))


if __name__ == "__main__":
    sys.exit(main())
