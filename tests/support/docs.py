"""The pages of the documentation, and a clone of the project to run their commands."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from tests.support.http import eventually
from tests.support.run_yaml import PROJECT, RUN_YAML, merge
from tests.support.server import clean_environment, listens

# Set by `make test`; a make that a test runs must not inherit them.
_OUTER_MAKE = {"MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS", "ARGS"}
_SEPARATOR = "\x1e"

PAGES = {
    str(path.relative_to(PROJECT)): path.read_text()
    for path in (
        PROJECT / "README.md",
        *sorted((PROJECT / "docs").glob("*.md")),
        *sorted((PROJECT / ".github").glob("*.md")),
    )
}


def section(page: str, title: str) -> str:
    """Return the text between a heading and the next one."""
    _, found, rest = PAGES[page].partition(f"# {title}\n")
    assert found, f"{page} has no section {title!r}"
    return re.split(r"(?m)^#+ \w", rest, maxsplit=1)[0]


def blocks(text: str, language: str) -> list[str]:
    """Return the fenced code blocks of a language."""
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```$", text)


def rows(text: str) -> list[list[str]]:
    """Return the cells of a table's rows, without the header and the backticks."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = (line.strip("|").replace("`", "").split("|") for line in lines[2:])
    return [[cell.strip() for cell in row] for row in cells]


# The page of each section with a snippet of run.yaml.
SECTIONS = {
    title: page
    for page in ("docs/operating.md", "docs/models.md")
    for title in re.findall(r"(?m)^##+ (.+)$", PAGES[page])
}


def snippets(title: str, language: str) -> list[str]:
    """Return the code blocks of a section of these pages."""
    return blocks(section(SECTIONS[title], title), language)


def run_yaml_with(titles: Iterable[str]) -> Any:  # noqa: ANN401 - any YAML
    """Return run.yaml with the snippets of these sections merged into it."""
    config = yaml.safe_load(RUN_YAML.read_text())
    for title in sorted(titles):
        (snippet,) = snippets(title, "yaml")
        config = merge(config, yaml.safe_load(snippet))
    return config


class Clone:
    """A copy of the tracked files, in which the commands of the pages run."""

    def __init__(self, directory: Path) -> None:
        """Copy the project; its .venv is the environment that runs the tests."""
        self.path = directory / "clone"
        lines = (PROJECT / ".gitignore").read_text().splitlines()
        ignored = [line.strip("/") for line in lines if not line.startswith("#")]
        skip = shutil.ignore_patterns(".git", *ignored)
        shutil.copytree(PROJECT, self.path, ignore=skip)
        (self.path / ".venv").symlink_to(sys.prefix)
        self.bin = directory / "bin"
        self.bin.mkdir()
        # The uv that runs these tests, or the one that the Makefile finds.
        own = PROJECT / ".uv/bin/uv"
        uv = os.environ.get("UV") or (own if own.exists() else shutil.which("uv"))
        (self.bin / "uv").symlink_to(uv or "no uv: run the tests with `make test`")
        # Without a progress meter in the output.
        (directory / ".curlrc").write_text("silent\nshow-error\n")
        self.env = {"HOME": str(directory), "PATH": f"{self.bin}:{os.environ['PATH']}"}
        self.env |= {"UV_NO_SYNC": "1", "UV_OFFLINE": "1"}

    def program(self, name: str, script: str) -> None:
        """Write a shell script that comes first on the PATH."""
        (path := self.bin / name).unlink(missing_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def set_dotenv(self, values: Mapping[str, str]) -> None:
        """Fill in the lines of .env, as a user does in an editor."""
        dotenv = self.path / ".env"
        for name, value in values.items():
            text, count = re.subn(
                rf"(?m)^{name}=.*$", f"{name}={value}", dotenv.read_text()
            )
            assert count == 1, f".env has {count} lines for {name}"
            dotenv.write_text(text)

    @contextmanager
    def _started(
        self,
        script: str,
        variables: Mapping[str, str],
        output: int,
        end: signal.Signals,
    ) -> Iterator["subprocess.Popen[str]"]:
        """Run a script; signal its process group when the context ends."""
        machine = clean_environment()
        env = {name: machine[name] for name in machine.keys() - _OUTER_MAKE}
        with subprocess.Popen(
            ["/bin/sh", "-euc", script],
            cwd=self.path,
            env=env | self.env | dict(variables),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            # Its own process group, as in a terminal.
            start_new_session=True,
        ) as process:
            try:
                yield process
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, end)
                    with suppress(subprocess.TimeoutExpired):
                        process.wait(15)
                    # For a process of the group that ignored the signal.
                    os.killpg(process.pid, signal.SIGKILL)

    def run(self, script: str, **variables: str) -> tuple[int, str]:
        """Run a script to its end; return its status and output."""
        end = signal.SIGKILL
        with self._started(script, variables, subprocess.PIPE, end) as process:
            output, _ = process.communicate(timeout=60)
        return process.returncode, output

    def run_in_one_shell(self, scripts: Sequence[str]) -> list[str]:
        """Run scripts one after the other in one shell; return the output of each."""
        separate = f"printf '{_SEPARATOR}'\n"
        status, output = self.run(separate.join(scripts))
        assert status == 0, output
        return output.split(_SEPARATOR)

    @contextmanager
    def running(self, script: str, port: int, **variables: str) -> Iterator[None]:
        """Run a script that listens on `port`; interrupt it when the context ends."""
        with (
            (self.path.parent / "output").open("ab") as file,
            self._started(script, variables, file.fileno(), signal.SIGINT) as process,
        ):
            eventually(
                lambda: process.poll() is not None or listens(port),
                f"{script!r} listens",
                60,
            )
            assert process.poll() is None, self.output()
            yield

    def output(self) -> str:
        """Return everything that `running` scripts have printed so far."""
        return (self.path.parent / "output").read_text()
