"""A copy of the project, in which a reader's commands run as they stand.

A person's own `.env` and `.venv` are not in it. The commands find uv on the PATH, and
uv finds the packages that run the tests: nothing is installed and nobody is asked.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from tests import environment
from tests.server import PROJECT

_FILES = (
    ".env.example",
    ".python-version",
    "Makefile",
    "README.md",
    "main.py",
    "pyproject.toml",
    "run.yaml",
    "uv.lock",
)
_FOLDERS = ("lls_openai", "tests")
# Under `make test`, the make of a test would take these for its own.
_OUTER_MAKE = ("MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS", "ARGS")
_SECONDS = 120


class Checkout:
    """The copy.

    Attributes:
        path: Where it is.
    """

    def __init__(self, directory: Path) -> None:
        """Make a copy.

        Args:
            directory: An existing directory for the copy, a home and a PATH.
        """
        self.path = directory / "project"
        self.path.mkdir()
        for name in _FILES:
            shutil.copy(PROJECT / name, self.path)
        for name in _FOLDERS:
            no_bytecode = shutil.ignore_patterns("__pycache__")
            shutil.copytree(PROJECT / name, self.path / name, ignore=no_bytecode)
        self._programs = directory / "bin"
        self._programs.mkdir()
        (self._programs / "uv").symlink_to(_working_uv())
        self._variables = {
            "HOME": str(directory),
            "PATH": f"{self._programs}:{os.environ['PATH']}",
            "UV_PROJECT_ENVIRONMENT": sys.prefix,
            "UV_FROZEN": "1",
            "UV_NO_SYNC": "1",
            "UV_OFFLINE": "1",
        }

    def program(self, name: str, script: str) -> None:
        """Put a shell script in front of everything on the PATH."""
        file = self._programs / name
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)

    def run(self, script: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a script to its end, with variables in its environment."""
        return subprocess.run(
            ["/bin/sh", "-euc", script],
            cwd=self.path,
            env=self._environment(variables),
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )

    @contextmanager
    def running(
        self, script: str, **variables: str
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Run a script while the context lasts, and end it as Ctrl-C does.

        Args:
            script: The script; what it prints goes to the file `output` in the copy.
            variables: Added to its environment.
        """
        with (self.path / "output").open("ab") as output:
            process = subprocess.Popen(
                ["/bin/sh", "-euc", script],
                cwd=self.path,
                env=self._environment(variables),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # A group of its own, as a terminal gives it.
                start_new_session=True,
            )
        try:
            yield process
        finally:
            _end(process)

    def wait_until_listening(self, port: int) -> None:
        """Wait until something that runs here listens on a port.

        Raises:
            TimeoutError: It does not; the message holds what was printed.
        """
        deadline = time.monotonic() + _SECONDS
        while time.monotonic() < deadline:
            with suppress(OSError):
                address = ("127.0.0.1", port)
                with closing(socket.create_connection(address, timeout=5)):
                    return
            time.sleep(0.05)
        message = f"nothing listens on port {port}:\n{self.output}"
        raise TimeoutError(message)

    @property
    def output(self) -> str:
        """What its running scripts have printed so far."""
        return (self.path / "output").read_text(errors="replace")

    def _environment(self, variables: dict[str, str]) -> dict[str, str]:
        machine = environment.clean()
        for name in _OUTER_MAKE:
            machine.pop(name, None)
        return machine | self._variables | variables


def _end(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGINT)
    try:
        process.wait(_SECONDS)
    finally:
        # Whoever of the group is left after that has not understood it.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _working_uv() -> str:
    """The uv that runs these tests, or one that can be found."""
    own = str(PROJECT / ".uv/bin/uv")
    candidates = (os.environ.get("UV"), shutil.which("uv"), own)
    for candidate in candidates:
        if candidate is None or not Path(candidate).exists():
            continue
        asked = subprocess.run(
            [candidate, "--version"], cwd=PROJECT, capture_output=True, check=False
        )
        if asked.returncode == 0:
            return str(Path(candidate).resolve())
    message = "no working uv: run the tests with `make test`"
    raise FileNotFoundError(message)
