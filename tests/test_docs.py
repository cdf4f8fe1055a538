"""README and docs/ say what is there, and their commands do what they say.

Only ports, keys and the vendors, which are the mock, are not the README's.
"""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from dotenv import dotenv_values

import main
from lls_openai.errors import STATUS
from tests.support import docs, wire
from tests.support.http import STREAM, Raw
from tests.support.server import PROJECT, RUN_YAML, Server, clean_environment, free_port
from tests.support.upstream import Upstream
from tests.support.vendors import KEYS
from tests.support.wire import DONE, LAST_CHUNK, chunk, stream

README = "README.md"
FIRST = docs.section(README, "lls-openai")
RUN_IT, CALL_IT = docs.section(README, "Run it"), docs.section(README, "Call it")
CONFIG = yaml.safe_load(RUN_YAML.read_text())
LISTED = CONFIG["registered_resources"]["models"]
MAKEFILE = (PROJECT / "Makefile").read_text()
TARGETS = re.findall(r"(?m)^([a-z]+):", MAKEFILE)
KEY_VARIABLES = {f"{name.upper()}_API_KEY": key for name, key in KEYS.items()}


@pytest.fixture
def clone(tmp_path: Path) -> docs.Clone:
    return docs.Clone(tmp_path)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Future[tuple[int, str]]]:
    """The README's first command, which runs beside other tests."""
    clone, port = docs.Clone(tmp_path_factory.mktemp("demo")), str(free_port())
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(clone.run, *docs.blocks(FIRST, "sh"), LLAMA_STACK_PORT=port)


@pytest.mark.usefixtures("demo")
def test_the_first_steps_lead_to_answers(clone: docs.Clone, upstream: Upstream) -> None:
    """`cp`, `make server`, the keys into .env, `make client`: each model, both ways.

    Ctrl-C reaches make, uv, which passes it on, and the server: a stream ends whole.
    """
    start, _ = docs.blocks(RUN_IT, "sh")
    port = free_port()
    env = upstream.environment | {"LLAMA_STACK_PORT": str(port)}

    with clone.running(start, port, **env):
        dotenv = clone.path / ".env"
        for name, key in KEY_VARIABLES.items():
            dotenv.write_text(dotenv.read_text().replace(f"{name}=", f"{name}={key}"))
        status, output = clone.run("make client", LLAMA_STACK_PORT=str(port))
        upstream.openai.pause = 0.1
        upstream.openai.script(*stream(*[wire.FIRST] * 10, DONE))
        running = Raw(port)
        running.send(STREAM)
        running.read_until(wire.FIRST)

    assert "`make client`" in RUN_IT
    assert status == 0, output
    assert len(re.findall(r"(?m)^\S+/\S+ +ok +ok ", output)) == 5
    with running:
        assert running.rest().endswith(chunk(DONE) + LAST_CHUNK)


def test_without_make_it_is_llama_stacks_command(server: Server) -> None:
    """The one with which these tests start their servers."""
    _, command = docs.blocks(RUN_IT, "sh")
    program, *arguments, path = server.command
    started = [f".venv/bin/{Path(program).name}", *arguments, Path(path).name]
    assert " ".join(started) == command.strip()


def test_each_curl_gets_its_answer(
    server: Server, upstream: Upstream, clone: docs.Clone
) -> None:
    (shown,) = map(json.loads, docs.blocks(CALL_IT, "json"))

    whole, streamed, listed = (
        clone.run(
            each.replace("curl ", "curl -s ").replace("8321", str(server.port)),
            **KEY_VARIABLES,
        )[1]
        for each in docs.blocks(CALL_IT, "sh")
    )

    assert shown["model"].startswith(upstream.openai.request.json["model"])
    assert _fields(shown) <= _fields(json.loads(whole))
    assert upstream.gemini.request.json["model"] == "gemini-2.5-flash-lite"
    assert streamed.endswith("data: [DONE]\n\n")
    ids = [each["id"] for each in json.loads(listed)["data"]]
    assert ids == [f"{each['provider_id']}/{each['model_id']}" for each in LISTED]


def _fields(value: object) -> set[str]:
    text = yaml.safe_dump(value, default_flow_style=False)
    return set(re.findall(r"(?m)^[ -]*(\w+):", text))


def test_the_python_lines_get_an_answer(server: Server, upstream: Upstream) -> None:
    (program,) = docs.blocks(CALL_IT, "python")
    here = program.replace("8321", str(server.port))
    here = here.replace("your own key of the vendor", KEYS["openai"])

    command, env = [sys.executable, "-c", here], clean_environment()
    said = subprocess.check_output(command, env=env, text=True, timeout=60)

    assert said == "gpt-4o heard: Hello\n"
    assert upstream.openai.request


def test_make_demo_shows_what_the_readme_shows(demo: Future[tuple[int, str]]) -> None:
    (shown,), (status, output) = docs.blocks(FIRST, "text"), demo.result()

    shown, printed = (re.sub(r"\d+\.\d s", "- s", each) for each in (shown, output))
    assert status == 0, output
    assert shown in printed
    assert "The server and the mock are stopped." in printed


def test_the_tables_are_those_of_the_code() -> None:
    models, variables, errors = (
        docs.rows(docs.section(README, title))
        for title in ("The five models", "Settings", "Errors")
    )
    policy = CONFIG["server"]["auth"]["route_policy"][0]["permit"]["paths"]

    assert [row[:3] for row in models] == [
        [
            f"{each['provider_id']}/{each['provider_model_id']}",
            each["metadata"]["display_name"],
            main.key_variable(f"{each['provider_id']}/"),
        ]
        for each in LISTED
    ]
    told = {name: default for name, default, _ in variables}
    example = told | dict.fromkeys(KEY_VARIABLES, "")
    assert dotenv_values(PROJECT / ".env.example") == example
    codes = {c: statuses for statuses, cs, _ in errors for c in cs.split(", ")}
    assert codes.keys() == STATUS.keys()
    # This one is an event inside a stream, with the status 200.
    assert not codes.pop("upstream_disconnected").isdecimal()
    assert [c for c, told in codes.items() if str(STATUS[c]) not in told] == []
    routes = set(re.findall(r"`(/v1/[a-z/_]+)`", CALL_IT))
    assert routes == {path.removesuffix("/*") for path in policy}


def test_the_readme_is_short() -> None:
    assert len(docs.PAGES[README].split()) <= 1000


@pytest.mark.parametrize("page", docs.PAGES)
def test_what_a_page_names_is_there(page: str) -> None:
    text = docs.PAGES[page]
    links = re.findall(r"\]\((?!https?:)([^)#]+)", text)
    files = [(PROJECT / page).parent / link for link in links]
    files += [PROJECT / name for name in re.findall(r"`(tests/[\w/.]+)`", text)]
    targets = set(re.findall(r"(?m)(?:`|^)make ([a-z]+)", text))

    assert [file for file in files if not file.exists()] == []
    assert targets - {*TARGETS} == set()


def _only_make(clone: docs.Clone) -> None:
    """Leave nothing on the PATH but what every machine has, and an old Python."""
    (clone.bin / "uv").unlink()
    clone.program("python3", "exit 1")
    for name in ("sh", "make", "awk", "cp", "echo", "env", "grep", "mkdir", "sort"):
        (clone.bin / name).symlink_to(shutil.which(name) or f"no {name} here")
    clone.env["PATH"] = str(clone.bin)


def test_without_a_new_python_make_lists_its_targets_alone(clone: docs.Clone) -> None:
    """In columns; any other says what to install, and nothing is left."""
    _only_make(clone)

    listed, refused = clone.run("make"), clone.run("make server")

    names = re.findall(r"(?m)^make (\w+ +)\S", listed[1])
    assert (listed[0], names) == (0, [f"{target:9}" for target in TARGETS])
    assert f".PHONY: {' '.join(TARGETS)}\n" in MAKEFILE
    assert refused[0] == 2
    assert "This needs Python 3.12 or newer" in refused[1]
    assert not (clone.path / ".uv").exists()


@pytest.mark.parametrize("target", [t for t in TARGETS if t != "help"])
def test_a_target_installs_uv_where_none_works(clone: docs.Clone, target: str) -> None:
    """Once, by the first Python that is new enough; ARGS are handed on."""
    _only_make(clone)
    # What pyenv leaves on the PATH for a program of another Python version.
    clone.program("uv", "exit 127")
    venv = f'echo "python $*"; mkdir -p .uv/bin; cp {clone.bin}/spare-pip .uv/bin/pip'
    clone.program("python3.13", f'[ "$1" = -c ] || {{ {venv}; }}')
    clone.program("spare-pip", f'echo "pip $*"; cp {clone.bin}/spare-uv .uv/bin/uv')
    clone.program("spare-uv", 'echo "uv $*"')

    runs = [clone.run(f"make --silent {target} ARGS='-x y'") for _ in range(2)]

    (_, first), (status, used) = runs
    assert first == (
        "No working uv here: installing one into .uv/, this once.\n"
        "python -m venv --clear .uv\n"
        "pip install --disable-pip-version-check uv\n" + used
    )
    assert status == 0
    assert all(line.startswith("uv run --frozen ") for line in used.splitlines())
    assert target == "lint" or used.endswith(" -x y\n")


def test_make_server_takes_settings_from_dotenv_and_no_key(clone: docs.Clone) -> None:
    """As people write them; the environment goes before. A complaint fails lint."""
    _only_make(clone)
    clone.program("dotenv", f'exec {Path(sys.executable).with_name("dotenv")} "$@"')
    clone.program("uv", 'if [ "$1" != --version ]; then shift 2; exec "$@"; fi')
    clone.program("python", 'echo "$*"; env | grep -E "_KEY|LLS_|OPENAI" | sort')
    clone.program("ruff", "exit 1")
    (clone.path / ".env").write_text("""\
# the keys of two words
OPENAI_API_KEY='sk-one'
GEMINI_API_KEY = two words
LLS_HOST="0.0.0.0"  # the whole network
LLS_WORKERS=2
OPENAI_UPSTREAM_URL=http://127.0.0.1:1/$(touch run)
""")
    env = {"ANTHROPIC_API_KEY": "sk-three", "LLS_WORKERS": "3"}

    expected = """\
-m lls_openai run.yaml
LLS_HOST=0.0.0.0
LLS_WORKERS=3
OPENAI_UPSTREAM_URL=http://127.0.0.1:1/$(touch run)
"""
    assert clone.run("make --silent server", **env) == (0, expected)
    assert not (clone.path / "run").exists()
    assert clone.run("make --silent lint")[0] == 2
