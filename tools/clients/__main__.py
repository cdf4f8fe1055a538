"""`python -m tools.clients [CLIENT ...]` (`make clients`): test third-party clients.

Installs each client into a temporary directory, runs its snippets of docs/clients.md
and more against the real server, and prints what works.
"""

import sys
import tempfile
from contextlib import closing
from functools import partial
from pathlib import Path

from tests.support.run_yaml import Variation
from tests.support.server import Server, Servers
from tests.support.upstream import Upstream, in_background
from tools.cli import exit_on_signals
from tools.clients.clients import CLIENTS, Client
from tools.clients.drivers import ProgramError
from tools.clients.trial import COLUMNS, Trial, environment
from tools.mock.vendors import VENDORS

say = partial(print, flush=True)
# Short, so that a row fits 80 columns.
_LABELS = [
    {"snippet": "page", "streamed": "stream"}.get(name, name) for name in COLUMNS
]
_WIDTHS = (17, 9, *(max(len(label), 4) + 1 for label in _LABELS))


def _print_row(*cells: str) -> None:
    row = zip(cells, _WIDTHS, strict=True)
    say("".join(cell.ljust(width) for cell, width in row).rstrip())


def test_client(
    client: Client, directory: Path, server: Server, upstream: Upstream
) -> bool:
    """Install a client, print its row; return whether it passed."""
    version, cells, notes = "-", ["FAIL"] * len(COLUMNS), list[str]()
    try:
        version = client.install(client.package or client.name, directory)
        env = environment(directory, server.url, client.name)
        call = client.driver and client.driver(directory, env, client.target)
        trial = Trial(client, directory, env, call, server, upstream)
        # The snippet is first: it may write a configuration that the calls use.
        cells, notes = [*map(trial.check, COLUMNS)], trial.notes
    except FileNotFoundError as error:
        cells, notes = ["-"] * len(COLUMNS), [f"{error.filename} is not installed"]
    except ProgramError as error:
        notes = [str(error)]
    _print_row(client.name, version, *cells)
    for note in notes:
        say(f"  {note}")
    return "FAIL" not in cells


def main() -> int:
    """Test the named clients, or all; return 1 if one of them failed."""
    known = {client.name: client for client in CLIENTS}
    names = sys.argv[1:] or list(known)
    if not known.keys() >= {*names}:
        sys.exit(f"python -m tools.clients [CLIENT ...], of: {', '.join(known)}")
    exit_on_signals()
    with (
        tempfile.TemporaryDirectory() as temporary,
        in_background(**VENDORS) as upstream,
        closing(Servers(Path(temporary), upstream.environment)) as servers,
    ):
        server = servers.start(Variation())
        _print_row("client", "version", *_LABELS)
        passed = []
        for name in names:
            (directory := Path(temporary, name)).mkdir()
            passed.append(test_client(known[name], directory, server, upstream))
        return int(not all(passed))


if __name__ == "__main__":
    sys.exit(main())
