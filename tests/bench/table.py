"""The table that the README quotes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from tests.bench.rounds import CONNECTIONS, HELD, Held, Round

_COLUMNS: Final = ("direct", "bare", "stock", "this")


class Result(NamedTuple):
    """All figures of one server.

    Attributes:
        round: The median of its rounds.
        most: The largest number of events of a slow stream in one read.
        held: The many slow streams; None where they were not tried.
    """

    round: Round
    most: int
    held: Held | None


type Results = Mapping[str, Result]
type Figure = Callable[[Result], float | None]


class Row(NamedTuple):
    """A line of the table.

    Attributes:
        what: What was asked of the servers.
        unit: What the figures are.
        form: The format of a figure.
        figure: Finds the figure among the results of a server.
        verdict: Compares this server with the others; empty where there is nothing to.
    """

    what: str
    unit: str
    form: str
    figure: Figure
    verdict: Callable[[Mapping[str, float]], str] = lambda _: ""


def _times(of: Mapping[str, float]) -> str:
    if "this" not in of:
        return ""
    parts = [f"{of['this'] / of['bare']:.2f} of bare"]
    if of.get("stock"):
        parts.append(f"{of['this'] / of['stock']:.0f} times stock")
    return ", ".join(parts)


def _above(other: str, form: str) -> Callable[[Mapping[str, float]], str]:
    def verdict(of: Mapping[str, float]) -> str:
        if "this" not in of:
            return ""
        return f"{of['this'] - of[other]:{form}} over {other}"

    return verdict


def _held(figure: Callable[[Held], float]) -> Figure:
    return lambda result: figure(result.held) if result.held else None


_ROWS: Final = (
    Row(f"{CONNECTIONS} connections", "calls/s", ".0f", lambda r: r.round.rate, _times),
    Row("", "CPU, ms/call", ".2f", lambda r: r.round.cpu * 1e3, _above("bare", "+.2f")),
    Row("1 connection", "p50, ms", ".2f", lambda r: r.round.p50 * 1e3)._replace(
        verdict=_above("bare", "+.2f")
    ),
    Row("streams of 200 chunks", "streams/s", ".1f", lambda r: r.round.streams, _times),
    Row("first chunk", "p50, ms", ".2f", lambda r: r.round.first * 1e3)._replace(
        verdict=_above("direct", "+.2f")
    ),
    Row("slow stream", "most events a read", ".0f", lambda r: r.most),
    Row(f"{HELD} slow streams", "complete, in order", ".0f", _held(lambda h: h.whole)),
    Row("", "open at once", ".0f", _held(lambda h: h.at_once)),
    Row("", "KiB/stream", ".0f", _held(lambda h: h.kib), _above("bare", "+.0f")),
    Row("", "CPU, ms/chunk", ".3f", _held(lambda h: h.cpu * 1e3))._replace(
        verdict=_above("bare", "+.3f")
    ),
)


def table(results: Results) -> str:
    """Return the figures of all servers as aligned lines of plain text.

    Args:
        results: Those of each server, by its name; a server may be missing.
    """
    lines = [("", "", *_COLUMNS, ""), *(_cells(row, results) for row in _ROWS)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(_line(cells, widths) for cells in lines)


def _cells(row: Row, results: Results) -> tuple[str, ...]:
    found = {name: row.figure(result) for name, result in results.items()}
    figures = {name: value for name, value in found.items() if value is not None}
    cells = (
        f"{figures[name]:{row.form}}" if name in figures else "-" for name in _COLUMNS
    )
    return (row.what, row.unit, *cells, row.verdict(figures))


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    text, figures = len(cells) - 1 - len(_COLUMNS), len(cells) - 1
    aligned = [
        cell.rjust(width) if text <= at < figures else cell.ljust(width)
        for at, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join(aligned).rstrip()
