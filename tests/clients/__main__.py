"""`python -m tests.clients`: drive every client, and print the table."""

import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

from tests.clients.installing import FailedError, Installed, MissingError
from tests.clients.listing import CLIENTS, Client, Source
from tests.clients.trying import Cell, Trial, environment, show
from tests.support.server import Server, ServerError, Variation
from tests.support.upstream import Upstream, in_background

_COLUMNS = (
    *("models", "regular", "streamed", "tools", "gemini", "schema"),
    *("error", "broken", "retry", "id", "snippet"),
)

say = partial(print, flush=True)


class Row(NamedTuple):
    """One client of the table."""

    name: str
    version: str
    cells: list[Cell]


def row(client: Client, installed: Installed, upstream: Upstream, address: str) -> Row:
    """Try one client."""
    env = environment(installed, address, client.name)
    with ExitStack() as stack:
        call = None
        if client.driver:
            call = client.driver(installed, env, client.detail, stack)
        # First: what it writes to a configuration is what the calls use.
        snippet = show(client, installed, env)
        upstream.reset()
        trial = Trial(client, call, upstream)
        cells = [*map(trial.cell, _COLUMNS[:-1]), snippet]
    return Row(client.name, installed.version, cells)


def drive(clients: list[Client]) -> list[Row]:
    """Install and try the clients one after the other."""
    rows = []
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        upstream = stack.enter_context(in_background())
        (directory / "server").mkdir()
        server = Server(directory / "server", Variation(), upstream.environment)
        stack.callback(server.kill)
        server.wait_ready()

        @cache
        def install(source: Source) -> Installed:
            installer, name, more = source
            return installer(name, more, Path(tempfile.mkdtemp(dir=directory)))

        for client in clients:
            begin = time.monotonic()
            try:
                rows.append(row(client, install(client.source), upstream, server.url))
            except (MissingError, FailedError) as error:
                outcome = "-" if isinstance(error, MissingError) else "FAIL"
                cells = [Cell(outcome, f"{client.name}: {error}")] * len(_COLUMNS)
                rows.append(Row(client.name, "-", cells))
            told = " ".join(cell.outcome for cell in rows[-1].cells)
            say(f"{client.name:20}{told}  {time.monotonic() - begin:.0f} s")
    return rows


def render(rows: list[Row]) -> str:
    """The table, and below it a note for each cell that is not ok."""
    notes = [cell.detail for row in rows for cell in row.cells if cell.detail]
    notes = list(dict.fromkeys(notes))
    lines = [["client", "version", *_COLUMNS]]
    for name, version, cells in rows:
        marks = [f" {notes.index(c.detail) + 1}" if c.detail else "" for c in cells]
        texts = [cell.outcome + mark for cell, mark in zip(cells, marks, strict=True)]
        lines.append([name, version, *texts])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = [map(str.ljust, line, widths) for line in lines]
    table = ["  ".join(line).rstrip() for line in padded]
    return "\n".join([*table, "", *(f"{n}  {note}" for n, note in enumerate(notes, 1))])


def main() -> int:
    """Drive the clients that are named, or all: 1 when one fails that should work."""
    known = {client.name: client for client in CLIENTS}
    names = sys.argv[1:] or list(known)
    if not known.keys() >= {*names}:
        sys.exit(f"python -m tests.clients [CLIENT ...], of: {', '.join(known)}")
    # Ending by a signal takes everything down as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        rows = drive([known[name] for name in names])
    except ServerError as error:
        sys.exit(f"The server did not start: {error}")
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    say(f"\n{render(rows)}")
    return int(any(cell.outcome == "FAIL" for row in rows for cell in row.cells))


if __name__ == "__main__":
    sys.exit(main())
