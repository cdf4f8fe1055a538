"""The whole run: which server is measured when."""

import contextlib
import sys
import tempfile
import time
from pathlib import Path
from typing import Final, NamedTuple

from tests.bench import machine, profiling, targets
from tests.bench.rounds import (
    Held,
    Round,
    Spans,
    many_held_streams,
    most_events_in_a_read,
    one_round,
)
from tests.bench.table import Result, Results, table
from tests.bench.targets import Target
from tests.bench.wrk import Wrk

_STOCK_SPANS: Final = Spans(load=6, single=3, streams=8, first=2)


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


FULL: Final = Plan(5, Spans(load=2, single=1, streams=2, first=0.7), full=True)
QUICK: Final = Plan(1, Spans(load=1, single=1, streams=1, first=0.5), full=False)


def bench(plan: Plan) -> str:
    """Measure all servers; progress goes to standard error.

    Args:
        plan: How much is measured.

    Returns:
        The table, with the circumstances above it.

    Raises:
        BenchError: A server answered wrongly.
        ServerError: A server did not start.
        OSError: A connection broke off, or an answer did not come in time.
        subprocess.CalledProcessError: wrk failed.
    """
    start, elsewhere = time.monotonic(), machine.Elsewhere()
    with tempfile.TemporaryDirectory() as name, targets.direct() as direct:
        results = _measure(plan, direct, Path(name))
    how = f"{_how(plan)}; {time.monotonic() - start:.0f} s in all, "
    how += f"{elsewhere.share:.0%} of the CPU time went to others"
    return f"{machine.description()}\n{how}\n\n{table(results)}"


def profile() -> str:
    """Return where this server's time goes beyond the bare relay's.

    Raises:
        ServerError: The server did not start.
        subprocess.CalledProcessError: wrk or py-spy failed.
    """
    with (
        tempfile.TemporaryDirectory() as name,
        targets.direct() as direct,
        targets.bare(direct.url) as bare,
        targets.this(direct.url, _new(folder := Path(name), "this")) as this,
    ):
        return "\n\n".join(
            _profile(kind, bare, this, folder) for kind in ("regular", "burst")
        )


def _profile(kind: str, bare: Target, this: Target, folder: Path) -> str:
    _progress(f"profile of {kind} calls")
    one, other = (
        profiling.profile(server, Wrk(folder), kind, folder) for server in (bare, this)
    )
    return profiling.report(kind, one, other)


def _how(plan: Plan) -> str:
    rounds = f"median of {plan.rounds} rounds in turns" if plan.full else "1 round"
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
