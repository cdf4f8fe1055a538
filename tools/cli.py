"""What the tools for a person share: an end by signals, and a table."""

import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

_ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def end_on_signals() -> None:
    """Exit on signals, which takes everything down, and shows no traceback."""
    for number in _ENDINGS:
        signal.signal(number, _leave)


def _leave(number: int, _frame: object) -> NoReturn:
    # A second signal does not cut it short. Python would complain about one that came
    # with the first and is ignored.
    for ending in _ENDINGS:
        signal.signal(ending, lambda *_: None)
    sys.exit(128 + number)


def aligned(rows: Sequence[tuple[str, ...]], numbers: range = range(0)) -> str:
    """Lines of text with their columns aligned, those of `numbers` to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    aligns = [">" if at in numbers else "<" for at in range(len(widths))]
    form = "  ".join(f"{{:{a}{w}}}" for a, w in zip(aligns, widths, strict=True))
    return "\n".join(form.format(*cells).rstrip() for cells in rows)
