"""`python -m tests.soak`: run all parts, and print the table."""

import argparse
import multiprocessing
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from tests.bench.__main__ import PEERS, running
from tests.soak import parts
from tests.soak.parts import Line, Stage
from tests.support.server import PROJECT, Server, ServerError, Variation
from tests.support.upstream import in_background
from tests.support.wire import Json

PROVIDERS = ("openai", "openai-mini", "gemini", "anthropic")
SETTINGS: Json = {"caller_timeout": parts.CALLER_TIMEOUT}
SETTINGS |= {"max_bytes_in_flight": parts.IN_FLIGHT}
QUOTA: Json = {"anonymous_max_requests": parts.QUOTA}
QUOTA |= {"kvstore": {"backend": "kv_memory", "namespace": "quota"}}
DESCRIPTORS = 4096

# The search for keys leaves memory behind, which the other parts would fill first.
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
    with ExitStack() as opened:
        upstream = opened.enter_context(in_background())
        quick = opened.enter_context(running("quick", *PEERS))
        # Ctrl-C goes to the soak, which ends this process in order.
        ignoring = partial(signal.signal, signal.SIGINT, signal.SIG_IGN)
        spawn = multiprocessing.get_context("spawn")
        measurer = opened.enter_context(ProcessPoolExecutor(1, spawn, ignoring))
        inside = directory / "inside"
        (directory / "path").mkdir()
        looking = directory / "path" / "sitecustomize.py"
        looking.symlink_to(PROJECT / "tests" / "soak" / "inside.py")
        env = upstream.environment
        look = {"PYTHONPATH": str(looking.parent), "INSIDE": str(inside)}
        # The largest counts of what the providers say.
        providers = {name: dict(SETTINGS) for name in (*PROVIDERS, parts.QUICK)}
        providers[parts.QUICK] |= {"base_url": f"http://127.0.0.1:{quick.port}"}

        def start(name: str, variation: Variation, **more: str) -> Server:
            (directory / name).mkdir()
            server = Server(directory / name, variation, env | more)
            opened.callback(server.kill)
            server.wait_ready()
            return server

        server = start("server", Variation(providers=providers), **look)
        stage = Stage(server, upstream, inside, measurer, count)
        for part in PARTS:
            yield from _told(part, stage)
        begun = time.monotonic()
        yield parts.exactly("status after SIGTERM", server.stop(), 0)
        yield parts.at_most("it took", time.monotonic() - begun, 10, " s")
        yield parts.exactly("tracebacks in the log", server.log.count("Traceback"), 0)
        limited = start("limited", Variation({"server": {"quota": QUOTA}}))
        yield from parts.forwarded(Stage(limited, upstream, inside, measurer, count))


def _told(part: Callable[[Stage], Iterator[Line]], stage: Stage) -> Iterator[Line]:
    for line in part(stage):
        print(f"{time.strftime('%H:%M:%S')}  {line}", file=sys.stderr, flush=True)
        yield line


def table(lines: list[Line]) -> str:
    """All figures as aligned lines."""
    rows = [("", "measured", "bound", "")]
    for what, measured, bound, holds in lines:
        verdict = ("ok" if holds else "FAILED") if bound else ""
        rows.append((what, measured, bound, verdict))
    first, second, third, _ = (
        max(map(len, column)) for column in zip(*rows, strict=True)
    )
    return "\n".join(
        f"{what:<{first}}  {measured:>{second}}  {bound:<{third}}  {verdict}".rstrip()
        for what, measured, bound, verdict in rows
    )


def main() -> int:
    """Run the soak; 1 when something does not hold, or a server failed."""
    parser = argparse.ArgumentParser("python -m tests.soak")
    calls = "how many mixed calls (default: %(default)s)"
    parser.add_argument("--calls", type=int, default=10_000, metavar="N", help=calls)
    options = parser.parse_args()
    # Ending by a signal takes the servers down as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(DESCRIPTORS, hard), hard))
    start = time.monotonic()
    try:
        with tempfile.TemporaryDirectory() as name:
            lines = list(soak(options.calls, Path(name)))
    except (ServerError, OSError) as error:
        print(f"soak: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    print(f"{table(lines)}\n\nin {time.monotonic() - start:.0f} s")
    return int(not all(line.holds for line in lines))


if __name__ == "__main__":
    sys.exit(main())
