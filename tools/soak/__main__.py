"""`python -m tools.soak` (`make soak`): load and attack the server, and measure it.

Runs thousands of mixed calls, then one attack after another beside a well-behaved
client, against a mock upstream. Prints what was measured, its bound, and whether it
holds; exits with 1 when something does not.
"""

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import chain
from pathlib import Path

from tests.support.server import Server, ServerError, Servers
from tests.support.upstream import Upstream, in_background
from tools.cli import exit_on_signals, log
from tools.mock.vendors import VENDORS
from tools.soak.attacks import VARIATION, attacks
from tools.soak.calls import endurance, keys
from tools.soak.log_readers import log_readers
from tools.soak.report import Line, at_most, exactly, render, title


def run(servers: Servers, upstream: Upstream, calls: int) -> Iterator[Line]:
    server = servers.start(VARIATION)
    return chain(
        endurance(server, upstream, calls),
        keys(server),
        _stop(server),
        attacks(servers, upstream),
        log_readers(upstream),
    )


def _stop(server: Server) -> Iterator[Line]:
    yield title("SIGTERM")
    start = time.monotonic()
    os.kill(server.pid, signal.SIGTERM)
    yield exactly("status", server.wait_exit(), 0)
    yield at_most("it took", time.monotonic() - start, 10, " s")
    yield exactly("tracebacks in the log", server.log.count("Traceback"), 0)


def main() -> int:
    parser = argparse.ArgumentParser("python -m tools.soak")
    calls = "number of mixed calls (default: %(default)s)"
    parser.add_argument("--calls", type=int, default=10_000, metavar="N", help=calls)
    options = parser.parse_args()
    exit_on_signals()
    start, lines = time.monotonic(), list[Line]()
    try:
        with (
            tempfile.TemporaryDirectory() as name,
            in_background(**VENDORS) as upstream,
            closing(Servers(Path(name), upstream.environment)) as servers,
        ):
            for line in run(servers, upstream, options.calls):
                log(time.strftime("%H:%M:%S"), *filter(None, line))
                lines.append(line)
    except (ServerError, OSError, AssertionError) as error:
        sys.exit(f"soak: {error}")
    print(render(lines))
    print(f"\nin {time.monotonic() - start:.0f} s")
    return int(any("FAILED" in line for line in lines))


if __name__ == "__main__":
    sys.exit(main())
