"""Clients that others wrote, driven against the real server.

`make clients`, or `python -m tests.clients [CLIENT ...]` in the project's folder. Each
is installed into a temporary directory: no other part of the tests needs a registry.
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

from tests.clients.installing import FailedError, MissingError
from tests.clients.listing import CLIENTS, Client
from tests.clients.trying import COLUMNS, Cell, Trial, environment
from tests.support.server import ServerError, Servers, Variation
from tests.support.tool import aligned, end_on_signals
from tests.support.upstream import Upstream, in_background

say = partial(print, flush=True)


# The name of a client, its version, and its cells.
type Row = tuple[str, str, list[Cell]]


def row(client: Client, directory: Path, upstream: Upstream, address: str) -> Row:
    """Install one client, and try it."""
    version = "-"
    try:
        version = client.install(client.package, directory)
        env = environment(directory, address, client.name)
        with ExitStack() as stack:
            call = None
            if client.driver:
                call = client.driver(directory, env, client.detail, stack)
            trial = Trial(client, directory, env, call, upstream)
            # The snippet first: what it configures is what the calls use.
            return client.name, version, [*map(trial.cell, COLUMNS)]
    except (MissingError, FailedError) as error:
        outcome = "-" if isinstance(error, MissingError) else "FAIL"
        cells = [Cell(outcome, f"{client.name}: {error}")] * len(COLUMNS)
        return client.name, version, cells


def drive(clients: list[Client]) -> Iterator[Row]:
    """Try the clients one after the other, each in a directory of its own."""
    with (
        tempfile.TemporaryDirectory() as name,
        in_background() as upstream,
        closing(Servers(Path(name), upstream.environment)) as servers,
    ):
        server = servers.start(Variation())
        for client in clients:
            directory = Path(name, client.name)
            directory.mkdir()
            yield row(client, directory, upstream, server.url)


def table(rows: list[Row]) -> str:
    """All rows, and below them a note for each cell that is not ok."""
    details = [cell.detail for *_, cells in rows for cell in cells if cell.detail]
    notes = {text: f" {n}" for n, text in enumerate(dict.fromkeys(details), 1)}
    lines: list[tuple[str, ...]] = [("client", "version", *COLUMNS)]
    for name, version, cells in rows:
        texts = (cell.outcome + notes.get(cell.detail, "") for cell in cells)
        lines.append((name, version, *texts))
    return "\n".join([aligned(lines), "", *(f"{n[1:]}  {t}" for t, n in notes.items())])


def main() -> int:
    """Drive the clients that are named, or all: 1 when one fails that should work."""
    known = {client.name: client for client in CLIENTS}
    names = sys.argv[1:] or list(known)
    if not known.keys() >= {*names}:
        sys.exit(f"python -m tests.clients [CLIENT ...], of: {', '.join(known)}")
    end_on_signals()
    rows, begin = list[Row](), time.monotonic()
    try:
        for name, version, cells in drive([known[name] for name in names]):
            told = " ".join(cell.outcome for cell in cells)
            say(f"{name:20}{told}  {time.monotonic() - begin:.0f} s")
            rows.append((name, version, cells))
    except ServerError as error:
        sys.exit(f"The server did not start: {error}")
    say(f"\n{table(rows)}")
    return int(any(cell.outcome == "FAIL" for *_, cells in rows for cell in cells))


if __name__ == "__main__":
    sys.exit(main())
