"""README and docs/ taken apart, and a clone in which their commands run."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.http import eventually
from tests.support.server import PROJECT, clean_environment, listens

# Under `make test`, the make of a test would take these for its own.
_OUTER_MAKE = {"MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS", "ARGS"}

PAGES = {
    str(path.relative_to(PROJECT)): path.read_text()
    for path in (PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md")))
}


def section(page: str, title: str) -> str:
    """What stands under a heading, up to the next one."""
    _, found, rest = PAGES[page].partition(f"# {title}\n")
    assert found, f"{page} has no {title}"
    return re.split(r"(?m)^#+ \w", rest, maxsplit=1)[0]


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```$", text)


def rows(text: str) -> list[list[str]]:
    """The rows of a table, below its head, without the marks of code."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = (line.strip("|").replace("`", "").split("|") for line in lines[2:])
    return [[cell.strip() for cell in row] for row in cells]


class Clone:
    """A copy of what is under version control, or will be, without a uv of its own."""

    def __init__(self, directory: Path) -> None:
        """Copy it; the environment that runs the tests is its .venv."""
        self.path = directory / "clone"
        ignored = (PROJECT / ".gitignore").read_text().replace("/", "").split()
        skip = shutil.ignore_patterns(".git", *ignored)
        shutil.copytree(PROJECT, self.path, ignore=skip)
        (self.path / ".venv").symlink_to(sys.prefix)
        self.bin = directory / "bin"
        self.bin.mkdir()
        # The uv that runs these tests, or that the Makefile finds.
        own = PROJECT / ".uv/bin/uv"
        uv = os.environ.get("UV") or (own if own.exists() else shutil.which("uv"))
        (self.bin / "uv").symlink_to(uv or "no uv: run the tests with `make test`")
        self.env = {"HOME": str(directory), "PATH": f"{self.bin}:{os.environ['PATH']}"}
        # Nothing is installed, and nobody asked.
        self.env |= {"UV_NO_SYNC": "1", "UV_OFFLINE": "1"}

    def program(self, name: str, script: str) -> None:
        """Put a shell script in front of everything on the PATH."""
        (path := self.bin / name).unlink(missing_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    @contextmanager
    def _started(
        self, script: str, variables: dict[str, str], output: int, end: signal.Signals
    ) -> Iterator["subprocess.Popen[str]"]:
        """Run a script; the signal is for whatever of it runs when the context ends."""
        machine = clean_environment()
        env = {name: machine[name] for name in machine.keys() - _OUTER_MAKE}
        with subprocess.Popen(
            ["/bin/sh", "-euc", script],
            cwd=self.path,
            env=env | self.env | variables,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            # A group of its own, as a terminal gives it.
            start_new_session=True,
        ) as process:
            try:
                yield process
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, end)
                    with suppress(subprocess.TimeoutExpired):
                        process.wait(15)
                    # Whoever of the group is left has not understood it.
                    os.killpg(process.pid, signal.SIGKILL)

    def run(self, script: str, **variables: str) -> tuple[int, str]:
        """Run a script to its end: its status, and what it printed."""
        end = signal.SIGKILL
        with self._started(script, variables, subprocess.PIPE, end) as process:
            output, _ = process.communicate(timeout=60)
        return process.returncode, output

    @contextmanager
    def running(self, script: str, port: int, **variables: str) -> Iterator[None]:
        """Run a script while the context lasts, once it listens; then Ctrl-C."""
        with (
            (self.path.parent / "output").open("ab") as file,
            self._started(script, variables, file.fileno(), signal.SIGINT) as process,
        ):
            eventually(lambda: process.poll() is not None or listens(port), 60)
            assert process.poll() is None, self.output()
            yield

    def output(self) -> str:
        return (self.path.parent / "output").read_text()
