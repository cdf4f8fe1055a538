"""`python -m tools.bench` (`make bench`): how fast the server is, beside others.

The same calls go to each of these, all in front of the same upstream:

    direct   caller ─▶ upstream
    bare     caller ─▶ uvicorn and aiohttp, nothing else ─▶ upstream
    stock    caller ─▶ run.yaml without `module:` ─▶ upstream
    before   caller ─▶ run.yaml of another checkout (`--against DIR`) ─▶ upstream
    this     caller ─▶ run.yaml ─▶ upstream

They take turns in short rounds, and each figure is the median of its rounds.
"""

import argparse
import os
import re
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from subprocess import STDOUT, CalledProcessError, Popen

import uvloop

from tests.support.http import eventually
from tests.support.run_yaml import PROJECT
from tests.support.server import clean_environment, free_port, listens
from tools.bench import load
from tools.bench.load import Figures, Server
from tools.cli import aligned, end_on_signals

PACKAGES = ("llama-stack", "aiohttp", "uvicorn", "uvloop", "httptools")
PEERS = (sys.executable, "-m", "tools.bench.peers")

# How many seconds a round has calls and streams; stock would hardly see one end.
ROUNDS, SPANS, STOCK = 5, (2, 2), (3, 8)

# What is asked, the unit, the figure and its form, and what it is compared with.
ROWS = (
    (f"{load.CONNECTIONS} connections", "calls/s", "rate", ".0f", "ratio"),
    ("", "CPU, ms/call", "cpu", ".2f", "bare"),
    ("1 connection", "p50, ms", "p50", ".2f", "bare"),
    ("streams of 200 chunks", "streams/s", "streams", ".1f", "ratio"),
    ("first chunk", "p50, ms", "first", ".2f", "direct"),
    ("slow stream", "most events a read", "most", ".0f", ""),
    (f"{load.HELD} slow streams", "complete, in order", "whole", ".0f", ""),
    ("", "open at once", "open", ".0f", ""),
    ("", "KiB/stream", "kib", ".0f", "bare"),
    ("", "CPU, ms/chunk", "chunk", ".3f", "bare"),
)

say = partial(print, file=sys.stderr, flush=True)


@contextmanager
def running(name: str, *command: str | Path, **env: str) -> Iterator[Server]:
    port = free_port()
    own = clean_environment() | env | {"LLAMA_STACK_PORT": str(port)}
    # Ctrl-C goes to the bench alone, which then ends its servers.
    start = partial(Popen[bytes], cwd=PROJECT, env=own, start_new_session=True)
    with (
        tempfile.NamedTemporaryFile() as log,
        start(command, stdout=log, stderr=STDOUT) as process,
    ):
        try:
            eventually(
                lambda: process.poll() is not None or listens(port),
                "the server listens",
                60,
            )
            assert process.poll() is None, Path(log.name).read_text()
            yield Server(name, port, process.pid)
        finally:
            # Stock may be busy for minutes with logging its own failures.
            process.kill()


def stack(
    name: str, checkout: Path, url: str, directory: Path
) -> AbstractContextManager[Server]:
    """Run `llama stack run` of a checkout, of its own .venv where it has one."""
    run_yaml, llama = checkout / "run.yaml", checkout / ".venv/bin/llama"
    if name == "stock":
        text = re.sub("^ +module: .*\n", "", run_yaml.read_text(), flags=re.MULTILINE)
        run_yaml = directory / "stock.yaml"
        run_yaml.write_text(text)
    if checkout == PROJECT or not llama.exists():
        llama = Path(sys.executable).parent / "llama"
    env = {f"{each}_UPSTREAM_URL": url for each in ("OPENAI", "GEMINI", "ANTHROPIC")}
    env |= {"HOME": str(directory), "PYTHONPATH": str(checkout)}
    return running(name, llama, "stack", "run", run_yaml, **env)


def measure(options: argparse.Namespace, directory: Path) -> dict[str, Figures]:
    """The medians of all servers, which take turns."""
    with ExitStack() as opened:
        say("starting the servers")
        direct = opened.enter_context(running("direct", *PEERS))
        url = f"http://127.0.0.1:{direct.port}"
        servers = [direct, opened.enter_context(running("bare", *PEERS, url))]
        stock = None if options.quick else PROJECT
        checkouts = {"stock": stock, "before": options.against, "this": PROJECT}
        servers += [
            opened.enter_context(stack(name, checkout.resolve(), url, directory))
            for name, checkout in checkouts.items()
            if checkout
        ]
        # Twice, since the first calls are no measurement: stock makes its tables then.
        figures = {server.name: load.slow_stream(server) for server in servers * 2}
        rounds: dict[str, list[Figures]] = {name: [] for name in figures}
        for number in range(options.rounds):
            for server in servers:
                say(f"round {number + 1}: {server.name}")
                spans = STOCK if server.name == "stock" else SPANS
                rounds[server.name].append(load.one_round(server, *spans))
        for server in servers:
            found = rounds[server.name]
            medians = {n: statistics.median(f[n] for f in found) for n in found[0]}
            figures[server.name] |= medians
            # Stock has no time for 500 at once.
            if server.name != "stock":
                say(f"{load.HELD} slow streams: {server.name}")
                figures[server.name] |= uvloop.run(load.held_streams(server))
        return figures


def table(figures: dict[str, Figures]) -> str:
    rows = [("", "", *figures, "")]
    for what, unit, row, form, compared in ROWS:
        of = {name: found[row] for name, found in figures.items() if row in found}
        cells = [f"{of[name]:{form}}" if name in of else "-" for name in figures]
        rows.append((what, unit, *cells, _verdict(of, form, compared)))
    return aligned(rows, range(2, len(figures) + 2))


def _verdict(of: Figures, form: str, compared: str) -> str:
    this, parts = of["this"], list[str]()
    if compared == "ratio":
        parts = [f"{this / of['bare']:.2f} of bare"]
        parts += [f"{this / of['stock']:.0f} x stock"] if "stock" in of else []
    elif compared:
        parts = [f"{this - of[compared]:+{form}} over {compared}"]
    if compared and of.get("before"):
        parts.append(f"{this / of['before']:.2f} of before")
    return ", ".join(parts)


def _machine() -> str:
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    cpus = f"{os.cpu_count()} CPUs ({cpu[1] if cpu else 'unknown'})"
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return f"{time.strftime('%F')}, {cpus}, Python {sys.version.split()[0]}\n{packages}"


def main() -> None:
    parser = argparse.ArgumentParser("python -m tools.bench")
    parser.add_argument("--quick", action="store_true", help="one round, without stock")
    against = "another checkout of this project to compare with (column `before`)"
    parser.add_argument("--against", metavar="DIR", type=Path, help=against)
    options = parser.parse_args()
    options.rounds = 1 if options.quick else ROUNDS
    if not shutil.which("wrk"):
        sys.exit("make bench needs wrk, a load generator: apt-get install wrk")
    end_on_signals()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    # A stream that is relayed takes two.
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    start, busy = time.monotonic(), os.getloadavg()[0]
    try:
        with tempfile.TemporaryDirectory() as name:
            figures = measure(options, Path(name))
    except (AssertionError, OSError, CalledProcessError) as error:
        sys.exit(f"bench: {error}")
    how = f"rounds: {options.rounds}, in {time.monotonic() - start:.0f} s"
    print(f"{_machine()}\n{how}, load average before it: {busy:.1f}\n")
    print(table(figures))


if __name__ == "__main__":
    main()
