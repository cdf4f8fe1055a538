"""Where a client comes from: an environment of its own, in a temporary directory."""

import json
import os
import shutil
import subprocess
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import override

# Seconds for a registry that is slow.
_INSTALL_SECONDS = 300.0

_DRIVERS = Path(__file__).parent / "drivers"


class MissingError(Exception):
    """A program that this machine does not have; the message names it."""


class InstallError(Exception):
    """A client could not be installed; the message is the installer's last line."""


@dataclass(frozen=True)
class Installed:
    """A client that can be run.

    Attributes:
        version: Its version.
        directory: Where it is, and where its programs have to be.
        programs: The directory to put at the front of PATH.
        interpreter: What runs a driver or a snippet of the client's language.
    """

    version: str
    directory: Path
    programs: Path
    interpreter: tuple[str, ...]


class Source(ABC):
    """How a client is installed, and how a driver in its language is started."""

    @abstractmethod
    def install(self, directory: Path) -> Installed:
        """Install the client.

        Args:
            directory: An empty directory of its own.

        Raises:
            MissingError: This machine lacks what it takes.
            InstallError: The installer failed.
        """

    @abstractmethod
    def driver(self, installed: Installed, name: str) -> list[str]:
        """The command that runs a driver.

        Args:
            installed: What `install` returned.
            name: The driver's name.
        """


@dataclass(frozen=True)
class Python(Source):
    """A distribution for Python.

    Attributes:
        requirement: What to install, for example "openai>=3".
        name: The distribution whose version is told.
    """

    requirement: str
    name: str

    @override
    def install(self, directory: Path) -> Installed:
        uv = os.environ.get("UV") or shutil.which("uv")
        if uv is None:
            raise MissingError("uv is not installed here")
        programs = directory / "bin"
        python = str(programs / "python")
        _run(directory, uv, "venv", "--quiet", "--python", sys.executable, ".")
        install = ("pip", "install", "--quiet", "--python", python, self.requirement)
        _run(directory, uv, *install)
        code = f"import importlib.metadata as m; print(m.version({self.name!r}))"
        version = _run(directory, python, "-c", code)
        return Installed(version, directory, programs, (python,))

    @override
    def driver(self, installed: Installed, name: str) -> list[str]:
        return [*installed.interpreter, "-m", f"tests.clients.drivers.{name}"]


@dataclass(frozen=True)
class Npm(Source):
    """A package for Node.

    Attributes:
        name: The package.
    """

    name: str

    @override
    def install(self, directory: Path) -> Installed:
        for program in ("node", "npm"):
            if shutil.which(program) is None:
                raise MissingError(f"{program} is not installed here")
        quiet = ("--no-audit", "--no-fund", "--ignore-scripts")
        _run(directory, "npm", "install", *quiet, "--prefix", ".", self.name)
        package = directory / "node_modules" / self.name / "package.json"
        version = json.loads(package.read_text())["version"]
        return Installed(version, directory, directory, ("node",))

    @override
    def driver(self, installed: Installed, name: str) -> list[str]:
        # Node looks for packages beside the program.
        copy = shutil.copy(_DRIVERS / f"{name}.mjs", installed.directory)
        return [*installed.interpreter, str(copy)]


@dataclass(frozen=True)
class Command(Source):
    """A command that is on the machine, or is not.

    Attributes:
        name: The command.
    """

    name: str

    @override
    def install(self, directory: Path) -> Installed:
        if shutil.which(self.name) is None:
            raise MissingError(f"{self.name} is not installed here")
        version = _run(directory, self.name, "--version").split()[1]
        return Installed(version, directory, directory, (sys.executable,))

    @override
    def driver(self, installed: Installed, name: str) -> list[str]:
        return [*installed.interpreter, "-m", f"tests.clients.drivers.{name}"]


def _run(directory: Path, *command: str) -> str:
    # An active environment would be the one that uv installs into.
    variables = {k: v for k, v in os.environ.items() if k != "VIRTUAL_ENV"}
    try:
        ran = subprocess.run(
            command,
            cwd=directory,
            env=variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_INSTALL_SECONDS,
            check=True,
        )
    except subprocess.CalledProcessError as error:
        lines = error.stderr.strip().splitlines() or [f"status {error.returncode}"]
        raise InstallError(f"{Path(command[0]).name}: {lines[-1].strip()}") from None
    except subprocess.TimeoutExpired:
        message = f"{Path(command[0]).name}: not done in {_INSTALL_SECONDS:g} s"
        raise InstallError(message) from None
    return ran.stdout.strip()
