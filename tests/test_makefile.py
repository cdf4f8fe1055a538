"""The Makefile: its list of targets, how it finds uv, and what it hands on."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import environment
from tests.server import PROJECT

TARGETS = "help demo server client test lint bench clients soak"
TOOLS = "sh make awk cp echo env grep mkdir printenv sort"
# Under `make test`, the make of a test would take these for its own.
OUTER_MAKE = ("MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS", "ARGS")

WORKING_UV = 'if [ "$1" = --version ]; then echo uv; else echo "uv $*"; fi'
# What pyenv leaves on the PATH for a program of another Python version.
FAILING_SHIM = 'echo "pyenv: uv: command not found" >&2; exit 127'
# Runs its command as it is, with the variables that .env and the shell gave it.
OBEDIENT_UV = 'if [ "$1" != --version ]; then shift 2; exec "$@"; fi'

NEW_PYTHON = """\
if [ "$1" = -c ]; then exit 0; fi
echo "python $*"
mkdir -p .uv/bin && cp bin/spare-pip .uv/bin/pip"""
OLD_PYTHON = "exit 1"
PIP = 'echo "pip $*"; cp bin/spare-uv .uv/bin/uv'


class Folder:
    """A folder with the Makefile and a PATH of its own.

    Attributes:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        """Put nothing on the PATH but what every machine has."""
        self.path = path
        self._bin = path / "bin"
        self._bin.mkdir()
        shutil.copy(PROJECT / "Makefile", path)
        for name in TOOLS.split():
            (self._bin / name).symlink_to(shutil.which(name) or f"no {name} here")

    def program(self, name: str, script: str) -> None:
        """Put a shell script onto the PATH."""
        file = self._bin / name
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)

    def make(self, *arguments: str, **variables: str) -> tuple[int, list[str], str]:
        """Run make; return its exit status, the lines it printed, and its errors."""
        machine = environment.clean() | {"PATH": str(self._bin)}
        for name in OUTER_MAKE:
            machine.pop(name, None)
        ended = subprocess.run(
            [self._bin / "make", "--silent", *arguments],
            cwd=self.path,
            env=machine | variables,
            capture_output=True,
            text=True,
            check=False,
        )
        return ended.returncode, ended.stdout.splitlines(), ended.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """The folder."""
    return Folder(tmp_path)


def test_make_lists_the_targets(folder: Folder) -> None:
    """`make` alone shows each target with what it does, in columns."""
    status, lines, _ = folder.make()
    listed = [re.match(r"make (\w+) +", line) for line in lines]
    shown = [(match[1], match.end()) for match in listed if match]
    assert status == 0
    assert shown == [(name, len("make clients  ")) for name in TARGETS.split()]


def test_the_list_needs_nothing(folder: Folder) -> None:
    """Looking at the targets installs nothing, with no uv and no Python at all."""
    status, _, errors = folder.make("help")
    assert (status, errors, (folder.path / ".uv").exists()) == (0, "", False)


def test_a_working_uv_is_used(folder: Folder) -> None:
    """The user's own uv runs the command, from the lock file as it stands."""
    folder.program("uv", WORKING_UV)
    assert folder.make("test") == (0, ["uv run --frozen pytest"], "")


@pytest.mark.parametrize("shim", [FAILING_SHIM, None])
def test_without_a_working_uv_pip_installs_one(
    folder: Folder, shim: str | None
) -> None:
    """A uv that is missing, or there and failing, is replaced by one in .uv/, once."""
    if shim:
        folder.program("uv", shim)
    folder.program("python3", NEW_PYTHON)
    folder.program("spare-pip", PIP)
    folder.program("spare-uv", WORKING_UV)
    installed = [
        "No working uv here: installing one into .uv/, this once.",
        "python -m venv --clear .uv",
        "pip install --disable-pip-version-check uv",
    ]
    used = ["uv run --frozen pytest"]
    outcomes = [folder.make("test"), folder.make("test")]
    assert outcomes == [(0, installed + used, ""), (0, used, "")]


@pytest.mark.parametrize("target", TARGETS.split()[1:])
def test_every_target_sets_uv_up(folder: Folder, target: str) -> None:
    """Whatever a stranger tries first works without uv."""
    _, lines, _ = folder.make("--dry-run", target)
    assert "No working uv here" in lines[0]


def test_another_python_is_looked_for(folder: Folder) -> None:
    """Where python3 is too old, python3.13 will do."""
    folder.program("python3", OLD_PYTHON)
    folder.program("python3.13", NEW_PYTHON)
    folder.program("spare-pip", PIP)
    folder.program("spare-uv", WORKING_UV)
    status, lines, _ = folder.make("test")
    assert (status, lines[-1]) == (0, "uv run --frozen pytest")


@pytest.mark.parametrize("python", [OLD_PYTHON, None])
def test_a_missing_python_is_told(folder: Folder, python: str | None) -> None:
    """Without Python 3.12 the message says what to install, and nothing is left."""
    if python:
        folder.program("python3", python)
    status, _, errors = folder.make("server")
    first, second, *_, last = errors.splitlines()
    told = "Python 3.12 or newer" in first, "https://docs.astral.sh/uv/" in second
    assert (status, told, ".uv/bin/uv] Error 1" in last) == (2, (True, True), True)
    assert not (folder.path / ".uv").exists()


@pytest.mark.parametrize("target", ["server", "client", "test", "demo", "bench"])
def test_options_are_passed_on(folder: Folder, target: str) -> None:
    """ARGS stands at the end of the command."""
    folder.program("uv", WORKING_UV)
    _, lines, _ = folder.make(target, "ARGS=--model openai/gpt-4o")
    assert lines[-1].endswith(" --model openai/gpt-4o")


def test_variables_are_passed_on(folder: Folder) -> None:
    """`make server NAME=value` and `NAME=value make server` mean the same."""
    folder.program("uv", OBEDIENT_UV)
    folder.program("python", 'echo "$LLAMA_STACK_PORT"')
    outcomes = [
        folder.make("server", "LLAMA_STACK_PORT=9000"),
        folder.make("server", LLAMA_STACK_PORT="9000"),
    ]
    assert outcomes == [(0, ["9000"], "")] * 2


def test_lint_stops_at_the_first_complaint(folder: Folder) -> None:
    """A failing check is the failure of `make lint`."""
    folder.program("uv", 'if [ "$1" != --version ]; then echo "$4"; exit 1; fi')
    status, lines, _ = folder.make("lint")
    assert (status, lines) == (2, ["check"])


def test_the_server_gets_the_settings_and_no_key(folder: Folder) -> None:
    """`make server` takes settings from .env, and a key neither there nor elsewhere."""
    folder.program("uv", OBEDIENT_UV)
    folder.program("dotenv", f'exec "{Path(sys.executable).with_name("dotenv")}" "$@"')
    folder.program("python", 'echo "$*"; printenv | grep -E "_KEY|LLS_|OPENAI" | sort')
    (folder.path / ".env").write_text(
        """\
# the keys of two words
OPENAI_API_KEY='sk-one'
GEMINI_API_KEY = two words
LLS_HOST="0.0.0.0"  # the whole network
LLS_WORKERS=2
OPENAI_UPSTREAM_URL=http://127.0.0.1:1
"""
    )
    status, lines, errors = folder.make(
        "server", ANTHROPIC_API_KEY="sk-three", LLS_WORKERS="3"
    )
    expected = [
        "-m lls_openai run.yaml",
        "LLS_HOST=0.0.0.0",
        "LLS_WORKERS=3",
        "OPENAI_UPSTREAM_URL=http://127.0.0.1:1",
    ]
    assert (status, lines, errors) == (0, expected, "")
