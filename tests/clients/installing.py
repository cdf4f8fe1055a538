"""Where a client comes from; each function gives the version that it has installed."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path


class MissingError(Exception):
    """This machine lacks a program; the message names it."""


class FailedError(Exception):
    """A program failed; the message is what it has printed."""


def python(requirement: str, directory: Path) -> str:
    """Install a distribution for Python into a virtual environment."""
    uv, own = os.environ.get("UV", "uv"), str(directory / "bin/python")
    run([uv, "venv", "-q", "--python", sys.executable, "."], directory)
    run([uv, "pip", "install", "-q", "--python", own, requirement], directory)
    (name,) = re.findall(r"^[\w-]+", requirement)
    code = f"import importlib.metadata as m; print(m.version({name!r}))"
    return run([own, "-c", code], directory).strip()


def npm(packages: str, directory: Path) -> str:
    """Install a package for Node, and those that it is used with."""
    name, *more = packages.split()
    # npm 11 runs the install scripts of those packages alone that are named so.
    package = {"private": True, "allowScripts": {name: True}}
    (directory / "package.json").write_text(json.dumps(package))
    run(["npm", "install", "--no-audit", "--no-fund", name, *more], directory)
    installed = directory / "node_modules" / name / "package.json"
    return str(json.loads(installed.read_text())["version"])


def command(name: str, directory: Path) -> str:
    """Take a command of this machine."""
    return run([name, "--version"], directory).split()[1]


def run(
    arguments: list[str],
    directory: Path,
    env: Mapping[str, str] | None = None,
    text: str = "",
    seconds: float = 300,
) -> str:
    """Run a program to its end with `text` as its input; what it has printed."""
    program = Path(arguments[0]).name
    try:
        ran = subprocess.run(
            arguments,
            cwd=directory,
            env=env,
            input=text,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except FileNotFoundError:
        raise MissingError(f"{program} is not installed here") from None
    except subprocess.TimeoutExpired:
        raise FailedError(f"{program}: not done in {seconds:g} s") from None
    if ran.returncode:
        told = " ".join(f"{ran.stdout} {ran.stderr}".split())
        raise FailedError(f"{program} ({ran.returncode}): {told}")
    return ran.stdout
