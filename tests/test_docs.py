"""README and docs/ say what is there, and their commands do what they say.

Only ports, keys and the vendors, which are the mock, are not the README's.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import pytest
import yaml
from dotenv import dotenv_values

import main
from lls_openai.relay.errors import STATUS
from tests.support import docs
from tests.support.http import eventually
from tests.support.server import (
    PROJECT,
    RUN_YAML,
    Server,
    clean_environment,
    free_port,
)
from tests.support.upstream import Upstream
from tests.support.vendors import KEYS

README = "README.md"
RUN_IT, CALL_IT = docs.section(README, "Run it"), docs.section(README, "Call it")
DEMO = docs.section(README, "lls-openai")
STOPPED = "The server and the mock are stopped."
TARGETS = "help demo server client test lint bench clients soak deploy".split()
KEY_VARIABLES = {f"{name.upper()}_API_KEY": key for name, key in KEYS.items()}


@pytest.fixture
def clone(tmp_path: Path) -> docs.Clone:
    """A fresh copy of the project."""
    return docs.Clone(tmp_path)


def test_make_demo_shows_what_the_readme_shows(clone: docs.Clone) -> None:
    """All but the seconds, and nothing is left running."""
    (command,), (shown,) = docs.blocks(DEMO, "sh"), docs.blocks(DEMO, "text")

    status, output = clone.run(command, LLAMA_STACK_PORT=str(free_port()))

    def without_seconds(text: str) -> str:
        return re.sub(r"\d+\.\d s", "- s", text)

    assert status == 0, output
    assert without_seconds(shown) in without_seconds(output)
    assert STOPPED in output


def test_ctrl_c_ends_the_demo_and_its_server() -> None:
    """While the server boots."""
    port = free_port()
    mark = f"LLAMA_STACK_PORT={port}".encode()

    def running() -> list[str]:
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (process / "environ").read_bytes().split(b"\0"):
                    found.append((process / "cmdline").read_text())
            except OSError:  # It has just ended, or is another user's.
                continue
        return found

    with _demo(port) as demo:
        eventually(lambda: any("stack\0run" in each for each in running()), 60)
        os.killpg(demo.pid, signal.SIGINT)
        output, _ = demo.communicate(timeout=60)

    assert (demo.returncode, running()) == (130, [])
    assert STOPPED in output
    assert "Traceback" not in output


def test_the_demo_tells_of_a_taken_port() -> None:
    """And starts nothing."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with _demo(port) as demo:
            output, _ = demo.communicate(timeout=60)

    told = (
        f"Port {port}: Address already in use. Stop the program that uses it, or "
        "choose another port: LLAMA_STACK_PORT=8399 make demo\n"
    )
    assert (demo.returncode, output) == (1, told)


def _demo(port: int) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "tests.demo"],
        cwd=PROJECT,
        env=clean_environment() | {"LLAMA_STACK_PORT": str(port)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def test_the_first_steps_lead_to_answers(clone: docs.Clone, upstream: Upstream) -> None:
    """`cp`, `make server`, the keys into .env, `make client`: each model, both ways."""
    start, _ = docs.blocks(RUN_IT, "sh")
    port = free_port()
    env = upstream.environment | {"LLAMA_STACK_PORT": str(port)}
    url = f"http://127.0.0.1:{port}/v1/models"

    with clone.running(start, url, **env):
        dotenv = clone.path / ".env"
        text = dotenv.read_text()
        for name, key in KEY_VARIABLES.items():
            text = text.replace(f"{name}=\n", f"{name}={key}\n")
        dotenv.write_text(text)
        status, output = clone.run("make client", LLAMA_STACK_PORT=str(port))

    assert "`make client`" in RUN_IT
    assert status == 0, output
    assert len(re.findall(r"(?m)^\S+/\S+ +ok +ok ", output)) == 5


def test_without_make_it_is_llama_stacks_command(server: Server) -> None:
    """The one with which these tests start their servers."""
    _, command = docs.blocks(RUN_IT, "sh")
    program, *arguments, run_yaml = map(str, server.process.args)  # type: ignore[arg-type]
    started = [f".venv/bin/{Path(program).name}", *arguments, Path(run_yaml).name]
    assert " ".join(started) == command.strip()


@pytest.mark.parametrize("command", docs.blocks(CALL_IT, "sh"))
def test_each_curl_gets_its_answer(
    server: Server, upstream: Upstream, clone: docs.Clone, command: str
) -> None:
    """Of the shape that is shown: a whole answer, a stream, the list of models."""
    here = command.replace("curl ", "curl --silent ").replace("8321", str(server.port))

    _, output = clone.run(here, **KEY_VARIABLES)

    said = [r.json["model"] for v in upstream.vendors for r in v.requests]
    if "/v1/models" in command:
        models = yaml.safe_load(RUN_YAML.read_text())["registered_resources"]["models"]
        listed = [each["id"] for each in json.loads(output)["data"]]
        assert listed == [f"{m['provider_id']}/{m['model_id']}" for m in models]
    elif '"stream"' in command:
        assert said == ["gemini-2.5-flash-lite"]
        assert output.endswith("data: [DONE]\n\n")
    else:
        (shown,) = map(json.loads, docs.blocks(CALL_IT, "json"))
        assert said == [shown["model"].removesuffix("-2024-08-06")]
        assert _shape(shown) <= _shape(json.loads(output))


def _shape(value: object, path: str = "") -> set[str]:
    """The paths of all fields."""
    items = value.items() if isinstance(value, dict) else ()
    items = enumerate(value) if isinstance(value, list) else items
    return {path}.union(*(_shape(each, f"{path}.{key}") for key, each in items))


def test_the_python_lines_get_an_answer(server: Server, upstream: Upstream) -> None:
    """As they stand, with a key."""
    (program,) = docs.blocks(CALL_IT, "python")
    here = program.replace("8321", str(server.port))
    here = here.replace("your own key of the vendor", KEYS["openai"])

    said = subprocess.check_output(
        [sys.executable, "-c", here], env=clean_environment(), text=True, timeout=60
    )

    assert said == "gpt-4o heard: Hello\n"
    assert len(upstream.openai.requests) == 1


def test_the_table_of_models_is_that_of_run_yaml() -> None:
    """Each registered model, its name and its key."""
    models = yaml.safe_load(RUN_YAML.read_text())["registered_resources"]["models"]
    told = docs.rows(docs.section(README, "The five models"))
    assert [row[:3] for row in told] == [
        [
            f"{model['provider_id']}/{model['provider_model_id']}",
            model["metadata"]["display_name"],
            main.key_variable(f"{model['provider_id']}/"),
        ]
        for model in models
    ]


def test_the_table_of_variables_is_that_of_the_example() -> None:
    """With the defaults, which are those of run.yaml (test_distribution)."""
    told = {name: default for name, default, _ in docs.rows(docs.section(README, "Settings"))}
    assert dotenv_values(PROJECT / ".env.example") == told | dict.fromkeys(KEY_VARIABLES, "")


def test_the_table_of_errors_is_that_of_the_code() -> None:
    """Each code with its status, some of which share a row."""
    told = {
        (code, status)
        for statuses, codes, _ in docs.rows(docs.section(README, "Errors"))
        for code in codes.split(", ")
        for status in statuses.split(", ")
        if len(statuses.split(", ")) == 1 or str(STATUS[code]) == status
    }
    # One is told inside a stream, and one with two statuses.
    extra = {("request_too_large", "431"), ("upstream_disconnected", "–")}
    own = {(c, str(s)) for c, s in STATUS.items() if c != "upstream_disconnected"}
    assert told | extra == own | extra


def test_the_routes_are_those_of_the_policy() -> None:
    """README names what run.yaml opens."""
    policy = yaml.safe_load(RUN_YAML.read_text())["server"]["auth"]["route_policy"]
    opened = {path.removesuffix("/*") for path in policy[0]["permit"]["paths"]}
    assert set(re.findall(r"`(/v1/[a-z/_]+)`", CALL_IT)) == opened


def test_the_readme_is_short() -> None:
    """700 words, and the rest is in docs/."""
    assert len(docs.PAGES[README].split()) <= 700


@pytest.mark.parametrize("page", docs.PAGES)
def test_what_a_page_names_is_there(page: str) -> None:
    """Files that it links to, tests, and targets of make."""
    text = docs.PAGES[page]
    here = (PROJECT / page).parent
    linked = re.findall(r"\]\((?!https?:)([^)#]+)", text)
    tests = re.findall(r"`(tests/[\w/.]+)`", text)
    targets = {*re.findall(r"\bmake ([a-z]+)`", text), *re.findall(r"(?m)^make (\w+)", text)}

    assert [link for link in linked if not (here / link).exists()] == []
    assert [name for name in tests if not (PROJECT / name).exists()] == []
    assert targets - {*TARGETS} == set()


def _makes_only(clone: docs.Clone) -> None:
    """Leave nothing on the PATH but what every machine has: no uv, no Python."""
    (clone.bin / "uv").unlink()
    for name in "sh make awk cp echo env grep mkdir printenv sort".split():
        (clone.bin / name).symlink_to(shutil.which(name) or f"no {name} here")
    clone.env["PATH"] = str(clone.bin)


def test_make_lists_every_target(clone: docs.Clone) -> None:
    """In columns, with neither uv nor Python there, and installs nothing."""
    _makes_only(clone)

    status, output = clone.run("make")

    makefile = (PROJECT / "Makefile").read_text()
    rules = re.findall(r"(?m)^([a-z]+):", makefile)
    assert rules == TARGETS
    assert re.findall(r"(?m)^make (\w+ +)\S", output) == [f"{t:9}" for t in TARGETS]
    assert re.search(r"\.PHONY: (.*)", makefile)[1].split() == TARGETS  # type: ignore[index]
    assert (status, (clone.path / ".uv").exists()) == (0, False)


@pytest.mark.parametrize("target", TARGETS[1:])
def test_make_runs_each_target_with_a_uv_of_its_own(
    clone: docs.Clone, target: str
) -> None:
    """It is installed once, by the first Python that is new enough; ARGS are handed on."""
    _makes_only(clone)
    # What pyenv leaves on the PATH for a program of another Python version.
    clone.program("uv", "exit 127")
    clone.program("python3", "exit 1")
    make_pip = 'mkdir -p .uv/bin && cp "${0%/*}/spare-pip" .uv/bin/pip'
    clone.program("python3.13", f'[ "$1" = -c ] || {{ echo "python $*"; {make_pip}; }}')
    clone.program("spare-pip", 'echo "pip $*"; cp "${0%/*}/../../../bin/spare-uv" .uv/bin/uv')
    clone.program("spare-uv", 'if [ "$1" = --version ]; then echo uv; else echo "uv $*"; fi')

    outputs = [clone.run(f"make --silent {target} ARGS='-x y'") for _ in range(2)]

    installed = (
        "No working uv here: installing one into .uv/, this once.\n"
        "python -m venv --clear .uv\n"
        "pip install --disable-pip-version-check uv\n"
    )
    (first, output), (second, used) = outputs
    assert (first, second, output) == (0, 0, installed + used)
    assert all(line.startswith("uv run --frozen ") for line in used.splitlines())
    assert target == "lint" or used.endswith(" -x y\n")


@pytest.mark.parametrize("python", ["exit 1", None])
def test_make_tells_of_a_missing_python(clone: docs.Clone, python: str | None) -> None:
    """What to install, and nothing is left."""
    _makes_only(clone)
    if python:
        clone.program("python3", python)

    status, output = clone.run("make server")

    assert status == 2
    assert "This needs Python 3.12 or newer" in output
    assert "https://docs.astral.sh/uv/" in output
    assert not (clone.path / ".uv").exists()


def test_make_server_takes_settings_from_dotenv_and_no_key(clone: docs.Clone) -> None:
    """As people write them; the environment goes before; a failing check fails lint."""
    _makes_only(clone)
    dotenv = Path(sys.executable).with_name("dotenv")
    clone.program("dotenv", f'exec "{dotenv}" "$@"')
    obedient = 'if [ "$1" != --version ]; then shift 2; exec "$@"; fi'
    clone.program("uv", obedient)
    clone.program("python", 'echo "$*"; printenv | grep -E "_KEY|LLS_|OPENAI" | sort')
    clone.program("ruff", "exit 1")
    (clone.path / ".env").write_text(
        "# the keys of two words\n"
        "OPENAI_API_KEY='sk-one'\n"
        "GEMINI_API_KEY = two words\n"
        'LLS_HOST="0.0.0.0"  # the whole network\n'
        "LLS_WORKERS=2\n"
        "OPENAI_UPSTREAM_URL=http://127.0.0.1:1/$(touch run)\n"
    )
    env = {"ANTHROPIC_API_KEY": "sk-three", "LLS_WORKERS": "3"}

    assert clone.run("make --silent server", **env) == (
        0,
        "-m lls_openai run.yaml\n"
        "LLS_HOST=0.0.0.0\n"
        "LLS_WORKERS=3\n"
        "OPENAI_UPSTREAM_URL=http://127.0.0.1:1/$(touch run)\n",
    )
    assert not (clone.path / "run").exists()
    assert clone.run("make --silent lint")[0] == 2
