"""Where a client comes from: the newest one, in a temporary directory."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

_INSTALL_SECONDS = 300


class MissingError(Exception):
    """This machine lacks a program; the message names it."""


class FailedError(Exception):
    """A program failed; the message is what it has printed."""


class Installed(NamedTuple):
    """A client: its version, where it is, and what PATH begins with for it."""

    version: str
    directory: Path
    programs: Path


def python(name: str, more: str, directory: Path) -> Installed:
    """Install a distribution for Python into a virtual environment."""
    uv = os.environ.get("UV") or find("uv", "none; pip has it")
    own = str(directory / "bin/python")
    run([uv, "venv", "-q", "--python", sys.executable, "."], directory)
    run([uv, "pip", "install", "-q", "--python", own, name + more], directory)
    code = f"import importlib.metadata as m; print(m.version({name!r}))"
    version = run([own, "-c", code], directory).strip()
    return Installed(version, directory, directory / "bin")


def npm(name: str, more: str, directory: Path) -> Installed:
    """Install a package for Node, and those that it is used with."""
    program, _ = find("npm", "npm"), find("node", "nodejs")
    # npm 11 runs the install scripts of those packages alone that are named so.
    package = {"private": True, "allowScripts": {name: True}}
    (directory / "package.json").write_text(json.dumps(package))
    quiet = ["--no-audit", "--no-fund"]
    run([program, "install", *quiet, name, *more.split()], directory)
    modules = directory / "node_modules"
    version = json.loads((modules / name / "package.json").read_text())["version"]
    return Installed(version, directory, modules / ".bin")


def command(name: str, package: str, directory: Path) -> Installed:
    """Take a command of this machine, which a package of Debian's would bring."""
    version = run([find(name, package), "--version"], directory).split()[1]
    return Installed(version, directory, directory)


def find(program: str, package: str) -> str:
    """The path of a program of this machine."""
    if found := shutil.which(program):
        return found
    raise MissingError(f"{program} is not installed here (Debian: {package})")


def run(
    arguments: list[str],
    directory: Path,
    env: Mapping[str, str] | None = None,
    text: str = "",
    seconds: float = _INSTALL_SECONDS,
) -> str:
    """Run a program to its end with `text` as its input; what it has printed."""
    # An active environment would be the one that uv installs into.
    own = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    program = Path(arguments[0]).name
    try:
        ran = subprocess.run(
            arguments,
            cwd=directory,
            env=env or own,
            input=text,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise FailedError(f"{program}: not done in {seconds:g} s") from None
    if ran.returncode:
        told = " ".join(f"{ran.stdout} {ran.stderr}".split())
        raise FailedError(f"{program} ({ran.returncode}): {told}")
    return ran.stdout
