"""`python -m tests.soak`: run all parts, and print the table."""

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench.__main__ import aligned
from tests.soak import parts
from tests.soak.parts import Line, Stage
from tests.support.server import ServerError, Servers, Variation
from tests.support.upstream import in_background
from tests.support.wire import Json

PROVIDERS = ("openai", "openai-mini", "gemini", "anthropic")
SETTINGS: Json = {"caller_timeout": parts.CALLER_TIMEOUT}
SETTINGS |= {"max_bytes_in_flight": parts.IN_FLIGHT}
QUOTA: Json = {"anonymous_max_requests": parts.QUOTA}
QUOTA |= {"kvstore": {"backend": "kv_memory", "namespace": "quota"}}

PARTS = (
    parts.endurance,
    parts.isolation,
    parts.leaving,
    parts.not_reading,
    parts.silent,
    parts.half_bodies,
    parts.pouring,
    parts.keys,
)


def soak(count: int, directory: Path) -> Iterator[Line]:
    """Start everything, run the parts, and stop the server."""
    with in_background() as upstream:
        servers = Servers(directory, upstream.environment)
        try:
            # The largest counts of what the providers say.
            providers = dict.fromkeys(PROVIDERS, SETTINGS)
            server = servers.start(Variation(providers=providers))
            for part in PARTS:
                yield from part(Stage(server, upstream, count))
            start = time.monotonic()
            yield parts.exactly("status after SIGTERM", server.stop(), 0)
            yield parts.at_most("it took", time.monotonic() - start, 10, " s")
            traces = server.log.count("Traceback")
            yield parts.exactly("tracebacks in the log", traces, 0)
            limited = servers.start(Variation({"server": {"quota": QUOTA}}))
            yield from parts.forwarded(Stage(limited, upstream, count))
        finally:
            servers.close()


def table(lines: list[Line]) -> str:
    """All figures as aligned lines."""
    rows: list[tuple[str, ...]] = [("", "measured", "bound", "")]
    for what, measured, bound, holds in lines:
        verdict = ("ok" if holds else "FAILED") if bound else ""
        rows.append((what, measured, bound, verdict))
    return aligned(rows, range(1, 2))


def main() -> int:
    """Run the soak; 1 when something does not hold, or a server failed."""
    parser = argparse.ArgumentParser("python -m tests.soak")
    calls = "how many mixed calls (default: %(default)s)"
    parser.add_argument("--calls", type=int, default=10_000, metavar="N", help=calls)
    options = parser.parse_args()
    # Ending by a signal takes the servers down as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    start = time.monotonic()
    try:
        with tempfile.TemporaryDirectory() as name:
            lines = []
            for line in soak(options.calls, Path(name)):
                print(f"{time.strftime('%H:%M:%S')}  {line.what}", file=sys.stderr)
                lines.append(line)
    except (ServerError, OSError) as error:
        print(f"soak: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    print(f"{table(lines)}\n\nin {time.monotonic() - start:.0f} s")
    return int(not all(line.holds for line in lines))


if __name__ == "__main__":
    sys.exit(main())
