"""The measured figures, and the tables that `make bench` prints."""

import os
import statistics
from dataclasses import dataclass, field
from typing import NamedTuple

from tools.bench.load import CONNECTIONS, OPEN_STREAMS, Figures
from tools.cli import align

TWO_WORKERS = "two workers"
COLLECTOR = "with a collector"


class Row(NamedTuple):
    """A figure, how it is printed, and the goal of this project for it."""

    label: str
    figure: str
    form: str
    goal: str = ""

    @property
    def more_is_better(self) -> bool:
        return "/s" in self.label


ROWS = (
    Row(f"calls/s, {CONNECTIONS} connections", "calls", ",.0f", "1.25 of bare or more"),
    Row("median call in ms, 1 connection", "p50", ".3f", "1.00 of bare or less"),
    Row("streams/s, 200 chunks each", "streams", ",.0f", "1.50 of bare or more"),
    Row("streams/s, one chunk per write", "single_streams", ",.0f"),
    Row("CPU per call, us", "call_cpu", ".0f"),
    Row("CPU per chunk, us", "chunk_cpu", ".2f"),
    Row("1,000 instructions per call", "call_instructions", ",.0f"),
    Row(
        "1,000 instructions per chunk",
        "chunk_instructions",
        ".1f",
        "0.40 of bare or less",
    ),
    Row(f"CPU per chunk, {OPEN_STREAMS:,} open, us", "slow_chunk_cpu", ".0f"),
    Row("memory per open stream, KiB", "stream_memory", ".1f", "25 or less"),
    Row("memory at rest, MiB", "rest", ".0f", "135 or less"),
)


@dataclass
class Results:
    """The figures of each server: those of every round, and those measured once."""

    rounds: dict[str, list[Figures]] = field(default_factory=dict)
    once: dict[str, Figures] = field(default_factory=dict)

    def ratios(self, name: str, other: str, figure: str) -> list[float]:
        """Return, round by round, the figure of one server divided by another's."""
        figures = [*zip(self.rounds[name], self.rounds[other], strict=True)]
        if {name, other} <= self.once.keys():
            figures.append((self.once[name], self.once[other]))
        return [a[figure] / b[figure] for a, b in figures if {figure} <= a.keys() & b]

    def median(self, name: str, figure: str) -> float | None:
        figures = [*self.rounds[name], self.once.get(name, {})]
        found = [each[figure] for each in figures if figure in each]
        return statistics.median(found) if found else None

    def tables(self) -> str:
        if "bare" not in self.rounds:
            return self._beside_others()
        workers = f"\n\n{self._workers()}" if TWO_WORKERS in self.rounds else ""
        metrics = f"\n{self._metrics()}" if COLLECTOR in self.rounds else ""
        return self._beside_bare() + workers + metrics

    def _beside_bare(self) -> str:
        rows: list[tuple[str, ...]] = [("", "bare", "this", "ratio", "goal")]
        for label, figure, form, goal in ROWS:
            cells = [self._cell(name, figure, form) for name in ("bare", "this")]
            if ratios := self.ratios("this", "bare", figure):
                ratio = f"{statistics.median(ratios):.2f}"
                rows.append((label, *cells, ratio, goal))
        return align(rows, right=(1, 2, 3))

    def _cell(self, name: str, figure: str, form: str) -> str:
        value = self.median(name, figure)
        return "failed" if value is None else format(value, form)

    def _workers(self) -> str:
        rate, cores, load = (
            self.median(TWO_WORKERS, figure) or 0
            for figure in ("calls", "cores", "load_cores")
        )
        ratio = statistics.median(self.ratios(TWO_WORKERS, "this", "calls"))
        return (
            f"Two workers: {rate:,.0f} calls/s, {ratio:.2f} of one worker's.\n"
            f"They used {cores:.1f} of {os.cpu_count()} cores, the load {load:.1f}."
        )

    def _metrics(self) -> str:
        ratio = statistics.median(self.ratios(COLLECTOR, "this", "call_cpu"))
        return f"With metrics, sent to a collector: {ratio:.2f} of the CPU per call."

    def _beside_others(self) -> str:
        rows: list[tuple[str, ...]] = [
            ("", "calls/s", "this: x", "median ms", "streams/s", "this: x")
        ]
        rows += [self._other(name) for name in sorted(self.rounds, key="this".__ne__)]
        return align(rows, right=range(1, 6))

    def _other(self, name: str) -> tuple[str, ...]:
        times = []
        for figure in ("calls", "streams"):
            ratios = self.ratios("this", name, figure)
            times.append(f"{statistics.median(ratios):,.1f}" if ratios else "")
        return (
            name,
            self._cell(name, "calls", ",.0f"),
            times[0],
            self._cell(name, "p50", ".2f"),
            self._cell(name, "streams", ",.0f"),
            times[1],
        )
