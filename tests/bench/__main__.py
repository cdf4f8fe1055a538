"""`python -m tests.bench`: measure all servers in turns, and print the table."""

import argparse
import os
import re
import resource
import shutil
import signal
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from subprocess import CalledProcessError, Popen

from tests.bench import load
from tests.bench.load import BenchError, Figures, Server
from tests.support.server import PROJECT, clean_environment, free_port

NO_WRK = "make bench needs wrk, a load generator (Debian, Ubuntu: apt-get install wrk)"
PACKAGES = ("llama-stack", "aiohttp", "uvicorn", "uvloop", "httptools")
PEERS = (sys.executable, "-m", "tests.bench.peers", "PORT")
UPSTREAMS = ("OPENAI_UPSTREAM_URL", "GEMINI_UPSTREAM_URL", "ANTHROPIC_UPSTREAM_URL")
BOOT_SECONDS = 60
# A stream that is relayed takes two.
DESCRIPTORS = 4096

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
    """Run a server on a free port, which it is told in the place of PORT."""
    port = str(free_port())
    own = {"LLAMA_STACK_PORT": port}
    with tempfile.TemporaryFile() as log:
        process = Popen(
            [str(part).replace("PORT", port) for part in command],
            cwd=PROJECT,
            env=clean_environment() | env | own,
            stdout=log,
            stderr=log,
            # Ctrl-C goes to the bench alone, which then ends its servers.
            start_new_session=True,
        )
        try:
            _wait_until_listening(name, int(port), process)
            yield Server(name, int(port), process.pid)
        finally:
            # Stock may be busy for minutes with logging its own failures.
            process.kill()
            process.wait()


def _wait_until_listening(name: str, port: int, process: Popen[bytes]) -> None:
    deadline = time.monotonic() + BOOT_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with socket.socket() as probe:
            if not probe.connect_ex(("127.0.0.1", port)):
                return
        time.sleep(0.05)
    raise BenchError(f"{name} has not started ({process.returncode})")


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
    env = {"HOME": str(directory), "PYTHONPATH": str(checkout)}
    env |= dict.fromkeys(UPSTREAMS, url)
    return running(name, llama, "stack", "run", run_yaml, **env)


def measure(options: argparse.Namespace, directory: Path) -> dict[str, Figures]:
    """The medians of all servers, which take turns."""
    with ExitStack() as opened:
        say("starting the servers")
        direct = opened.enter_context(running("direct", *PEERS))
        url = f"http://127.0.0.1:{direct.port}"
        servers = [direct, opened.enter_context(running("bare", *PEERS, url))]
        checkouts = {"stock": PROJECT, "before": options.against, "this": PROJECT}
        servers += [
            opened.enter_context(stack(name, checkout.resolve(), url, directory))
            for name, checkout in checkouts.items()
            if checkout
        ]
        # Twice, since the first calls are no measurement: stock makes its tables then.
        slow = [load.slow_stream(server) for server in servers * 2]
        rounds: list[list[Figures]] = [[] for _ in servers]
        for number in range(1 if options.quick else ROUNDS):
            for server, found in zip(servers, rounds, strict=True):
                say(f"round {number + 1}: {server.name}")
                spans = STOCK if server.name == "stock" else SPANS
                found.append(load.one_round(server, *spans, directory))
        figures = {}
        for server, found, most in zip(
            servers, rounds, slow[len(rounds) :], strict=True
        ):
            say(f"{load.HELD} slow streams: {server.name}")
            # Stock has no time for 500 at once.
            held = {} if server.name == "stock" else load.held_streams(server)
            medians = {n: statistics.median(f[n] for f in found) for n in found[0]}
            figures[server.name] = medians | most | held
        return figures


def table(figures: dict[str, Figures]) -> str:
    """All figures as aligned lines."""
    lines = [("", "", *figures, "")]
    for what, unit, row, form, compared in ROWS:
        of = {name: found[row] for name, found in figures.items() if row in found}
        cells = [f"{of[name]:{form}}" if name in of else "-" for name in figures]
        lines.append((what, unit, *cells, _verdict(of, form, compared)))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            f"{cell:{'>' if 2 <= at <= len(figures) + 1 else '<'}{widths[at]}}"
            for at, cell in enumerate(cells)
        ).rstrip()
        for cells in lines
    )


def _verdict(of: Figures, form: str, compared: str) -> str:
    this = of["this"]
    if not compared:
        return ""
    if compared == "ratio":
        verdict = f"{this / of['bare']:.2f} of bare, {this / of['stock']:.0f} x stock"
    else:
        verdict = f"{this - of[compared]:+{form}} over {compared}"
    if of.get("before"):
        verdict += f", {this / of['before']:.2f} of before"
    return verdict


def _machine() -> str:
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    today = datetime.now(tz=UTC).date().isoformat()
    cpus = f"{os.cpu_count()} CPUs ({cpu[1] if cpu else 'unknown'})"
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return f"{today}, {cpus}, Python {sys.version.split()[0]}\n{packages}"


def main() -> int:
    """Run the bench; 1 when a server failed, 2 when wrk is missing."""
    parser = argparse.ArgumentParser("python -m tests.bench")
    parser.add_argument("--quick", action="store_true", help="one short round")
    against = "another checkout of this project to compare with (column `before`)"
    parser.add_argument("--against", metavar="DIR", type=Path, help=against)
    options = parser.parse_args()
    if not shutil.which("wrk"):
        print(NO_WRK, file=sys.stderr)
        return 2
    # Ending by a signal takes the servers down as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(DESCRIPTORS, hard), hard))
    start, busy = time.monotonic(), os.getloadavg()[0]
    try:
        with tempfile.TemporaryDirectory() as name:
            figures = measure(options, Path(name))
    except (BenchError, OSError, CalledProcessError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    how = f"{1 if options.quick else ROUNDS} rounds in {time.monotonic() - start:.0f} s"
    print(f"{_machine()}\n{how}, load average before it {busy:.1f}\n")
    print(table(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
