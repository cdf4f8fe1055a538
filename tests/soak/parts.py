"""The parts of the soak: each does something to the server, and measures it."""

import asyncio
import http.client
import json
import math
import socket
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import NamedTuple

import aiohttp

from tests.bench.peers import HEADERS, PATH, request_body
from tests.support import http as calls
from tests.support.http import Raw, chat, encoded, eventually, request
from tests.support.server import Server
from tests.support.upstream import Upstream
from tests.support.vendors import KEYS
from tests.support.wire import EVENTS, SILENCE, Gate, answer, chunk, head, stream

MIB = 1024 * 1024

# Settings of the server: small, so that little is waited for.
CALLER_TIMEOUT = 5.0
IN_FLIGHT = 256 * MIB
QUOTA = 100

# The provider whose upstream is a process of its own: nothing here slows it down.
QUICK = "quick"


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
    inside: Path
    measurer: Executor
    calls: int


AT_ONCE = 16
USED_KEYS = 1000
# A part of every key that is nowhere else.
MARK = "k3y0fs0ak"
VENDORS = {
    "openai/gpt-4o": "openai",
    "gemini/gemini-2.5-flash-lite": "gemini",
    "anthropic/claude-haiku-4-5-20251001": "anthropic",
}


class Kind(NamedTuple):
    """A kind of call: its body, and what has to come of it."""

    body: bytes
    key: str
    status: int = 200
    holds: bytes = b'"error"'
    leaves: bool = False


def _kinds() -> Iterator[Kind]:
    # Enough words that a stream is under way when its caller leaves.
    words = [{"role": "user", "content": "on and on " * 100}]
    for model, vendor in VENDORS.items():
        key, refused = KEYS[vendor], 400 if vendor == "gemini" else 401
        long = encoded(chat(model, stream=True, messages=words))
        yield Kind(encoded(chat(model)), key, holds=b"heard: hello")
        yield Kind(encoded(chat(model, stream=True)), key, holds=b"data: [DONE]")
        yield Kind(long, key, leaves=True)
        yield Kind(encoded(chat(model)), "wrong", refused)
        yield Kind(encoded(chat(f"{vendor}/rate-limited")), key, 429)
        yield Kind(encoded(chat(f"{vendor}/no-such-model")), key, 404)
        yield Kind(encoded(chat(f"{vendor}/breaks-off")), key, 502)
        yield Kind(encoded(chat(model))[:-1], key, 400)


def endurance(stage: Stage) -> Iterator[Line]:
    """Mixed calls: does the process stay as it is?"""
    everything = zip(range(stage.calls), cycle(_kinds()), strict=False)
    start, wrong = time.monotonic(), Counter[str]()
    memory, descriptors = [], []
    while part := list(islice(everything, math.ceil(stage.calls / 5))):
        wrong += asyncio.run(_make(stage.server.url + calls.CHAT, part))
        stage.upstream.reset()
        memory.append(stage.server.memory() // 1024)
        # Those to an upstream are pooled.
        pooled = sum(vendor.open_connections for vendor in stage.upstream.vendors)
        descriptors.append(stage.server.descriptors() - pooled)
    rate = stage.calls / (time.monotonic() - start)
    what = f"{stage.calls:,} mixed calls with {USED_KEYS:,} keys, {AT_ONCE} at once"
    yield Line(what, f"{rate:.0f}/s")
    yield exactly("answers other than expected", wrong.total(), 0)
    yield from (Line(f"  {fault}", f"{count:,}") for fault, count in wrong.items())
    grown = max(memory) - memory[0]
    yield at_most("memory, above that after a fifth of them", grown, 2048, " KiB")
    grown = descriptors[-1] - descriptors[0]
    yield at_most("descriptors that are no pooled connection, likewise", grown, 0)


async def _make(url: str, waiting: list[tuple[int, Kind]]) -> Counter[str]:
    """Make calls, and count those that were not answered as they had to be."""
    numbered, wrong = iter(waiting), Counter[str]()
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(60)) as session:

        async def caller() -> None:
            for number, kind in numbered:
                try:
                    fault = await _fault(session, url, number, kind)
                except (aiohttp.ClientError, TimeoutError) as error:
                    fault = repr(error)
                if fault:
                    wrong[f"{fault} for {kind.body[:60]!r}"] += 1

        await asyncio.gather(*(caller() for _ in range(AT_ONCE)))
    return wrong


async def _fault(
    session: aiohttp.ClientSession, url: str, number: int, kind: Kind
) -> str:
    key = f"{kind.key}-{MARK}-{number % USED_KEYS:04}"
    headers = calls.provider_data(key) if number % 2 else calls.bearer(key)
    headers |= {"content-type": "application/json"}
    async with session.post(url, data=kind.body, headers=headers) as response:
        if response.status != kind.status:
            return f"status {response.status}"
        if kind.leaves:
            await response.content.readany()
            response.close()
        elif kind.holds not in await response.read():
            return "another body"
        return ""


def keys(stage: Stage) -> Iterator[Line]:
    """What still refers to a used key; a search that finds none ever shows nothing."""
    openai = stage.upstream.openai
    openai.script(SILENCE)
    with Raw(stage.server.port) as raw:
        key = b"Authorization: Bearer " + MARK.encode()
        raw.send(request(body=encoded(chat()), own=(*calls.OWN[:2], key)))
        openai.wait_requests()
        running = len(_holders(stage))
    openai.reset()
    # What is over may take a moment to be let go of.
    with suppress(AssertionError):
        eventually(lambda: not _holders(stage), 20)
    what, held = "objects that hold the key of a running call", f"{running}"
    yield Line(what, held, "at least 1", running > 0)
    yield exactly("objects that hold a used key", len(_holders(stage)), 0)
    yield exactly("used keys in the log", stage.server.log.count(MARK), 0)


def _holders(stage: Stage) -> list[str]:
    with socket.socket(socket.AF_UNIX) as asking, asking.makefile("rwb") as question:
        asking.settimeout(60)
        asking.connect(str(stage.inside))
        question.write(MARK.encode().hex().encode() + b"\n")
        question.flush()
        found: list[str] = json.loads(question.read())
        return found


HANGING = 100


def isolation(stage: Stage) -> Iterator[Line]:
    """Calls to one vendor while another hangs and callers with wrong keys storm."""
    count, gemini, gate = min(1000, stage.calls), stage.upstream.gemini, Gate()
    measure = partial(stage.measurer.submit, latencies, stage.server.port, count)
    alone = measure().result()
    gemini.script(gate, answer(), times=None)
    hang = request(body=encoded(chat("gemini/gemini-2.5-flash-lite")))
    wrong = request(body=encoded(chat()), own=(*calls.OWN[:2], NONSENSE))
    with ExitStack() as opened:
        hanging = [opened.enter_context(Raw(stage.server.port)) for _ in range(HANGING)]
        for raw in hanging:
            raw.send(hang)
        gemini.wait_requests(HANGING, 30)
        beside, refused = measure(), Counter[int]()
        with Raw(stage.server.port) as raw:
            while not beside.done():
                raw.send(wrong * 8)
                refused.update(raw.answer().status for _ in range(8))
        gate.open()
        released = [raw.answer().status for raw in hanging].count(200)
    stage.upstream.reset()
    what = f"beside {HANGING} calls to a vendor that hangs, and"
    yield Line(f"{what} calls with a wrong key", f"{refused[401]:,}")
    complete = len(beside.result())
    yield exactly("calls to another vendor, complete", complete, count)
    for name, times in (("alone", alone), ("beside them", beside.result())):
        p50, p95 = median(times) * 1000, sorted(times)[len(times) * 95 // 100] * 1000
        yield Line(f"  {name}: p50 and p95", f"{p50:.2f} and {p95:.2f} ms")
    yield exactly("hanging calls answered once the vendor is back", released, HANGING)


def latencies(port: int, count: int) -> list[float]:
    """The times of calls to the quick upstream that were answered with 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    body, times = request_body("regular", f"{QUICK}/m"), []
    for _ in range(count):
        start = time.perf_counter()
        connection.request("POST", PATH, body, HEADERS)
        response = connection.getresponse()
        if response.read() and response.status == http.client.OK:
            times.append(time.perf_counter() - start)
    connection.close()
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


FORWARDED = 5000
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
    what = f"{READERS} callers read nothing of {LARGE // MIB} MiB:"
    yield at_most(
        f"{what} taken from the upstream for each", taken, LARGE // 2048, " KiB"
    )
    # Several reads of 256 KiB are on their way at once.
    yield at_most("most memory for each", held, 2048, " KiB")
    yield exactly("upstream connections closed", sum(dropped), READERS)
    bound = CALLER_TIMEOUT * 1.5 + 3
    yield at_most(f"after (caller_timeout: {CALLER_TIMEOUT} s)", seconds, bound, " s")


GET = request(b"GET", calls.MODELS)
GET_WITH_BODY = request(b"GET", calls.MODELS, b"Content-Length: 9")
POST = request(b"POST", calls.CHAT, b"Content-Length: 9")
NO_KEY = request(b"POST", calls.CHAT, b"Content-Length: 9", own=calls.OWN[:2])
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
    bound = CALLER_TIMEOUT * 1.5 + 3
    with ExitStack() as opened:
        start, callers = time.monotonic(), dict[str, list[Raw]]()
        for name, (first, then) in SILENT.items():
            callers[name] = [
                opened.enter_context(Raw(stage.server.port)) for _ in range(EACH)
            ]
            for raw in callers[name]:
                raw.send(first)
            for raw in callers[name] if then else []:
                raw.answer()
                raw.send(then)
        for name, raws in callers.items():
            left = bound - (time.monotonic() - start)
            ended = sum(raw.closed(max(left, 0.01)) for raw in raws)
            yield exactly(f"{EACH} send {name}: ended within {bound} s", ended, EACH)


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
    few = BODIES - IN_FLIGHT // BODY
    yield Line(
        "of them answered 503",
        f"{statuses[503]}",
        f"at least {few}",
        statuses[503] >= few,
    )
    whole = request(body=encoded(chat(user="x" * 20 * MIB)))
    after = eventually(lambda: calls.ask(stage.server.port, whole).status)
    yield exactly("a whole body of 20 MiB afterwards is answered", after, 200)


def _send_half(raw: Raw) -> int:
    length = b"Content-Length: %d" % BODY
    raw.send(request(b"POST", calls.CHAT, length, own=(*calls.OWN[:2], NONSENSE)))
    raw.send(*[b"x" * MIB] * (BODY // MIB))
    return int(raw.read_until(b"\r\n").partition(b" ")[2][:3] or 0)


def pouring(stage: Stage) -> Iterator[Line]:
    """Callers that send on and on after they were refused."""
    chunked = b"Transfer-Encoding: chunked"
    begun = request(b"POST", calls.CHAT, chunked, own=calls.OWN[:2])
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


def forwarded(stage: Stage) -> Iterator[Line]:
    """Invented addresses in X-Forwarded-For: nobody's quota, and nothing is kept."""
    memory, statuses = stage.server.memory(), Counter[int]()
    with Raw(stage.server.port) as raw:
        for number in range(FORWARDED):
            address = b"X-Forwarded-For: 10.9.%d.%d" % divmod(number, 256)
            raw.send(request(b"GET", calls.MODELS, address))
            statuses[raw.answer("GET").status] += 1
    grown = (stage.server.memory() - memory) // 1024
    what = f"{FORWARDED:,} addresses in X-Forwarded-For, a quota of {QUOTA}: served"
    yield at_most(what, statuses[200], QUOTA)
    yield at_most("memory afterwards", grown, 2048, " KiB")
