"""The commands of README do what it says, run in a shell as they stand.

Beside the keys, only addresses are not README's: ports are this test's own, by
LLAMA_STACK_PORT or in the place of README's number, and the vendors are the mock.
"""

import json
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from tests import readme, stand_in_curl
from tests.checkout import Checkout
from tests.server import Server, free_port
from tests.upstream import Upstream, in_background

# As people write them: the shell's own way of reading would fail on each line.
DOTENV = """\
# my keys
OPENAI_API_KEY = sk-openai  # the good one
GEMINI_API_KEY='a gemini key'
ANTHROPIC_API_KEY="sk-ant$(touch run)"
NOTE=two words and a `touch run`
"""
KEYS = {
    "OpenAI": "sk-openai",
    "Gemini": "a gemini key",
    "Anthropic": "sk-ant$(touch run)",
}
STAND_IN = "stand-in"
CURLS = [STAND_IN, *(["curl"] if stand_in_curl.has_curl() else [])]
ALL_OK = [["ok", "ok"]] * 5


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """A fresh copy of the project."""
    return Checkout(tmp_path)


def test_make_demo_shows_it_working(checkout: Checkout) -> None:
    """The first command of README ends well, with every model asked both ways."""
    command = readme.section("lls-openai").block("sh")
    ended = checkout.run(command, LLAMA_STACK_PORT=str(free_port()))
    assert (ended.returncode, _table(ended.stdout)) == (0, ALL_OK), ended.stderr


class Started(NamedTuple):
    """A server that a command of README has started."""

    command: str
    port: int


@pytest.fixture(scope="module")
def first_steps(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """The copy in which the commands of "Run it" are given."""
    return Checkout(tmp_path_factory.mktemp("first_steps"))


@pytest.fixture(scope="module")
def started(first_steps: Checkout) -> Iterator[list[Started]]:
    """Each command that starts a server, all at once: a boot takes seconds."""
    make_server, _, without_make = readme.section("Run it").blocks("sh")
    elsewhere = readme.section("Another port, another interface").block("sh")
    with ExitStack() as stack:
        mocks = stack.enter_context(in_background())
        servers = []
        for command in (make_server, *without_make.splitlines(), elsewhere):
            port = free_port()
            here = re.sub(r"(--port) \d+", rf"\1 {port}", command)
            variables = mocks.environment | {"LLAMA_STACK_PORT": str(port)}
            if here != command:
                del variables["LLAMA_STACK_PORT"]
            stack.enter_context(first_steps.running(here, **variables))
            servers.append(Started(command, port))
        for server in servers:
            first_steps.wait_until_listening(server.port)
        yield servers


def test_each_command_starts_a_server(
    started: list[Started], http: httpx.Client
) -> None:
    """With make and without, here and on another port: five models are listed."""
    listed = {
        server.command: len(
            http.get(f"http://127.0.0.1:{server.port}/v1/models").json()["data"]
        )
        for server in started
    }
    assert listed == {server.command: 5 for server in started}
    assert len(started) == 4


def test_make_client_asks_with_the_keys_of_dotenv(
    started: list[Started], first_steps: Checkout
) -> None:
    """After `cp .env.example .env` and the keys put into it, every model answers."""
    dotenv = first_steps.path / ".env"
    filled = re.sub(
        r"(_API_KEY)=$", r"\1=a-key", dotenv.read_text(), flags=re.MULTILINE
    )
    dotenv.write_text(filled)
    command = readme.section("Run it").blocks("sh")[1]
    ended = first_steps.run(command, LLAMA_STACK_PORT=str(started[0].port))
    assert (ended.returncode, _table(ended.stdout)) == (0, ALL_OK), ended.stderr


def _curls() -> list[str]:
    _, *commands = readme.section("Call it").block("sh").split("\n\n")
    return commands


@pytest.mark.parametrize("curl", CURLS)
@pytest.mark.parametrize("command", _curls())
def test_curl_gets_an_answer(
    server: Server, upstream: Upstream, checkout: Checkout, command: str, curl: str
) -> None:
    """After the line that loads the keys, each call arrives with its vendor's key."""
    if curl == STAND_IN:
        python = f'"{sys.executable}" "{stand_in_curl.__file__}"'
        checkout.program("curl", f'exec {python} "$@"')
    (checkout.path / ".env").write_text(DOTENV)
    load = readme.section("Call it").block("sh").split("\n\n")[0]
    here = command.replace("localhost:8321", f"127.0.0.1:{server.port}")
    ended = checkout.run(f"{load}\n{here}")

    (vendor,) = [vendor for vendor in upstream.vendors if vendor.calls]
    (call,) = vendor.calls
    assert KEYS[vendor.dialect.name] == call.key
    said = f"{call.json['model']} heard: Hello"
    assert said == _said(ended.stdout, streamed="stream" in call.json), ended.stderr
    assert not (checkout.path / "run").exists()


def test_curl_is_shown_for_each_vendor_both_ways() -> None:
    """Three vendors, regular and streamed."""
    shown = [
        (re.findall(r'"model": "(\w+)/', command), '"stream": true' in command)
        for command in _curls()
    ]
    vendors = (["openai"], ["gemini"], ["anthropic"])
    assert shown == [(vendor, way) for vendor in vendors for way in (False, True)]


def test_llama_stack_refuses_what_readme_says(
    server: Server, http: httpx.Client
) -> None:
    """A closed route and a client of another version, with a message and no code."""
    refused = [
        http.get(f"{server.url}/v1/files"),
        http.get(
            f"{server.url}/v1/models", headers={"X-LlamaStack-Client-Version": "0.6.1"}
        ),
    ]
    told = [(answer.status_code, list(answer.json()["error"])) for answer in refused]
    assert told == [(403, ["message"]), (426, ["message"])]


def _said(output: str, *, streamed: bool) -> str:
    """The text of an answer, or of a stream that ends as it should."""
    if not streamed:
        text: str = json.loads(output)["choices"][0]["message"]["content"]
        return text
    *events, done = re.findall(r"^data: (.+)$", output, re.MULTILINE)
    assert done == "[DONE]"
    choices = [choice for event in events for choice in json.loads(event)["choices"]]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


def _table(output: str) -> list[list[str]]:
    """What the client's summary says of each model: regular, streamed."""
    lines = output.partition("regular  streamed")[2].splitlines()[1:]
    return [line.split()[1:3] for line in lines if re.match(r"\S+/\S+ ", line)]
