"""Calls to one vendor while another one hangs and a third refuses keys."""

import asyncio
import itertools
import time
from collections import Counter
from typing import NamedTuple

import aiohttp

from tests.calls import CHAT, chat
from tests.scripts import JSON
from tests.soak.figures import Figure, all_of, none_of
from tests.soak.latency import Latency, measure
from tests.soak.slow_readers import latencies
from tests.soak.stage import Stage, progress
from tests.upstream import Connection, Gate, Request

HANGING = 100
# Refused calls a second, and how many of them may be under way.
STORM = 400
_AT_ONCE = 64

_PART = "isolation"
_TICK = 0.01
_SECONDS = 120.0
_HANGING = chat("gemini/gemini-2.5-flash-lite")
_REFUSED = chat("anthropic/claude-haiku-4-5-20251001")
_GOOD = {"Authorization": "Bearer sk-good"}
# Refused by the vendor, and by the server itself.
_REFUSALS = ({"Authorization": "Bearer sk-wrong"}, {"X-No-Key": "here"})


class Storm(NamedTuple):
    """What came of the refused calls.

    Attributes:
        rate: How many were answered a second.
        others: How many were answered otherwise than with 401.
    """

    rate: float
    others: int


def isolation(stage: Stage) -> list[Figure]:
    """Measure latency alone, then with the hanging calls and the storm.

    Args:
        stage: What it runs on.
    """
    calls = min(2000, stage.calls)
    progress(f"{_PART}: latency alone")
    stage.measurer.submit(measure, stage.server.url, 20).result()
    alone = stage.measurer.submit(measure, stage.server.url, calls).result()
    progress(f"{_PART}: with {HANGING} hanging calls and a storm of refused ones")
    beside, storm, hung = asyncio.run(_beside(stage, calls))
    stage.upstream.reset()
    return [
        all_of(_PART, "calls that hung, complete once released", hung, HANGING),
        Figure(_PART, "401s a second", f"{storm.rate:.0f}"),
        none_of(_PART, "refused calls without a 401", storm.others),
        *latencies(_PART, alone, beside, calls),
    ]


async def _beside(stage: Stage, calls: int) -> tuple[Latency, Storm, int]:
    """Measure while calls hang and others are refused; then let them go."""
    gate, gemini = Gate(), stage.upstream.gemini

    async def hang(_request: Request, connection: Connection) -> None:
        await gate.wait()
        await connection.answer(200, JSON, b'{"late":true}')

    gemini.answer_with(hang)
    url = stage.server.url + CHAT
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=_SECONDS),
    ) as session:
        hanging = [
            asyncio.create_task(_status(session, url, _HANGING, _GOOD))
            for _ in range(HANGING)
        ]
        await asyncio.to_thread(
            gemini.wait_until, lambda: len(gemini.calls) == HANGING, 30
        )
        measuring = stage.measurer.submit(measure, stage.server.url, calls)
        measured = asyncio.wrap_future(measuring)
        storm = await _storm(session, url, measured)
        gate.open()
        statuses = await asyncio.gather(*hanging)
    return await measured, storm, statuses.count(200)


async def _storm(
    session: aiohttp.ClientSession, url: str, until: asyncio.Future[Latency]
) -> Storm:
    """Have calls refused, at a steady rate, until something is done."""
    start, statuses = time.monotonic(), Counter[int]()
    running: set[asyncio.Task[None]] = set()
    refusals = itertools.cycle(_REFUSALS)

    async def one(headers: dict[str, str]) -> None:
        statuses[await _status(session, url, _REFUSED, headers)] += 1

    while not until.done():
        due = int((time.monotonic() - start) * STORM) - statuses.total() - len(running)
        for _ in range(min(due, _AT_ONCE - len(running))):
            task = asyncio.create_task(one(next(refusals)))
            running.add(task)
            task.add_done_callback(running.discard)
        await asyncio.sleep(_TICK)
    seconds = time.monotonic() - start
    await asyncio.gather(*running)
    return Storm(statuses[401] / seconds, statuses.total() - statuses[401])


async def _status(
    session: aiohttp.ClientSession, url: str, body: bytes, headers: dict[str, str]
) -> int:
    """Make a call and give its status; 0 when there was no answer."""
    try:
        async with session.post(url, data=body, headers=headers) as answer:
            await answer.read()
            return answer.status
    except (aiohttp.ClientError, TimeoutError):
        return 0
