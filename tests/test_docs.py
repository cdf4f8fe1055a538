"""README.md and docs/ are true: their commands, snippets, tables and links.

Commands run as they are written, but for the port and the vendors, which are the mock.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import yaml
from dotenv import dotenv_values

import main
from lls_openai.errors import STATUS
from tests.support import docs, wire
from tests.support.http import KEYS, STREAMING_REQUEST, RawConnection
from tests.support.run_yaml import PROJECT, RUN_YAML
from tests.support.server import Server, clean_environment, free_port
from tests.support.upstream import Upstream
from tests.support.wire import DONE, LAST_CHUNK, chunk, stream

pytestmark = pytest.mark.own_processes
README = "README.md"
INTRODUCTION = docs.section(README, "lls-openai")
SETUP, RUN, CALL = (docs.section(README, title) for title in ("Setup", "Run", "Call"))
CONFIG = yaml.safe_load(RUN_YAML.read_text())
LISTED = CONFIG["registered_resources"]["models"]
MODEL_IDS = [f"{model['provider_id']}/{model['model_id']}" for model in LISTED]
MAKEFILE = (PROJECT / "Makefile").read_text()
TARGETS = re.findall(r"(?m)^([a-z-]+):", MAKEFILE)
KEY_VARIABLES = {f"{name.upper()}_API_KEY": key for name, key in KEYS.items()}


@pytest.fixture
def clone(tmp_path: Path) -> docs.Clone:
    return docs.Clone(tmp_path)


@pytest.fixture(scope="module")
def background() -> Iterator[ThreadPoolExecutor]:
    """Runs commands of the README one by one, while other tests run."""
    with ThreadPoolExecutor(1) as pool:
        yield pool


@pytest.fixture(scope="module")
def demo(
    background: ThreadPoolExecutor, tmp_path_factory: pytest.TempPathFactory
) -> Future[tuple[int, str]]:
    clone, port = docs.Clone(tmp_path_factory.mktemp("demo")), str(free_port())
    (command,) = docs.blocks(INTRODUCTION, "sh")
    return background.submit(clone.run, command, LLAMA_STACK_PORT=port)


@pytest.fixture(scope="module")
def synced(
    background: ThreadPoolExecutor, tmp_path_factory: pytest.TempPathFactory
) -> Future[Path]:
    """Run `uv sync`; it takes its packages from uv's cache, which `make test` fills."""
    clone = docs.Clone(tmp_path_factory.mktemp("synced"))
    sync, _ = docs.blocks(SETUP, "sh")
    cache = subprocess.check_output([clone.bin / "uv", "cache", "dir"], text=True)
    env = {"UV_PROJECT_ENVIRONMENT": "synced", "UV_CACHE_DIR": cache.strip()}

    def run() -> Path:
        status, output = clone.run(sync, **env)
        assert status == 0, output
        return clone.path / "synced/bin"

    return background.submit(run)


# The commands of the section "Call", in their order.
CALL_STEPS = (
    "export",
    "models",
    "openai",
    "gemini",
    "anthropic",
    "stream",
    "bearer",
    "make client",
    "uv client",
)


@dataclass
class Walkthrough:
    """A reader's results: the output of each step, and a stream cut by Ctrl-C."""

    outputs: dict[str, str]
    interrupted_stream: bytes


@pytest.fixture(scope="module")
def walkthrough(
    running_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory
) -> Walkthrough:
    """Follow the README with two terminals, and press Ctrl-C in the first one."""
    clone, port = docs.Clone(tmp_path_factory.mktemp("readme")), free_port()
    _, copy_settings = docs.blocks(SETUP, "sh")
    make_server, _ = docs.blocks(RUN, "sh")
    vendor = running_upstream.openai
    commands = [
        block.replace("8321", str(port)).replace("https://api.openai.com", vendor.url)
        for block in docs.blocks(CALL, "sh")
    ]
    settings = running_upstream.environment | {"LLAMA_STACK_PORT": str(port)}

    clone.run(copy_settings)
    clone.set_dotenv(KEY_VARIABLES | settings)
    with clone.running(make_server, port):
        outputs = clone.run_in_one_shell(commands)
        vendor.pause = 0.1
        vendor.script(*stream(*[wire.FIRST_EVENT] * 10, DONE))
        open_stream = RawConnection(port)
        open_stream.send(STREAMING_REQUEST)
        open_stream.read_until(wire.FIRST_EVENT)
    with open_stream:
        results = dict(zip(CALL_STEPS, outputs, strict=True))
        return Walkthrough(results, open_stream.read_to_end())


# These start here, and run beside the tests before their own.
@pytest.mark.usefixtures("demo", "synced")
def test_readme_export_prints_nothing(walkthrough: Walkthrough) -> None:
    assert walkthrough.outputs["export"] == ""


def test_readme_lists_five_models(walkthrough: Walkthrough) -> None:
    listed = walkthrough.outputs["models"].split()
    assert listed == [f'"{name}"' for name in MODEL_IDS]


@pytest.mark.parametrize(
    ("step", "model"),
    [
        ("openai", "gpt-4o"),
        ("gemini", "gemini-2.5-flash-lite"),
        ("anthropic", "claude-haiku-4-5-20251001"),
        ("bearer", "gpt-4o"),
    ],
)
def test_readme_curl_gets_a_response(
    step: str, model: str, walkthrough: Walkthrough
) -> None:
    output = walkthrough.outputs[step]
    (choice,) = json.loads(output)["choices"]
    assert choice["message"]["content"] == f"{model} heard: Hello", output


def test_readme_response_has_the_fields_of_a_real_one(walkthrough: Walkthrough) -> None:
    (shown,) = map(json.loads, docs.blocks(CALL, "json"))
    assert _fields(shown) <= _fields(json.loads(walkthrough.outputs["openai"]))


def _fields(value: object) -> set[str]:
    text = yaml.safe_dump(value, default_flow_style=False)
    return set(re.findall(r"(?m)^[ -]*(\w+):", text))


def test_readme_curl_streams_to_done(walkthrough: Walkthrough) -> None:
    output = walkthrough.outputs["stream"]
    assert output.startswith("data: {"), output
    assert output.endswith("data: [DONE]\n\n"), output


@pytest.mark.parametrize("step", ["make client", "uv client"])
def test_readme_client_calls_each_model_both_ways(
    step: str, walkthrough: Walkthrough
) -> None:
    output = walkthrough.outputs[step]
    assert re.findall(r"(?m)^(\S+/\S+) +ok +ok ", output) == MODEL_IDS, output


def test_ctrl_c_under_make_lets_a_stream_finish(walkthrough: Walkthrough) -> None:
    """The signal reaches make, uv and the server; uv passes it on once more."""
    assert walkthrough.interrupted_stream.endswith(chunk(DONE) + LAST_CHUNK)


def test_readme_starts_the_server_without_make(
    clone: docs.Clone, upstream: Upstream
) -> None:
    _, command = docs.blocks(RUN, "sh")
    port = free_port()
    env = upstream.environment | {"LLAMA_STACK_PORT": str(port)}

    with clone.running(command, port, **env):
        models = httpx.get(f"http://127.0.0.1:{port}/v1/models", trust_env=False)

    assert [model["id"] for model in models.json()["data"]] == MODEL_IDS


def test_uv_sync_installs_the_commands(synced: Future[Path]) -> None:
    assert (synced.result() / "llama").exists()
    assert (synced.result() / "lls-openai").exists()


def test_readme_python_snippet_prints_a_response(
    server: Server, upstream: Upstream
) -> None:
    (program,) = docs.blocks(CALL, "python")
    command = [sys.executable, "-c", program.replace("8321", str(server.port))]
    env = clean_environment() | {"OPENAI_API_KEY": KEYS["openai"]}

    printed = subprocess.check_output(command, env=env, text=True, timeout=60)

    assert printed == "gpt-4o heard: Hello\n"
    assert upstream.openai.request


def test_make_demo_prints_the_table_of_the_readme(
    demo: Future[tuple[int, str]],
) -> None:
    (shown,), (status, output) = docs.blocks(INTRODUCTION, "text"), demo.result()

    shown, printed = (re.sub(r"\d+\.\d s", "- s", each) for each in (shown, output))
    assert status == 0, output
    assert shown in printed
    assert "The server and the mock are stopped." in printed


def test_readme_models_are_those_of_run_yaml() -> None:
    assert [row[:3] for row in docs.rows(docs.section(README, "Models"))] == [
        [
            f"{model['provider_id']}/{model['provider_model_id']}",
            model["metadata"]["display_name"],
            main.key_variable(f"{model['provider_id']}/"),
        ]
        for model in LISTED
    ]


def test_readme_settings_are_those_of_env_example() -> None:
    rows = docs.rows(docs.section(README, "Settings"))
    documented = {name: default for name, default, _ in rows}
    example = dotenv_values(PROJECT / ".env.example")
    assert example == documented | dict.fromkeys(KEY_VARIABLES, "")


def test_readme_errors_are_those_of_the_code() -> None:
    rows = docs.rows(docs.section(README, "Errors"))
    statuses = {code: row[0] for row in rows for code in row[1].split(", ")}
    assert statuses.keys() == STATUS.keys()
    # An event inside a stream, whose status is 200.
    assert not statuses.pop("upstream_disconnected").isdecimal()
    assert {c for c, shown in statuses.items() if str(STATUS[c]) not in shown} == set()


def test_client_page_lists_the_open_routes() -> None:
    text = docs.section("docs/clients.md", "Routes")
    policy = CONFIG["server"]["auth"]["route_policy"][0]["permit"]["paths"]
    assert set(re.findall(r"`(/v1/[a-z/_]+)`", text)) == {
        path.removesuffix("/*") for path in policy
    }


def test_readme_has_at_most_1000_words() -> None:
    assert len(docs.PAGES[README].split()) <= 1000


@pytest.mark.parametrize("page", docs.PAGES)
def test_links_files_and_targets_of_a_page_exist(page: str) -> None:
    text, folder = docs.PAGES[page], (PROJECT / page).parent
    links = [
        link.partition("#") for link in re.findall(r"\]\((?!https?:)(.+?)\)", text)
    ]
    files = [folder / file for file, _, _ in links]
    files += [PROJECT / name for name in re.findall(r"`(tests/[\w/.]+)`", text)]
    targets = set(re.findall(r"(?m)(?:`|^)make ([a-z-]+)", text))

    assert [file for file in files if not file.exists()] == []
    anchors = [(folder / file, name) for file, _, name in links if name]
    assert [link for link in anchors if link[1] not in _anchors(link[0])] == []
    assert targets - {*TARGETS} == set()


def _anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    titles = re.findall(r"(?m)^#+ (.+)$", page.read_text())
    return {re.sub(r"[^\w -]", "", t.lower()).replace(" ", "-") for t in titles}
