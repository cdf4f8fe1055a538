"""Ten thousand mixed calls: does the server's process stay as it is?"""

import asyncio
import math
import time
from collections import Counter
from collections.abc import Iterator

import aiohttp

from tests import process
from tests.calls import CHAT
from tests.polling import poll
from tests.soak.figures import Figure, none_of
from tests.soak.kinds import KEYS, Call, mixed
from tests.soak.stage import Stage, progress

AT_ONCE = 16
SAMPLES = 5

# In KiB, for the whole run: 0.2 KiB a call of ten thousand. Whatever is kept of a call
# is more: a dict of one entry is as large, the key in it not counted. Seen were 60 to
# 110 KiB.
GROWTH = 2048

_PART = "endurance"
_SECONDS = 60.0
# Between the events of a stream, so that a caller leaves inside it.
_PAUSE = 0.0005


def endurance(stage: Stage) -> list[Figure]:
    """Make the calls, and look at the process before and every now and then.

    Args:
        stage: What it runs on.
    """
    for vendor in stage.upstream.vendors:
        vendor.pause = _PAUSE
    progress(f"{_PART}: warm-up")
    wrong = _make(stage, mixed(max(AT_ONCE, stage.calls // SAMPLES)))
    memory, descriptors = _resident(stage), _own_descriptors(stage)
    figures, start = [], time.monotonic()
    for done in _in_parts(stage, wrong):
        figures += _sample(stage, done, memory, descriptors)
    rate = stage.calls / (time.monotonic() - start)
    for name, number in wrong.items():
        progress(f"{_PART}: {number} times {name}")
    return [
        Figure(
            _PART, f"mixed calls, {KEYS:,} keys, {AT_ONCE} at once", f"{stage.calls:,}"
        ),
        Figure(_PART, "calls a second, the mock's own time included", f"{rate:.0f}"),
        none_of(_PART, "answers that are not the expected ones", wrong.total()),
        *figures,
    ]


def _in_parts(stage: Stage, wrong: Counter[str]) -> Iterator[int]:
    """Make the calls in parts, and say after each how many there were."""
    size = math.ceil(stage.calls / SAMPLES)
    for done in range(0, stage.calls, size):
        part = min(size, stage.calls - done)
        progress(f"{_PART}: {done:,} of {stage.calls:,} calls")
        wrong += _make(stage, mixed(part, start=done))
        yield done + part


def _sample(stage: Stage, done: int, memory: int, own: int) -> list[Figure]:
    now, bound = _resident(stage), f"at most {memory + GROWTH:,}"
    flat = now <= memory + GROWTH
    poll(lambda: _own_descriptors(stage) <= own, 3)
    left = _own_descriptors(stage)
    return [
        Figure(
            _PART, f"RSS after {done:,}, KiB", f"{now:,}", f"{memory:,}", bound, flat
        ),
        Figure(
            _PART,
            "descriptors, pooled connections apart",
            str(left),
            str(own),
            f"at most {own}",
            left <= own,
        ),
    ]


def _resident(stage: Stage) -> int:
    return process.resident(stage.server.pid) // 1024


def _own_descriptors(stage: Stage) -> int:
    """The descriptors that are no connection to an upstream: those are pooled."""
    pooled = sum(vendor.open_connections for vendor in stage.upstream.vendors)
    return process.descriptors(stage.server.pid) - pooled


def _make(stage: Stage, calls: list[Call]) -> Counter[str]:
    """Make calls, and close all connections; what was recorded of them is dropped."""
    wrong = asyncio.run(_all(stage.server.url + CHAT, calls))
    for vendor in stage.upstream.vendors:
        vendor.reset()
        vendor.pause = _PAUSE
    return wrong


async def _all(url: str, calls: list[Call]) -> Counter[str]:
    """Make calls, and count those that were not answered as they had to be."""
    waiting = iter(calls)
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=AT_ONCE),
        timeout=aiohttp.ClientTimeout(total=_SECONDS),
    ) as session:
        callers = (_caller(session, url, waiting) for _ in range(AT_ONCE))
        return sum(await asyncio.gather(*callers), Counter())


async def _caller(
    session: aiohttp.ClientSession, url: str, waiting: Iterator[Call]
) -> Counter[str]:
    wrong: Counter[str] = Counter()
    for call in waiting:
        try:
            fault = await _fault(session, url, call)
        except (aiohttp.ClientError, TimeoutError) as error:
            fault = type(error).__name__
        if fault:
            wrong[f"{call.kind.name}: {fault}"] += 1
    return wrong


async def _fault(session: aiohttp.ClientSession, url: str, call: Call) -> str:
    """Make a call, and say what is wrong with its answer; nothing when it is right."""
    kind = call.kind
    async with session.post(url, data=kind.body, headers=call.headers) as answer:
        if answer.status != kind.status:
            return f"status {answer.status}"
        if kind.leaves:
            await answer.content.readany()
            left_inside = not answer.content.at_eof()
            answer.close()
            return "" if left_inside else "over before its caller left"
        return "" if kind.holds in await answer.read() else "another body"
