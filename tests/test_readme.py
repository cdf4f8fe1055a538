"""README, .env.example, run.yaml, the Makefile and the code say the same."""

import inspect
import re
from typing import Any

import yaml
from dotenv import dotenv_values
from llama_stack.cli.stack import run as llama_stack_run
from llama_stack.core.datatypes import process_cors_config

import main
from lls_openai.config import ProviderConfig
from lls_openai.errors import RelayError
from lls_openai.upstream import CONNECT_TIMEOUT, READ_TIMEOUT
from tests import readme
from tests.server import PROJECT, RUN_YAML

VENDORS = {
    "openai": "OpenAI",
    "openai-mini": "OpenAI",
    "gemini": "Google",
    "anthropic": "Anthropic",
}
# Llama Stack's command has it, not run.yaml.
PORT = "LLAMA_STACK_PORT"
EXAMPLE = dotenv_values(PROJECT / ".env.example")
MAKE = re.compile(r"\bmake ([a-z]+)")
KEYS = {name for name in EXAMPLE if name.endswith("_API_KEY")}


def test_the_models_are_those_of_run_yaml() -> None:
    """The table has each registered model, its name, its vendor and its key."""
    models = yaml.safe_load(RUN_YAML.read_text())["registered_resources"]["models"]
    registered = [
        [
            f"{model['provider_id']}/{model['provider_model_id']}",
            model["metadata"]["display_name"],
            VENDORS[model["provider_id"]],
            main.key_variable(model["provider_id"] + "/"),
        ]
        for model in models
    ]
    assert registered == readme.section("The five models").rows


def test_the_keys_are_those_of_the_example() -> None:
    """.env.example has room for each key of the table, and holds none."""
    needed = {row[3] for row in readme.section("The five models").rows}
    assert (needed, {""}) == (KEYS, {EXAMPLE[name] for name in KEYS})


def test_the_settings_are_those_of_run_yaml() -> None:
    """The table, .env.example and run.yaml name the same variables and defaults."""
    text = RUN_YAML.read_text()
    in_use = "\n".join(line.partition("#")[0] for line in text.splitlines())
    read = dict(re.findall(r"\$\{env\.(\w+):=([^}]*)\}", in_use)) | {PORT: "8321"}
    told = {name: default for name, default, _ in _settings()}
    offered = {name: value for name, value in EXAMPLE.items() if name not in KEYS}
    assert (read, read) == (told, offered)


def test_the_port_is_the_same_everywhere() -> None:
    """The server's, the client's and the one in every address of a route."""
    source = inspect.getsource(llama_stack_run)
    (server,) = re.findall(rf'os\.getenv\("{PORT}", (\d+)\)', source)
    client = re.findall(r'"(\d+)"', inspect.getsource(main.main))
    addresses = re.findall(r"localhost:(\d+)/v1", readme.TEXT)
    told = {EXAMPLE[PORT], server, *client, *addresses}
    assert told == {"8321"}


def test_the_targets_are_those_of_the_makefile() -> None:
    """README names every target, and no other."""
    makefile = (PROJECT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z]+):.*## ", makefile, re.MULTILINE))
    told = {name for code in readme.code() for name in re.findall(MAKE, code)}
    assert targets - {"help"} == told & targets
    assert told - targets == set()


def test_make_server_runs_what_readme_says() -> None:
    """The second of the commands without make is the Makefile's."""
    *_, without_make = readme.section("Run it").blocks("sh")
    command = without_make.splitlines()[1].removeprefix("uv run ")
    makefile = (PROJECT / "Makefile").read_text()
    (recipe,) = re.findall(r"(?m)^server:.*\n\t(.+)$", makefile)
    assert f" {command} " in recipe


def test_the_routes_are_those_of_the_policy() -> None:
    """README names the routes that run.yaml opens."""
    policy = yaml.safe_load(RUN_YAML.read_text())["server"]["auth"]["route_policy"]
    opened = {path.removesuffix("/*") for path in policy[0]["permit"]["paths"]}
    told = set(re.findall(r"`(/v1/[a-z/]+)`", readme.section("Call it").text))
    assert opened == told


def test_the_errors_are_those_of_the_code() -> None:
    """The table has each error with its status; one has none, inside a stream."""
    errors = {each.code: str(each.status) for each in RelayError.__subclasses__()}
    errors["upstream_disconnected"] = "–"  # noqa: RUF001 - as in the table
    table = {code: status for status, code, _ in readme.section("Errors").rows}
    assert errors == table


def test_the_defaults_of_a_provider_are_those_of_the_code() -> None:
    """What README says of size and time limits without any setting."""
    text = readme.section("Configuration").text
    (size,) = re.findall(r"`max_request_bytes`, by default (\d+)", text)
    (network,) = re.findall(r"`(network: .+?)`", text)
    timeout: Any = yaml.safe_load(network)["network"]["timeout"]
    default = ProviderConfig.model_fields["max_request_bytes"].default
    assert (default, CONNECT_TIMEOUT, READ_TIMEOUT) == (
        int(size),
        timeout["connect"],
        timeout["read"],
    )


def test_cors_for_localhost_takes_no_provider_data() -> None:
    """`cors: true` is Llama Stack's, for any port of localhost, without that header."""
    cors = process_cors_config(True)  # noqa: FBT003 - Llama Stack's signature
    assert cors is not None
    assert re.fullmatch(cors.allow_origin_regex, "http://localhost:5173")
    assert "X-LlamaStack-Provider-Data" not in cors.allow_headers


def test_each_promise_names_tests_that_are_there() -> None:
    """Every line of the promises is held by at least one file of tests."""
    text = readme.section("What is promised, and what is not").text
    promises = [line for line in text.splitlines() if line.startswith("- ")]

    named = [re.findall(r"`(tests/\w+\.py)`", line) for line in promises]

    assert all(named)
    assert [n for names in named for n in names if not (PROJECT / n).is_file()] == []


def test_links_lead_somewhere() -> None:
    """Every file that README links to is there."""
    linked = re.findall(r"\]\((?!https:)([^)]+)\)", readme.TEXT)
    assert [path for path in linked if not (PROJECT / path).exists()] == []
    assert linked != []


def _settings() -> list[list[str]]:
    return readme.section("Configuration").rows
