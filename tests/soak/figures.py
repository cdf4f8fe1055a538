"""The table of figures that the soak ends with."""

from dataclasses import dataclass

_HEAD = ("", "", "before", "with", "must be", "")


@dataclass(frozen=True)
class Figure:
    """A line of the table.

    Attributes:
        part: The part of the soak it comes from.
        what: What was looked at, and its unit.
        now: The figure.
        before: The same without the load; empty where there is nothing to compare.
        bound: What the figure must be, in words; empty when it is only told.
        holds: Whether it is that.
    """

    part: str
    what: str
    now: str
    before: str = ""
    bound: str = ""
    holds: bool = True

    @property
    def cells(self) -> tuple[str, ...]:
        """The line, not yet aligned."""
        verdict = ("ok" if self.holds else "FAILS") if self.bound else ""
        return self.part, self.what, self.before, self.now, self.bound, verdict


def none_of(part: str, what: str, found: int) -> Figure:
    """A count that must be 0."""
    return Figure(part, what, f"{found:,}", bound="0", holds=found == 0)


def all_of(part: str, what: str, found: int, expected: int) -> Figure:
    """A count that must be complete."""
    whole = found == expected
    return Figure(part, what, f"{found:,}", bound=f"{expected:,}", holds=whole)


def milliseconds(seconds: float) -> str:
    """A time for the table."""
    return f"{seconds * 1000:.2f}"


def table(figures: list[Figure]) -> str:
    """Write figures as aligned lines of plain text.

    Args:
        figures: The lines; a part is named in its first one only.
    """
    lines: list[tuple[str, ...]] = [_HEAD]
    parts = ["", *(figure.part for figure in figures)]
    for figure, above in zip(figures, parts, strict=False):
        part, *rest = figure.cells
        lines.append(("" if part == above else part, *rest))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(_line(cells, widths) for cells in lines)


def _line(cells: tuple[str, ...], widths: list[int]) -> str:
    numbers = range(2, 4)
    aligned = (
        cell.rjust(width) if at in numbers else cell.ljust(width)
        for at, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return "  ".join(aligned).rstrip()
