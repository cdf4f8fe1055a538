"""`python -m tools.bench` (`make bench`): compare the server's speed with a bare relay.

    bare     client ─▶ uvicorn and aiohttp, nothing else ─▶ upstream
    this     client ─▶ llama stack run run.yaml ─▶ upstream

and with others: stock passthrough (run.yaml without this project's provider), and with
`--peers` LiteLLM's proxy and Portkey's gateway.

In each round the servers take turns at each measurement, so that a slow minute of the
machine affects all of them; a ratio is the median of the ratios of the rounds. Prints
tables and draws docs/speed.svg.
"""

import argparse
import os
import re
import resource
import shutil
import sys
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from importlib.metadata import version
from pathlib import Path
from subprocess import SubprocessError

from tests.support.run_yaml import PROJECT
from tools.bench import instructions, load, plot
from tools.bench.load import Figures, LoadError, Target
from tools.bench.results import COLLECTOR, TWO_WORKERS, Results
from tools.bench.targets import Targets
from tools.cli import exit_on_signals, log

_PACKAGES = ("llama-stack", "aiohttp", "uvicorn", "uvloop", "httptools")
ROUNDS, OTHERS_ROUNDS = 7, 3


def measure(options: argparse.Namespace, directory: Path) -> list[Results]:
    """Measure beside the bare relay, then beside the others, which are slow."""
    with ExitStack() as stack:
        targets = Targets(directory, stack)
        bare, this = targets.bare(), targets.this()
        # First of all: the memory at rest is that of a fresh process.
        once = {target.name: _open_streams(target) for target in (bare, this)}
        more = []
        if not options.quick:
            for name, figures in instructions.count(directory).items():
                once[name] |= figures
            more.append(targets.two_workers(TWO_WORKERS))
            more.append(targets.with_collector(COLLECTOR))
        results = [_rounds([bare, this, *more], 1 if options.quick else ROUNDS)]
        results[0].once |= once
        if others := _others(options, targets):
            results.append(_rounds([this, *others], OTHERS_ROUNDS))
    return results


def _open_streams(target: Target) -> Figures:
    log(f"{load.OPEN_STREAMS} open streams: {target.name}")
    return load.open_streams(target)


def _others(options: argparse.Namespace, targets: Targets) -> list[Target]:
    if options.quick:
        return []
    starts = [targets.stock, targets.ogx]
    starts += [targets.litellm, targets.portkey] if options.peers else []
    starts += [partial(targets.checkout, options.against)] if options.against else []
    found = []
    for start in starts:
        try:
            found.append(start())
        except (SubprocessError, OSError, AssertionError) as error:
            log(f"left out: {error}")
    return found


def _rounds(targets: list[Target], count: int) -> Results:
    """Measure each target in each round, one measurement at a time."""
    results = Results()
    targets = [load.check(target) for target in targets]
    for number in range(count):
        log(f"round {number + 1}: {', '.join(target.name for target in targets)}")
        figures: dict[str, Figures] = {target.name: {} for target in targets}
        for measure_name, measurement in load.MEASURES.items():
            for target in targets:
                if measure_name in target.measures:
                    figures[target.name] |= _measure(measurement, target)
        for name, found in figures.items():
            results.rounds.setdefault(name, []).append(found)
        # So that none is always measured first.
        targets.reverse()
    return results


def _measure(measurement: load.Measure, target: Target) -> Figures:
    try:
        return measurement(target)
    except LoadError as error:
        # Others may fail under load: that figure is left out of their row.
        if target.name in ("bare", "this"):
            raise
        log(error)
        return {}


def _machine() -> str:
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    cpus = f"{os.cpu_count()} CPUs ({cpu[1] if cpu else 'unknown'})"
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    return f"{time.strftime('%F')}, {cpus}, Python {sys.version.split()[0]}\n{packages}"


def main() -> None:
    parser = argparse.ArgumentParser("python -m tools.bench")
    parser.add_argument("--quick", action="store_true", help="one round, bare and this")
    peers = "also measure LiteLLM's proxy and Portkey's gateway (installs them)"
    parser.add_argument("--peers", action="store_true", help=peers)
    against = "another checkout of this project to compare with"
    parser.add_argument("--against", metavar="DIR", type=Path, help=against)
    options = parser.parse_args()
    if not shutil.which("wrk"):
        sys.exit("make bench needs wrk, a load generator: apt-get install wrk")
    exit_on_signals()
    # A relayed stream takes two descriptors.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, hard), hard))
    start, busy = time.monotonic(), os.getloadavg()[0]
    try:
        with tempfile.TemporaryDirectory() as name:
            results = measure(options, Path(name))
    except (AssertionError, OSError, LoadError, SubprocessError) as error:
        sys.exit(f"bench: {error}")
    print(f"{_machine()}\n{len(results[0].rounds['this'])} rounds,", end=" ")
    print(f"{time.monotonic() - start:.0f} s in all, load average before: {busy:.1f}")
    for each in results:
        print(f"\n{each.tables()}")
    if not options.quick:
        (PROJECT / "docs/speed.svg").write_text(plot.draw(results[0]))


if __name__ == "__main__":
    main()
