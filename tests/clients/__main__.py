"""Clients that others wrote, driven against the real server.

`make clients`, or `python -m tests.clients [CLIENT ...]` in the project's folder. Each
is installed into a temporary directory: no other part of the tests needs a registry.
"""

import sys
import tempfile
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

from tests.clients.drivers import FailedError
from tests.clients.listing import CLIENTS, Client
from tests.clients.trying import COLUMNS, Trial, environment
from tests.support.server import Servers, Variation
from tests.support.tool import end_on_signals
from tests.support.upstream import Upstream, in_background

say = partial(print, flush=True)
line = ("{:20}{:10}" + "{:10}" * len(COLUMNS)).format


def is_fine(client: Client, directory: Path, upstream: Upstream, address: str) -> bool:
    """Install one client, try it, and print its row: whether all in it works."""
    version, cells, wrong = "-", ["FAIL"] * len(COLUMNS), []
    try:
        version = client.install(client.package, directory)
        env = environment(directory, address, client.name)
        with ExitStack() as stack:
            call = client.driver and client.driver(directory, env, client.detail, stack)
            trial = Trial(client, directory, env, call, upstream)
            # The snippet first: what it configures is what the calls use.
            cells, wrong = [*map(trial.cell, COLUMNS)], trial.wrong
    except FileNotFoundError as error:
        cells, wrong = ["-"] * len(COLUMNS), [f"{error.filename} is not installed here"]
    except FailedError as error:
        wrong = [str(error)]
    say(line(client.name, version, *cells), *wrong, sep="\n  ")
    return "FAIL" not in cells


def main() -> int:
    """Drive the clients that are named, or all: 1 when one fails that should work."""
    known = {client.name: client for client in CLIENTS}
    names = sys.argv[1:] or list(known)
    if not known.keys() >= {*names}:
        sys.exit(f"python -m tests.clients [CLIENT ...], of: {', '.join(known)}")
    end_on_signals()
    with (
        tempfile.TemporaryDirectory() as temporary,
        in_background() as upstream,
        closing(Servers(Path(temporary), upstream.environment)) as servers,
    ):
        server = servers.start(Variation())
        say(line("client", "version", *COLUMNS))
        fine = []
        for name in names:
            (directory := Path(temporary, name)).mkdir()
            fine.append(is_fine(known[name], directory, upstream, server.url))
        return int(not all(fine))


if __name__ == "__main__":
    sys.exit(main())
