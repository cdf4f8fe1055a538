"""The lines of the soak's report, and the well-behaved client beside an attack."""

import math
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager
from statistics import median
from typing import Self, override

from tests.support.http import (
    CHAT,
    CLAUDE_MODEL,
    HEADERS_WITHOUT_KEY,
    KEYS,
    chat,
    exchange,
    request,
    to_json,
)
from tools.cli import align

MIB = 1024 * 1024

# The name of a measurement, its value, the bound, and whether it holds; a title has
# its text alone.
type Line = tuple[str, str, str, str]


def title(text: str) -> Line:
    return text, "", "", ""


def info(what: str, value: str) -> Line:
    return f"  {what}", value, "", ""


def at_most(what: str, measured: float, bound: float, unit: str = "") -> Line:
    verdict = "ok" if measured <= bound else "FAILED"
    return f"  {what}", f"{round(measured, 2):,}{unit}", f"<= {bound:,}{unit}", verdict


def exactly(what: str, measured: int, expected: int) -> Line:
    verdict = "ok" if measured == expected else "FAILED"
    return f"  {what}", f"{measured:,}", f"{expected:,}", verdict


def render(lines: list[Line]) -> str:
    """Return the report: titles, and below them aligned measurements."""
    rows = iter(align([line for line in lines if line[1]], right=[1]).splitlines())
    return "\n".join(next(rows) if line[1] else f"\n{line[0]}" for line in lines)


# A body of 40 KB to a vendor that no attack uses.
_CALL = request(
    b"POST",
    CHAT,
    b"Authorization: Bearer " + KEYS["anthropic"].encode(),
    body=to_json(chat(CLAUDE_MODEL, user="x" * 40_000)),
    headers=HEADERS_WITHOUT_KEY,
)
_PAUSE, LONGEST_CALL = 0.05, 2.0


class Bystander(AbstractContextManager["Bystander"]):
    """A well-behaved client that makes one call after another during an attack."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._times: list[float] = []
        self._failed = Counter[str]()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @override
    def __enter__(self) -> Self:
        self._thread.start()
        return self

    @override
    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)

    def _run(self) -> None:
        while not self._stop.is_set():
            start = time.monotonic()
            outcome = self.call()
            self._times.append(time.monotonic() - start)
            if outcome != "200":
                self._failed[outcome] += 1
            self._stop.wait(_PAUSE)

    def call(self) -> str:
        """Return the status of one call, or the name of the exception."""
        try:
            return str(exchange(self._port, _CALL).status)
        except (OSError, AssertionError) as error:
            return type(error).__name__

    def wait_success(self, seconds: float) -> float:
        """Call until one succeeds; return the seconds, or infinity after `seconds`."""
        start = time.monotonic()
        while (took := time.monotonic() - start) < seconds:
            if self.call() == "200":
                return took
            time.sleep(_PAUSE)
        return math.inf

    def report(self, *, may_fail: bool = False) -> Iterator[Line]:
        """Report what the client saw."""
        count, failed = len(self._times), self._failed.total()
        name = "failed calls of another client"
        if may_fail:
            yield info(name, f"{failed:,} of {count:,}")
        else:
            yield exactly(f"{name}, of {count:,}", failed, 0)
        for outcome, number in self._failed.items():
            yield info(f"  {outcome}", f"{number:,}")
        p50 = median(self._times) * 1000 if self._times else math.inf
        yield info("their median time", f"{p50:.1f} ms")
        longest = max(self._times, default=math.inf)
        yield at_most("their longest time", longest, LONGEST_CALL, " s")
