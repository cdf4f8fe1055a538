"""The four servers that are measured, each in a process of its own."""

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.server import PROJECT, RUN_YAML, Server


class Target(NamedTuple):
    """A server that is measured.

    Attributes:
        name: Its column in the table.
        url: Its URL, without a path.
        pid: The id of the process that serves.
        says_done: Whether its streams end with `[DONE]`; stock's do not.
    """

    name: str
    url: str
    pid: int
    says_done: bool = True

    @property
    def cpu_seconds(self) -> float:
        """The CPU time it has used so far, in user and system mode."""
        stat = Path(f"/proc/{self.pid}/stat").read_text()
        # The name in parentheses may hold spaces; utime and stime are fields 14 and 15.
        fields = stat.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def resident_kib(self) -> float:
        """The memory it occupies."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1024


@contextlib.contextmanager
def direct() -> Iterator[Target]:
    """Run the upstream itself."""
    with _program("direct", "tests.bench.upstream") as target:
        yield target


@contextlib.contextmanager
def bare(upstream: str) -> Iterator[Target]:
    """Run the bare relay in front of an upstream."""
    with _program("bare", "tests.bench.bare", upstream) as target:
        yield target


@contextlib.contextmanager
def this(upstream: str, folder: Path) -> Iterator[Target]:
    """Run the server as `make server` does.

    Args:
        upstream: The upstream's URL, without a path.
        folder: An existing folder for its files.

    Yields:
        The server, ready.

    Raises:
        ServerError: It did not start.
    """
    with Server(folder, variables=_variables(upstream)) as server:
        yield Target("this", server.url, server.pid)


@contextlib.contextmanager
def stock(upstream: str, folder: Path) -> Iterator[Target]:
    """Run run.yaml on Llama Stack's own passthrough; otherwise like `this`."""
    run_yaml = folder / "run.yaml"
    run_yaml.write_text(without_module(RUN_YAML.read_text()))
    server = Server(folder, run_yaml=run_yaml, variables=_variables(upstream))
    try:
        yield Target("stock", server.url, server.pid, says_done=False)
    finally:
        # It may be busy for minutes with logging its own failures.
        server.process.kill()
        server.stop()


def without_module(run_yaml: str) -> str:
    """Return this run.yaml without its `module:` lines."""
    return re.sub(r"^ +module: .*\n", "", run_yaml, flags=re.MULTILINE)


def _variables(upstream: str) -> dict[str, str]:
    vendors = ("OPENAI", "GEMINI", "ANTHROPIC")
    return {f"{vendor}_UPSTREAM_URL": upstream for vendor in vendors}


@contextlib.contextmanager
def _program(name: str, module: str, *arguments: str) -> Iterator[Target]:
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        # Ctrl-C goes to the bench alone, which then ends its programs.
        start_new_session=True,
        text=True,
    )
    with process:
        try:
            assert process.stdout
            port = int(process.stdout.readline())
            yield Target(name, f"http://127.0.0.1:{port}", process.pid)
        finally:
            process.terminate()
