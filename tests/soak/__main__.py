"""`python -m tests.soak`: run all parts, and print the table."""

import argparse
import signal
import sys
import tempfile
import time
from pathlib import Path

import aiohttp

from tests.bench import machine
from tests.server import ServerError
from tests.soak.endurance import endurance
from tests.soak.figures import Figure, table
from tests.soak.forgetting import forgetting
from tests.soak.fuzz import fuzz
from tests.soak.isolation import isolation
from tests.soak.leaving import leaving
from tests.soak.slow_readers import slow_readers
from tests.soak.stage import stage


def main() -> int:
    """Run the soak.

    Returns:
        The exit status: 1 when something that must hold does not, or a server failed.
    """
    calls = _calls()
    # Ending by a signal takes the servers down as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    machine.allow_descriptors()
    start, elsewhere = time.monotonic(), machine.Elsewhere()
    try:
        figures = _run(calls)
    except (ServerError, OSError, aiohttp.ClientError) as error:
        print(f"soak: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    took = f"{time.monotonic() - start:.0f} s in all, "
    took += f"{elsewhere.share:.0%} of the CPU time went to others"
    print(f"{machine.description()}\n{took}\n\n{table(figures)}")
    return int(not all(figure.holds for figure in figures))


def _run(calls: int) -> list[Figure]:
    with (
        tempfile.TemporaryDirectory() as name,
        stage(Path(name), calls) as ready,
    ):
        # What is forgotten is looked for last: the search leaves memory behind, which
        # the slow readers would fill before the process grew.
        parts = (endurance, slow_readers, isolation, leaving, forgetting, fuzz)
        return [figure for part in parts for figure in part(ready)]


def _calls() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak",
        description="See whether the server stays as it is under many calls.",
    )
    parser.add_argument(
        "--calls",
        type=int,
        default=10_000,
        metavar="N",
        help="how many mixed calls (default: %(default)s)",
    )
    calls: int = parser.parse_args().calls
    if calls < 1:
        parser.error("--calls has to be 1 or more")
    return calls


if __name__ == "__main__":
    sys.exit(main())
