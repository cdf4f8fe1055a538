"""What a part of the soak runs on."""

import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench import targets
from tests.inside import Inside
from tests.run_yaml import Json, passthrough, variant
from tests.server import Server
from tests.soak.latency import PROVIDER, measurer
from tests.upstream import Upstream, in_background


@dataclass(frozen=True)
class Stage:
    """The server, what it calls, and who measures it.

    Attributes:
        calls: How many calls the endurance takes; the other parts take no more.
        server: The real server.
        inside: The inside of its process.
        upstream: The mock upstream, in a thread of this process.
        measurer: A process to measure latency in.
    """

    calls: int
    server: Server
    inside: Inside
    upstream: Upstream
    measurer: ProcessPoolExecutor


@contextmanager
def stage(directory: Path, calls: int) -> Iterator[Stage]:
    """Start everything.

    The server has one provider more than run.yaml: its upstream is the one of the
    bench, a process of its own, so that little of its latency is the mock's.

    Args:
        directory: An existing directory for the server's files: a short path.
        calls: How many calls the endurance takes.

    Raises:
        ServerError: The server did not start.
    """
    inside = Inside(directory / "inside")
    with measurer() as pool, in_background() as upstream, targets.direct() as quick:

        def change(config: Json) -> None:
            added = passthrough(PROVIDER, quick.url)
            config["providers"]["inference"].append(added)

        variables = upstream.environment | inside.variables
        run_yaml = variant(directory, change)
        with Server(directory, run_yaml=run_yaml, variables=variables) as server:
            yield Stage(calls, server, inside, upstream, pool)


def progress(what: str) -> None:
    """Say on standard error what goes on."""
    print(f"{time.strftime('%H:%M:%S')}  {what}", file=sys.stderr, flush=True)
