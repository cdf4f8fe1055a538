"""Helpers for command-line tools: exit on signals, print aligned tables."""

import signal
import sys
from collections.abc import Collection, Sequence
from functools import partial
from typing import NoReturn

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# Progress goes to stderr, so that stdout has the result alone.
log = partial(print, file=sys.stderr, flush=True)


def exit_on_signals() -> None:
    """Turn signals into SystemExit, so that context managers stop what they started."""
    for number in _SIGNALS:
        signal.signal(number, _exit)


def _exit(number: int, _frame: object) -> NoReturn:
    # A second signal must not interrupt the cleanup. SIG_IGN would be inherited by
    # child processes, and Python complains about a pending signal that is ignored.
    for each in _SIGNALS:
        signal.signal(each, lambda *_: None)
    sys.exit(128 + number)


def align(rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> str:
    """Return the rows as lines with aligned columns, those in `right` to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if at in right else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
