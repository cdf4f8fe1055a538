"""The parts of the soak: each does something to the server, and measures it."""

import asyncio
import math
import re
import socket
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import NamedTuple

import aiohttp

from tests.support import http
from tests.support.http import Raw, chat, encoded, eventually, request
from tests.support.server import Server
from tests.support.upstream import Upstream
from tests.support.vendors import KEYS
from tests.support.wire import EVENTS, SILENCE, Gate, answer, chunk, head, stream

MIB = 1024 * 1024

# Settings of the server: small, so that little is waited for.
CALLER_TIMEOUT = 5.0
# When a caller that keeps the server waiting is dropped at the latest: the server looks
# every quarter of that time, and a busy machine makes it later.
ENDED = CALLER_TIMEOUT * 2 + 3
IN_FLIGHT = 256 * MIB
QUOTA = 100


class Line(NamedTuple):
    """A line of the table; without a bound it only tells."""

    what: str
    measured: str
    bound: str = ""
    holds: bool = True


def at_most(what: str, measured: float, bound: float, unit: str = "") -> Line:
    """A figure with an upper bound."""
    words = f"at most {bound:,}{unit}"
    return Line(what, f"{round(measured, 2):,}{unit}", words, measured <= bound)


def exactly(what: str, measured: int, expected: int) -> Line:
    """A count that must be complete, or 0."""
    return Line(what, f"{measured:,}", f"{expected:,}", measured == expected)


@dataclass(frozen=True)
class Stage:
    """What a part runs on."""

    server: Server
    upstream: Upstream
    calls: int


AT_ONCE, KEYS_USED = 16, 1000
# A part of every key that is nowhere else.
MARK = "k3y0fs0ak"
VENDORS = {
    "openai/gpt-4o": "openai",
    "gemini/gemini-2.5-flash-lite": "gemini",
    "anthropic/claude-haiku-4-5-20251001": "anthropic",
}
# A call's body and key, and what the answer must be; without a text the caller leaves.
type Kind = tuple[bytes, str, int, bytes]


def _kinds() -> Iterator[Kind]:
    # Enough words that a stream is under way when its caller leaves.
    words = [{"role": "user", "content": "on and on " * 100}]
    for model, vendor in VENDORS.items():
        key, error = KEYS[vendor], b'"error"'
        whole = encoded(chat(model))
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
    everything = enumerate(cycle(_kinds()))
    memory, descriptors, wrong = [], [], Counter[str]()
    for size in (KEYS_USED, *[stage.calls // 5] * 5):
        part = list(islice(everything, size))
        start = time.monotonic()
        wrong += asyncio.run(_make(stage.server.url + http.CHAT, part))
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


async def _make(url: str, waiting: list[tuple[int, Kind]]) -> Counter[str]:
    """Make calls, and count those that were not answered as they had to be."""
    numbered, wrong = iter(waiting), Counter[str]()
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(60)) as session:

        async def caller() -> None:
            for number, kind in numbered:
                try:
                    got = await _call(session, url, number, kind)
                except (aiohttp.ClientError, TimeoutError) as error:
                    got = repr(error)
                wrong.update([f"{got} for {kind[0][:60]!r}"] if got else [])

        await asyncio.gather(*(caller() for _ in range(AT_ONCE)))
    return wrong


async def _call(
    session: aiohttp.ClientSession, url: str, number: int, kind: Kind
) -> str:
    """Make a call, and say what is wrong with its answer."""
    body, key, status, text = kind
    # The first keys are not used again.
    number = number % KEYS_USED + (KEYS_USED if number >= KEYS_USED else 0)
    key = f"{key}-{MARK}-{number:04}"
    headers = http.provider_data(key) if number % 2 else http.bearer(key)
    headers |= {"content-type": "application/json"}
    async with session.post(url, data=body, headers=headers) as response:
        if not text:
            await response.content.readany()
            response.close()
        elif text not in await response.read():
            return f"{response.status} with another body"
        return "" if response.status == status else str(response.status)


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


HANGING = 100


def isolation(stage: Stage) -> Iterator[Line]:
    """Calls to one vendor while another hangs and a wrong key is tried on and on."""
    gemini, gate, refused = stage.upstream.gemini, Gate(), Counter[int]()
    gemini.script(gate, answer(), times=None)
    hang = request(body=encoded(chat("gemini/gemini-2.5-flash-lite")))
    wrong = request(body=encoded(chat()), own=(*http.OWN[:2], NONSENSE))
    alone = _latencies(stage)
    with ExitStack() as opened, ThreadPoolExecutor(1) as pool:
        hanging = [opened.enter_context(Raw(stage.server.port)) for _ in range(HANGING)]
        for raw in hanging:
            raw.send(hang)
        gemini.wait_requests(HANGING, 30)
        beside = pool.submit(_latencies, stage)
        while not beside.done():
            refused[http.ask(stage.server.port, wrong).status] += 1
        gate.open()
        released = [raw.answer().status for raw in hanging].count(200)
    stage.upstream.reset()
    what = f"beside {HANGING} calls to a vendor that hangs: refused for a wrong key"
    yield Line(what, f"{refused[401]:,}")
    yield exactly("calls to another vendor, complete", len(beside.result()), MEASURED)
    for name, times in (("without", alone), ("with", beside.result())):
        p50, p95 = median(times) * 1000, sorted(times)[len(times) * 95 // 100] * 1000
        yield Line(f"  p50 and p95 {name} them", f"{p50:.1f} and {p95:.1f} ms")
    yield exactly("hanging calls answered once the vendor is back", released, HANGING)


MEASURED = 500


def _latencies(stage: Stage) -> list[float]:
    """The times of calls that were answered with 200, the mock's own time included."""
    times, call = [], request(body=encoded(chat()))
    with Raw(stage.server.port, timeout=30) as raw:
        for _ in range(MEASURED):
            start = time.monotonic()
            raw.send(call)
            times += [time.monotonic() - start] if raw.answer().status == 200 else []
    return times


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
    yield at_most("the last of them after", seconds, ENDED, " s")


GET = request(b"GET", http.MODELS)
GET_WITH_BODY = request(b"GET", http.MODELS, b"Content-Length: 9")
POST = request(b"POST", http.CHAT, b"Content-Length: 9")
NO_KEY = request(b"POST", http.CHAT, b"Content-Length: 9", own=http.OWN[:2])
# What a caller sends, and what else after the answer to that; then nothing more.
SILENT = {
    "nothing": (b"", b""),
    "half a head": (GET[:20], b""),
    "half a body": (POST + b"x", b""),
    "an empty line after an answer": (GET, b"\r\n"),
    "a byte of a body after a 401": (NO_KEY, b"x"),
    "a byte of a body after a 200": (GET_WITH_BODY, b"x"),
}
EACH = 20


def silent(stage: Stage) -> Iterator[Line]:
    """Callers that go silent in every state of a connection."""
    with ExitStack() as opened:
        callers: dict[str, list[Raw]] = {name: [] for name in SILENT}
        for name, (first, then) in list(SILENT.items()) * EACH:
            raw = opened.enter_context(Raw(stage.server.port))
            callers[name].append(raw)
            raw.send(first)
            if then:
                raw.answer()
                raw.send(then)
        end = time.monotonic() + ENDED
        for name, raws in callers.items():
            ended = sum(raw.closed(max(0.01, end - time.monotonic())) for raw in raws)
            yield exactly(f"{EACH} send {name}: ended within {ENDED} s", ended, EACH)


NONSENSE = b"x-api-key: nonsense"
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
    after = eventually(lambda: http.ask(stage.server.port, whole).status)
    yield exactly("a whole body of 20 MiB afterwards is answered", after, 200)


def _send_half(raw: Raw) -> int:
    length = b"Content-Length: %d" % BODY
    raw.send(request(b"POST", http.CHAT, length, own=(*http.OWN[:2], NONSENSE)))
    raw.send(*[b"x" * MIB] * (BODY // MIB))
    return int(raw.read_until(b"\r\n").partition(b" ")[2][:3] or 0)


def pouring(stage: Stage) -> Iterator[Line]:
    """Callers that send on and on after they were refused."""
    chunked = b"Transfer-Encoding: chunked"
    begun = request(b"POST", http.CHAT, chunked, own=http.OWN[:2])
    for name, start, piece in (
        ("a 401", begun, chunk(b"x" * MIB)),
        ("a 400", b"no HTTP\r\n\r\n", b"x" * MIB),
    ):
        taken = 0
        with socket.create_connection(("127.0.0.1", stage.server.port), 10) as caller:
            caller.sendall(start)
            with suppress(ConnectionError):
                while taken < 4096:
                    caller.sendall(piece)
                    taken += 1
        yield at_most(f"taken of a body that goes on after {name}", taken, 600, " MiB")


FORWARDED = 5000


def forwarded(stage: Stage) -> Iterator[Line]:
    """Invented addresses in X-Forwarded-For: nobody's quota, and nothing is kept."""
    memory, statuses = stage.server.memory(), Counter[int]()
    with Raw(stage.server.port) as raw:
        for number in range(FORWARDED):
            address = b"X-Forwarded-For: 10.9.%d.%d" % divmod(number, 256)
            raw.send(request(b"GET", http.MODELS, address))
            statuses[raw.answer("GET").status] += 1
    grown = (stage.server.memory() - memory) // 1024
    what = f"{FORWARDED:,} addresses in X-Forwarded-For, a quota of {QUOTA}: served"
    yield at_most(what, statuses[200], QUOTA)
    yield at_most("memory afterwards", grown, 2048, " KiB")
