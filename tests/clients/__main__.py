"""`python -m tests.clients`: drive every client, and print the table."""

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

from tests.clients.installing import FailedError, Installed, MissingError
from tests.clients.listing import CLIENTS, Client
from tests.clients.trying import Cell, Trial, environment, show
from tests.support.server import Server, ServerError, Variation
from tests.support.upstream import Upstream, in_background

_TRIED = "models regular streamed tools gemini schema error broken retry id".split()
_COLUMNS = [*_TRIED, "snippet"]

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
        driver = client.driver(installed, env, client.detail, stack)
        # First: what it writes to a configuration is what the calls use.
        snippet = show(client, installed, env)
        upstream.reset()
        trial = Trial(client, driver, upstream)
        cells = [*map(trial.cell, _TRIED), snippet]
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
        def install(source: Callable[[Path], Installed]) -> Installed:
            own = Path(tempfile.mkdtemp(dir=directory))
            return source(own)

        for client in clients:
            begin = time.monotonic()
            try:
                rows.append(row(client, install(client.install), upstream, server.url))
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


def wanted() -> list[Client]:
    """The clients that the command line names, or all."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.clients",
        description="Drive the server with clients that others wrote, against a mock "
        "of the vendors. Each is installed from its registry, temporarily.",
    )
    known = [client.name for client in CLIENTS]
    told = f"only these: {', '.join(known)}"
    parser.add_argument("names", nargs="*", metavar="CLIENT", help=told)
    names = parser.parse_args().names
    if unknown := set(names) - set(known):
        parser.error(f"no such client: {', '.join(sorted(unknown))}")
    return [client for client in CLIENTS if not names or client.name in names]


def main() -> int:
    """Print the table: 1 when a cell fails that should work."""
    # Ending by a signal takes everything down as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        rows = drive(wanted())
    except ServerError as error:
        sys.exit(f"The server did not start: {error}")
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    say(f"\n{render(rows)}")
    return int(any(cell.outcome == "FAIL" for row in rows for cell in row.cells))


if __name__ == "__main__":
    sys.exit(main())
