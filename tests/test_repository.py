"""The Makefile, CI and the files for deployment agree with the project."""

import re
import shutil
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.support import docs
from tests.support.run_yaml import PROJECT

MAKEFILE = (PROJECT / "Makefile").read_text()
TARGETS = re.findall(r"(?m)^([a-z-]+):", MAKEFILE)
PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text())
CI = (PROJECT / ".github/workflows/ci.yml").read_text()
CONTAINERFILE = (PROJECT / "deploy/Containerfile").read_text()


@pytest.fixture
def clone(tmp_path: Path) -> docs.Clone:
    return docs.Clone(tmp_path)


def _remove_uv_and_new_pythons(clone: docs.Clone) -> None:
    """Leave on the PATH the programs that every machine has, and an old Python."""
    (clone.bin / "uv").unlink()
    clone.program("python3", "exit 1")
    for name in ("sh", "make", "awk", "cp", "echo", "env", "grep", "mkdir", "sort"):
        (clone.bin / name).symlink_to(shutil.which(name) or f"no {name} here")
    clone.env["PATH"] = str(clone.bin)


def test_make_without_a_new_python_lists_its_targets_in_columns(
    clone: docs.Clone,
) -> None:
    _remove_uv_and_new_pythons(clone)

    status, output = clone.run("make")

    names = re.findall(r"(?m)^make ([a-z-]+ +)\S", output)
    assert (status, names) == (0, [f"{target:9}" for target in TARGETS])
    assert f".PHONY: {' '.join(TARGETS)}\n" in MAKEFILE


def test_make_server_without_a_new_python_says_what_to_install(
    clone: docs.Clone,
) -> None:
    _remove_uv_and_new_pythons(clone)

    status, output = clone.run("make server")

    assert status == 2
    assert "Python 3.12 or newer is required" in output
    assert not (clone.path / ".uv").exists()


@pytest.mark.parametrize("target", [t for t in TARGETS if t != "help"])
def test_target_installs_uv_once_and_passes_args_on(
    clone: docs.Clone, target: str
) -> None:
    _remove_uv_and_new_pythons(clone)
    # As pyenv's shim does for a program of another Python version.
    clone.program("uv", "exit 127")
    venv = f'echo "python $*"; mkdir -p .uv/bin; cp {clone.bin}/spare-pip .uv/bin/pip'
    clone.program("python3.13", f'[ "$1" = -c ] || {{ {venv}; }}')
    clone.program("spare-pip", f'echo "pip $*"; cp {clone.bin}/spare-uv .uv/bin/uv')
    clone.program("spare-uv", 'echo "uv $*"')

    runs = [clone.run(f"make --silent {target} ARGS='-x y'") for _ in range(2)]

    (_, first), (status, second) = runs
    assert first == (
        "No working uv found: installing one into .uv/ (only this once).\n"
        "python -m venv --clear .uv\n"
        "pip install --disable-pip-version-check uv>=0.13,<0.14\n" + second
    )
    assert status == 0
    assert all(line.startswith("uv run --frozen ") for line in second.splitlines())
    assert target == "lint" or second.endswith(" -x y\n")


DOTENV = """\
# keys with quotes and spaces
OPENAI_API_KEY='sk-one'
GEMINI_API_KEY = two words
MISTRAL_API_KEY=sk-four
LLS_HOST="0.0.0.0"  # all interfaces
LLS_WORKERS=2
OPENAI_UPSTREAM_URL=http://127.0.0.1:1/$(touch run)
"""


def test_make_server_reads_settings_but_no_key_from_dotenv(clone: docs.Clone) -> None:
    """The environment takes precedence; no value is run by a shell."""
    _remove_uv_and_new_pythons(clone)
    clone.program("dotenv", f'exec {Path(sys.executable).with_name("dotenv")} "$@"')
    clone.program("uv", 'if [ "$1" != --version ]; then shift 2; exec "$@"; fi')
    clone.program("python", 'echo "$*"; env | grep -E "_KEY|LLS_|OPENAI" | sort')
    (clone.path / ".env").write_text(DOTENV)
    env = {"ANTHROPIC_API_KEY": "sk-three", "LLS_WORKERS": "3"}

    expected = """\
-m lls_openai run.yaml
LLS_HOST=0.0.0.0
LLS_WORKERS=3
OPENAI_UPSTREAM_URL=http://127.0.0.1:1/$(touch run)
"""
    assert clone.run("make --silent server", **env) == (0, expected)
    assert not (clone.path / "run").exists()


def test_make_lint_fails_when_ruff_does(clone: docs.Clone) -> None:
    _remove_uv_and_new_pythons(clone)
    clone.program("uv", 'if [ "$1" != --version ]; then shift 2; exec "$@"; fi')
    clone.program("ruff", "exit 1")

    assert clone.run("make --silent lint")[0] == 2


def test_ci_runs_the_commands_of_ci_run() -> None:
    lines = (PROJECT / ".ci/run").read_text().splitlines()
    commands = [line.split(" <")[0] for line in lines if line.startswith("make")]
    steps = yaml.safe_load(CI)["jobs"]["check"]["steps"]
    runs = [step["run"] for step in steps if "run" in step]
    assert runs == ['pip install "uv>=0.13,<0.14"', *commands]


def test_make_and_the_image_install_the_uv_of_ci() -> None:
    assert "UV_VERSION := uv>=0.13,<0.14\n" in MAKEFILE
    assert '"uv>=0.13,<0.14"' in CONTAINERFILE


def test_ci_tests_each_python_from_the_oldest_on() -> None:
    matrix = yaml.safe_load(CI)["jobs"]["check"]["strategy"]["matrix"]
    assert matrix == {"python": ["3.12", "3.13", "3.14"]}
    assert PYPROJECT["project"]["requires-python"] == ">=3.12"


def test_uv_takes_the_only_python_that_is_installed(clone: docs.Clone) -> None:
    """It would download 3.12 if .python-version asked for that."""
    (clone.path / ".venv").unlink()
    python = Path(sys.base_prefix, "bin", f"python3.{sys.version_info.minor}")
    (clone.bin / "python3").symlink_to(python)
    clone.env |= {"PATH": str(clone.bin), "UV_PYTHON_DOWNLOADS": "never"}

    status, found = clone.run("unset VIRTUAL_ENV; uv python find")

    assert status == 0, found
    assert Path(found.strip()).parent == clone.bin


@pytest.mark.parametrize("file", ["Containerfile", "kubernetes.yaml"])
def test_image_tag_is_the_version_of_the_project(file: str) -> None:
    text = (PROJECT / "deploy" / file).read_text() + docs.PAGES["docs/operating.md"]
    version = PYPROJECT["project"]["version"]
    assert set(re.findall(r"lls-openai:(\S+?)[\s`]", text)) == {version}


def test_changelog_has_an_entry_for_the_version() -> None:
    version = PYPROJECT["project"]["version"]
    assert f"\n## {version}\n" in docs.PAGES["docs/CHANGELOG.md"]


def test_build_context_has_only_the_files_that_the_containerfile_copies() -> None:
    """So that neither .env nor a forgotten file gets into an image."""
    rules = (PROJECT / ".dockerignore").read_text().splitlines()
    copied = " ".join(re.findall(r"(?m)^COPY (?!--)(.+) \S+$", CONTAINERFILE)).split()
    assert rules[1] == "*"
    assert {rule[1:] for rule in rules if rule.startswith("!")} == {*copied}


def test_git_ignores_the_files_of_the_documented_commands(clone: docs.Clone) -> None:
    names = "ca.pem company-ca.pem jwks/jwks.json server.log server.pem"
    names += " server-key.pem token.txt .env .venv/bin/python .uv/bin/uv"
    (clone.path / ".venv").unlink()

    _, ignored = clone.run(f"git init -q; git check-ignore --no-index {names}")

    assert ignored.split() == names.split()
