"""`python -m tests.soak` (`make soak`): whether the server stays as it is.

Over many calls, and beside callers that hurt it: the mock upstream, the real server,
and a table of what was looked at, what was measured, and its bound.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from tests.soak import parts
from tests.soak.parts import Line, Stage
from tests.support.server import ServerError, Servers, Variation
from tests.support.tool import aligned, end_on_signals
from tests.support.upstream import in_background

# The largest counts of what the providers say.
PROVIDERS = {
    name: {
        "caller_timeout": parts.CALLER_TIMEOUT,
        "max_bytes_in_flight": parts.IN_FLIGHT,
    }
    for name in ("openai", "openai-mini", "gemini", "anthropic")
}


def soak(calls: int) -> Iterator[Line]:
    """Start everything, run the parts, and stop the server."""
    with (
        tempfile.TemporaryDirectory() as name,
        in_background() as upstream,
        closing(Servers(Path(name), upstream.environment)) as servers,
    ):
        server = servers.start(Variation(providers=PROVIDERS))
        for part in parts.ALL:
            yield from part(Stage(server, upstream, calls))
        start = time.monotonic()
        yield parts.exactly("status after SIGTERM", server.stop(), 0)
        yield parts.at_most("it took", time.monotonic() - start, 10, " s")
        traces = server.log.count("Traceback")
        yield parts.exactly("tracebacks in the log", traces, 0)


def main() -> int:
    """Run the soak; 1 when something does not hold, or a server failed."""
    parser = argparse.ArgumentParser("python -m tests.soak")
    calls = "how many mixed calls (default: %(default)s)"
    parser.add_argument("--calls", type=int, default=10_000, metavar="N", help=calls)
    options = parser.parse_args()
    end_on_signals()
    start, lines = time.monotonic(), list[Line]()
    try:
        for line in soak(options.calls):
            print(f"{time.strftime('%H:%M:%S')}  {line.what}", file=sys.stderr)
            lines.append(line)
    except (ServerError, OSError) as error:
        sys.exit(f"soak: {error}")
    print(aligned([("", "measured", "bound", ""), *lines], range(1, 2)))
    print(f"\nin {time.monotonic() - start:.0f} s")
    return int(any(line.verdict == "FAILED" for line in lines))


if __name__ == "__main__":
    sys.exit(main())
