"""`python -m tests.bench`: measure, and print the table."""

import argparse
import signal
import subprocess
import sys

from tests.bench import machine, profiling
from tests.bench.rounds import BenchError
from tests.bench.run import FULL, QUICK, bench, profile
from tests.bench.wrk import MISSING, is_installed
from tests.server import ServerError


def main() -> int:
    """Run the bench.

    Returns:
        The exit status: 1 when a server failed, 2 when a program is missing.
    """
    options = _options()
    if missing := _missing(options):
        print(missing, file=sys.stderr)
        return 2
    # Ending by a signal takes the servers down as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    machine.allow_descriptors()
    try:
        print(_run(options))
    except (BenchError, ServerError, OSError, subprocess.CalledProcessError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description="Compare the server with a bare relay and with stock Llama Stack.",
    )
    parser.add_argument(
        "--quick", action="store_true", help="one short round, without stock: 30 s"
    )
    parser.add_argument(
        "--profile",
        action="store_true",
        help="instead of the table, where the time goes beyond the bare relay's",
    )
    return parser.parse_args()


def _missing(options: argparse.Namespace) -> str:
    if not is_installed():
        return MISSING
    if options.profile and not profiling.command():
        return profiling.MISSING
    return ""


def _run(options: argparse.Namespace) -> str:
    if options.profile:
        return profile()
    return bench(QUICK if options.quick else FULL)


if __name__ == "__main__":
    sys.exit(main())
