"""`python -m tests.clients`: drive every client, and print the table."""

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tests.clients.installing import (
    Installed,
    InstallError,
    MissingError,
    Source,
)
from tests.clients.listing import CLIENTS, Client
from tests.clients.table import Row, render
from tests.clients.trying import all_cells, attempt
from tests.server import Server, ServerError
from tests.upstream import Upstream, in_background

say = partial(print, flush=True)


class Installer:
    """Installs each source once, below a directory."""

    def __init__(self, directory: Path) -> None:
        """Install into a directory that exists."""
        self._directory = directory
        self._installed: dict[Source, Installed] = {}

    def install(self, client: Client) -> Installed:
        """Install a client, unless another one has brought it.

        Raises:
            MissingError: This machine lacks what it takes.
            InstallError: The installer failed.
        """
        if client.source not in self._installed:
            directory = self._directory / client.driver
            directory.mkdir()
            self._installed[client.source] = client.source.install(directory)
        return self._installed[client.source]


def row(client: Client, installer: Installer, upstream: Upstream, address: str) -> Row:
    """Install and try one client, and say how it goes.

    Args:
        client: The client.
        installer: What installs it.
        upstream: The server's upstream.
        address: The server's address, without "/v1".
    """
    begin = time.monotonic()
    say(f"{client.name:20}", end="")
    try:
        installed = installer.install(client)
    except MissingError as missing:
        say(f"not tried: {missing}")
        return Row(client.name, "-", all_cells("-", str(missing)))
    except InstallError as error:
        say(f"not installed: {error}")
        return Row(client.name, "-", all_cells("failed", str(error)))
    say(f"{installed.version:10}", end="")
    cells = attempt(client, installed, upstream, address)
    count = {
        kind: sum(cell.outcome == kind for cell in cells.values())
        for kind in ("ok", "no", "failed")
    }
    told = ", ".join(f"{number} {kind}" for kind, number in count.items() if number)
    say(f"{told}; {time.monotonic() - begin:.0f} s")
    return Row(client.name, installed.version, cells)


@contextmanager
def running(directory: Path) -> Iterator[tuple[Upstream, str]]:
    """Run the upstream and the server while the context lasts.

    Args:
        directory: Where the server has its files.

    Yields:
        The upstream, and the server's address.
    """
    home = directory / "server"
    home.mkdir()
    with (
        in_background() as upstream,
        Server(home, variables=upstream.environment) as server,
    ):
        yield upstream, server.url


def drive(clients: list[Client]) -> list[Row]:
    """Drive the clients one after the other, and take everything down again."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        say("Starting a mock of OpenAI, Gemini and Anthropic, and the server.")
        with running(directory) as (upstream, address):
            installer = Installer(directory)
            return [row(client, installer, upstream, address) for client in clients]


def main() -> int:
    """Drive the clients that the command line names, or all.

    Returns:
        The exit status: 0 when every cell of the table is ok or a known limit of the
        client, 1 when one is not.
    """
    # Ending by a signal takes everything down as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        rows = drive(_wanted())
    except ServerError as error:
        print(f"The server did not start: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    say(f"\n{render(rows)}")
    return int(any(cell.outcome == "failed" for r in rows for cell in r.cells.values()))


def _wanted() -> list[Client]:
    parser = argparse.ArgumentParser(
        prog="python -m tests.clients",
        description="Drive the server with OpenAI clients that others wrote. Each is "
        "installed from its package registry into a temporary directory; the models "
        "are a mock's.",
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="CLIENT",
        help=f"only these: {', '.join(client.name for client in CLIENTS)}",
    )
    names = parser.parse_args().names
    if unknown := set(names) - {client.name for client in CLIENTS}:
        parser.error(f"no such client: {', '.join(sorted(unknown))}")
    return [client for client in CLIENTS if not names or client.name in names]


if __name__ == "__main__":
    sys.exit(main())
