"""Thousands of mixed calls: whether memory and descriptors stay, and keys go."""

import re
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from itertools import chain, cycle, islice
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import NamedTuple

import httpx

from tests.support.http import (
    CHAT,
    CLAUDE_MODEL,
    GEMINI_MODEL,
    HEALTH_REQUEST,
    KEYS,
    MODEL,
    RawConnection,
    bearer,
    chat,
    provider_data,
    to_json,
)
from tests.support.server import Server
from tests.support.upstream import Upstream
from tests.support.wire import JSON
from tools.mock.vendors import BREAKING, RATE_LIMITED
from tools.soak.report import Line, at_most, exactly, info, title

AT_ONCE = 16
# Each key is used once among the first calls; later ones use as many other keys.
KEYS_USED = 1000
# A part of every key that occurs nowhere else in the server.
_MARK = "k3y0fs0ak"
_PARTS = 5


class _Call(NamedTuple):
    """A request and the expected response; without `text` the client disconnects."""

    body: bytes
    key: str
    status: int
    text: bytes


def endurance(server: Server, upstream: Upstream, count: int) -> Iterator[Line]:
    """Send `count` mixed calls, and compare the process before and after."""
    numbers = chain(range(KEYS_USED), cycle(range(KEYS_USED, 2 * KEYS_USED)))
    calls = zip(numbers, cycle(_calls()), strict=False)
    memory, descriptors, unexpected = [], [], Counter[str]()
    start = time.monotonic()
    for size in (KEYS_USED, *[count // _PARTS] * _PARTS):
        unexpected += _run(server.url, islice(calls, size))
        upstream.reset()
        with RawConnection(server.port) as connection:
            # Its response shows that the server has seen the others disconnect.
            connection.send(HEALTH_REQUEST)
            connection.read_response()
            memory.append(server.memory() // 1024)
            pooled = sum(vendor.open_connections for vendor in upstream.vendors)
            descriptors.append(server.open_files() - pooled)
    rate = (KEYS_USED + count) / (time.monotonic() - start)
    yield title(f"{count:,} mixed calls, {AT_ONCE} at once")
    yield info("calls/s", f"{rate:,.0f}")
    yield exactly("unexpected responses", unexpected.total(), 0)
    yield from (info(f"  {what}", f"{n:,}") for what, n in unexpected.items())
    # In the first half, caches and the allocator's pools still fill.
    growth = max(memory) - memory[len(memory) // 2]
    yield at_most("memory growth in the second half", growth, 1024, " KiB")
    leaked = descriptors[-1] - descriptors[0]
    yield at_most("more descriptors, less the pooled connections", leaked, 0)


def _calls() -> Iterator[_Call]:
    # Enough words that the stream still runs when its client disconnects.
    long = [{"role": "user", "content": "on and on " * 100}]
    for model in (MODEL, GEMINI_MODEL, CLAUDE_MODEL):
        vendor, error = model.partition("/")[0], b'"error"'
        key, body = KEYS[vendor], to_json(chat(model))
        yield _Call(body, key, 200, b"heard: hello")
        yield _Call(to_json(chat(model, stream=True)), key, 200, b"data: [DONE]")
        yield _Call(to_json(chat(model, stream=True, messages=long)), key, 200, b"")
        yield _Call(body, "wrong", 400 if vendor == "gemini" else 401, error)
        yield _Call(to_json(chat(f"{vendor}/{RATE_LIMITED}")), key, 429, error)
        yield _Call(to_json(chat(f"{vendor}/no-such-model")), key, 404, error)
        yield _Call(to_json(chat(f"{vendor}/{BREAKING}")), key, 502, error)
        yield _Call(body[:-1], key, 400, error)


def _run(url: str, calls: Iterator[tuple[int, _Call]]) -> Counter[str]:
    with (
        httpx.Client(base_url=url, trust_env=False, timeout=60) as client,
        # Unlike an executor, it drops the waiting calls when a signal ends the soak.
        ThreadPool(AT_ONCE) as pool,
    ):
        return Counter(filter(None, pool.imap(partial(_make, client), calls)))


def _make(client: httpx.Client, numbered: tuple[int, _Call]) -> str:
    """Send a call; return a description of an unexpected outcome."""
    number, call = numbered
    key = f"{call.key}-{_MARK}-{number:04}"
    headers = JSON | (provider_data(key) if number % 2 else bearer(key))
    try:
        with client.stream("POST", CHAT, content=call.body, headers=headers) as got:
            text = got.read() if call.text else next(got.iter_raw())
            outcome = str(got.status_code)
    except httpx.HTTPError as error:
        outcome, text = repr(error), b""
    is_expected = outcome == str(call.status) and call.text in text
    return "" if is_expected else f"{outcome} for {call.body[:60]!r}"


def keys(server: Server) -> Iterator[Line]:
    """Search the memory of the process for the keys that were used first."""
    found = set[bytes]()
    maps = Path(f"/proc/{server.pid}/maps").read_text()
    with Path(f"/proc/{server.pid}/mem").open("rb", buffering=0) as memory:
        for start, end in re.findall(r"(?m)^(\w+)-(\w+) rw", maps):
            memory.seek(int(start, 16))
            data = memory.read(int(end, 16) - int(start, 16))
            found |= set(re.findall(rb"%b-(0\d{3})" % _MARK.encode(), data))
    yield title(f"The first {KEYS_USED:,} keys afterwards")
    # Freed memory keeps some until it is reused.
    yield at_most("found in memory, freed memory included", len(found), KEYS_USED // 4)
    yield exactly("found in the log", server.log.count(_MARK), 0)
