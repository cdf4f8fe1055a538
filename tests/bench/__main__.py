"""`python -m tests.bench`: measure, and print the table."""

import argparse
import contextlib
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final, NamedTuple

from tests.bench import profiling, targets
from tests.bench.rounds import (
    BenchError,
    Held,
    Round,
    Spans,
    many_held_streams,
    most_events_in_a_read,
    one_round,
)
from tests.bench.table import Result, Results, circumstances, table
from tests.bench.targets import Target
from tests.bench.wrk import MISSING, Wrk, is_installed
from tests.server import ServerError

_STOCK_SPANS: Final = Spans(load=6, single=3, streams=8, first=2)
# A stream held by a relay takes two descriptors, one to each side.
_DESCRIPTORS: Final = 4096


class Plan(NamedTuple):
    """How much is measured.

    Attributes:
        rounds: How many rounds direct, bare and this take in turns.
        spans: How long each measurement of a round takes.
        full: Whether stock, and the many streams of direct, are measured too.
    """

    rounds: int
    spans: Spans
    full: bool


_FULL: Final = Plan(5, Spans(load=2, single=1, streams=2, first=0.7), full=True)
_QUICK: Final = Plan(1, Spans(load=1, single=1, streams=1, first=0.5), full=False)


def main() -> int:
    """Run the bench.

    Returns:
        The exit status: 1 when a server failed, 2 when wrk is missing.
    """
    options = _options()
    if missing := _missing(options):
        print(missing, file=sys.stderr)
        return 2
    # Ending by a signal takes the servers down as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    _allow_descriptors()
    try:
        if options.profile:
            _profile()
        else:
            _bench(_QUICK if options.quick else _FULL)
    except (BenchError, ServerError, OSError, subprocess.CalledProcessError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="one short round, without stock: 20 s"
    )
    parser.add_argument(
        "--profile",
        action="store_true",
        help="instead of the table, what this server spends beyond the bare relay",
    )
    return parser.parse_args()


def _missing(options: argparse.Namespace) -> str:
    if not is_installed():
        return MISSING
    if options.profile and not profiling.command():
        return profiling.MISSING
    return ""


def _allow_descriptors() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(_DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _bench(plan: Plan) -> None:
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as name, targets.direct() as direct:
        folder = Path(name)
        results = _measure(plan, direct, folder)
    taken = time.monotonic() - start
    print(circumstances())
    print(f"wrk, 1 thread; {_how(plan)}; {taken:.0f} s in all\n")
    print(table(results))


def _profile() -> None:
    with (
        tempfile.TemporaryDirectory() as name,
        targets.direct() as direct,
        targets.bare(direct.url) as bare,
        targets.this(direct.url, _new(folder := Path(name), "this")) as this,
    ):
        for kind in ("regular", "burst"):
            _progress(f"profile of {kind} calls")
            one, other = (
                profiling.profile(server, Wrk(folder), kind, folder)
                for server in (bare, this)
            )
            print(profiling.report(kind, one, other), end="\n\n")


def _how(plan: Plan) -> str:
    rounds = f"medians of {plan.rounds} interleaved rounds" if plan.full else "1 round"
    return f"{rounds}, stock 1 round" if plan.full else rounds


def _measure(plan: Plan, direct: Target, folder: Path) -> Results:
    wrk = Wrk(folder)
    results: dict[str, Result] = {}
    if plan.full:
        results["stock"] = _stock(direct.url, wrk, folder)
    with contextlib.ExitStack() as running:
        _progress("starting bare and this")
        bare = running.enter_context(targets.bare(direct.url))
        this = running.enter_context(targets.this(direct.url, _new(folder, "this")))
        return results | _in_turns(plan, [direct, bare, this], wrk)


def _stock(upstream: str, wrk: Wrk, folder: Path) -> Result:
    _progress("starting stock")
    with targets.stock(upstream, _new(folder, "stock")) as stock:
        most = most_events_in_a_read(stock)
        # It makes its tables at the first call, and calls that come before they are
        # there fail, at seconds of logging each.
        time.sleep(1)
        _progress("stock, round 1 of 1")
        return Result(one_round(stock, wrk, _STOCK_SPANS), most, held=None)


def _in_turns(plan: Plan, servers: list[Target], wrk: Wrk) -> dict[str, Result]:
    rounds: dict[str, list[Round]] = {server.name: [] for server in servers}
    for number in range(1, plan.rounds + 1):
        for server in servers:
            _progress(f"{server.name}, round {number} of {plan.rounds}")
            rounds[server.name].append(one_round(server, wrk, plan.spans))
    return {
        server.name: Result(
            Round.median(rounds[server.name]),
            most_events_in_a_read(server),
            _held(server, plan),
        )
        for server in servers
    }


def _held(server: Target, plan: Plan) -> Held | None:
    if server.name == "direct" and not plan.full:
        return None
    _progress(f"{server.name}, many slow streams")
    return many_held_streams(server)


def _new(folder: Path, name: str) -> Path:
    (folder / name).mkdir()
    return folder / name


def _progress(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
