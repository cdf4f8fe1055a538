"""The table that `make clients` ends with: client by capability."""

from collections.abc import Mapping
from typing import NamedTuple

from tests.clients.trying import COLUMNS, Cell


class Row(NamedTuple):
    """One client.

    Attributes:
        name: The client.
        version: Its version, or "-".
        cells: A cell for each column.
    """

    name: str
    version: str
    cells: Mapping[str, Cell]


def render(rows: list[Row]) -> str:
    """Write the table, and below it a footnote for all that is not "ok".

    Args:
        rows: The clients.
    """
    notes = list(
        dict.fromkeys(
            cell.detail for row in rows for cell in row.cells.values() if cell.detail
        )
    )
    lines = [("client", "version", *COLUMNS)]
    for row in rows:
        cells = (_text(row.cells[column], notes) for column in COLUMNS)
        lines.append((row.name, row.version, *cells))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    table = [
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True))
        for line in lines
    ]
    numbered = [f"{number}  {note}" for number, note in enumerate(notes, 1)]
    return "\n".join([*(line.rstrip() for line in table), "", *numbered]).rstrip()


def _text(cell: Cell, notes: list[str]) -> str:
    if not cell.detail:
        return cell.outcome
    return f"{cell.outcome} {notes.index(cell.detail) + 1}"
