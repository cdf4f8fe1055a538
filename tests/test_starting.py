"""What is wrong with its configuration ends the server with one line that says so."""

import asyncio
import json
import os
import socket
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path

import httpx
import pytest
import yaml
from pydantic import ValidationError

from lls_openai.__main__ import main
from lls_openai.provider import get_adapter_impl
from lls_openai.settings import ProviderConfig
from tests.support.http import MODELS, bearer
from tests.support.run_yaml import PROVIDERS, RUN_YAML, Variation
from tests.support.server import Server, Servers

# What is in the place of run.yaml, or is put into it, or into `config` of a provider,
# or into the environment.
type Given = bytes | str | Mapping[str, str]

URL = "OPENAI_UPSTREAM_URL"
PORT = "LLAMA_STACK_PORT"
UPSTREAMS = [URL, "GEMINI_UPSTREAM_URL", "ANTHROPIC_UPSTREAM_URL"]
CONFIG = "providers.inference.openai.config"
SIZES = ["max_request_bytes", "max_bytes_in_flight", "caller_timeout", "drain_timeout"]
# What is found in one go, without the values; Llama Stack would drop unknown keys.
SIZES_TOLD = [f"{CONFIG}.{name}: Input should be greater than 0" for name in SIZES]
KEYS_TOLD = """\
server.auth.route_policy.0.permitt: unknown key; \
server.auth.route_policy.1.permit.paths: Field required; \
logging_config.category_level: unknown key; zzz: unknown key
"""
KEYS = """
server: {auth: {route_policy: [{permitt: x, permit: {paths: [/a]}}, {permit: {}}]}}
logging_config: {category_level: {}}
zzz: 1
"""
WRONG: list[tuple[str, Given]] = [
    (KEYS_TOLD, KEYS),
    ("openai.config.allowed_model: unknown key", "config: {allowed_model: []}"),
    ("; ".join(SIZES_TOLD), f"config: {dict.fromkeys(SIZES, 0)}"),
    ("tls.verify: ", "config: {network: {tls: {verify: /not/there}}}"),
    ("the variable NO is not set", "config: {base_url: '${env.NO}'}"),
    ("run.yaml is not YAML", b"a: ["),
    ("run.yaml is not YAML", b"\xff\xfe"),
    ("run.yaml: providers: Field required", b""),
    ("run.yaml: Input should be a valid dictionary", b"- a"),
    ("base_url: ", {URL: "https://user:secret@host"}),
    ("base_url: ", {URL: "https://host/?key=secret"}),
    ("LLS_WORKERS", {"LLS_WORKERS": "0"}),
    (PORT, {PORT: "http"}),
    (PORT, {PORT: "65536"}),
]
# What operators put in beside the lines of docs/operating.md, with which a test boots.
RIGHT = """
server:
  host: 192.0.2.1
  cors: {allow_origins: ["https://page.example"], max_age: 600}
  quota: {kvstore: {backend: kv_memory, namespace: quota}, period: day}
  auth:
    provider_config: {type: custom, endpoint: "http://127.0.0.1:9"}
    route_policy: [{permit: {paths: [/v1/models]}, when: user with developer in roles}]
    access_policy: [{permit: {actions: [read]}, description: all}]
config:
  api_key: a-key
  forward_headers: {a: b}
  network:
    tls: {verify: false, min_version: TLSv1.2}
    proxy: {url: "http://127.0.0.1:9", no_proxy: [a.b]}
    headers: {X-A: b}
"""

type Start = Callable[..., str]

# Llama Stack reads its own configuration through a field that it calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")


def written(directory: Path, given: Given) -> Path:
    if isinstance(given, bytes):
        (path := directory / "run.yaml").write_bytes(given)
        return path
    run_yaml = yaml.safe_load(given) if isinstance(given, str) else {}
    config = run_yaml.pop("config", None)
    return Variation(run_yaml, {"openai": config} if config else {}).write(directory)


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Start:
    """Call the command's own function; gives its one line.

    To load Llama Stack in a process of its own takes seconds.
    """

    def start(*arguments: str, **env: str) -> str:
        # Where nobody can listen: what passes would serve, in this process.
        monkeypatch.setenv("LLS_HOST", "192.0.2.1")
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["lls_openai", *arguments])
        monkeypatch.setattr(os, "_exit", sys.exit)
        with pytest.raises(SystemExit) as ended:
            main()
        output = capfd.readouterr()
        # 3 is uvicorn's own status for a server that does not come up.
        assert (ended.value.code, output.out, output.err.count("\n")) == (3, "", 1)
        assert output.err.startswith("lls-openai: ")
        return output.err

    return start


@pytest.mark.parametrize(("says", "given"), WRONG, ids=[str(row[1]) for row in WRONG])
def test_what_is_wrong_is_one_line(
    start: Start, tmp_path: Path, says: str, given: Given
) -> None:
    """It says what and where, but no value that may be secret."""
    env = given if isinstance(given, Mapping) else {}

    line = start(str(written(tmp_path, given)), **env)

    assert says in line
    assert "secret" not in line


def test_what_is_right_passes(start: Start, tmp_path: Path) -> None:
    """All is well but the interface, which is looked at last."""
    line = start(str(written(tmp_path, RIGHT)), "--port", "8321")

    assert line.startswith("lls-openai: cannot listen on 192.0.2.1:8321: ")


def test_a_missing_file_and_a_taken_port_are_named(start: Start) -> None:
    """The port before workers start, of which none would say it."""
    missing = start("not/there.yaml")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        own = {"LLS_HOST": "127.0.0.1", PORT: port, "LLS_WORKERS": "2"}
        line = start(str(RUN_YAML), **own)

    assert missing.endswith("cannot read not/there.yaml: No such file or directory\n")
    assert f"cannot listen on 127.0.0.1:{port}: stop what listens there" in line


def test_a_certificate_that_cannot_be_read_is_named(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """With the provider that it is for, while Llama Stack makes that."""
    monkeypatch.setattr(os, "_exit", sys.exit)
    network = {"tls": {"verify": str(RUN_YAML)}}
    config = ProviderConfig(base_url="https://vendor.test", network=network)

    with pytest.raises(SystemExit):
        asyncio.run(get_adapter_impl(config, {}))

    start = "lls-openai: run.yaml: the network block of https://vendor.test/: "
    assert capfd.readouterr().err.startswith(start)


def test_a_password_in_a_setting_is_in_no_error() -> None:
    """Where nobody has looked at run.yaml before: Llama Stack as a library."""
    with pytest.raises(ValidationError) as wrong:
        ProviderConfig(base_url="https://somebody:secret@vendor.test")

    assert "secret" not in str(wrong.value)


def test_the_version_is_told(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["lls_openai", "--version"])
    with pytest.raises(SystemExit):
        main()

    own, stack = version("lls-openai"), version("llama-stack")
    assert capfd.readouterr().out == f"lls-openai {own}, llama-stack {stack}\n"


# It asks nobody for models at its start, which it would be told in the log.
NOBODY = dict.fromkeys(UPSTREAMS, "http://127.0.0.1:9")


@pytest.mark.server(
    as_module=True, cwd=Path("/"), env=NOBODY | {"HOME": "/dev/null/none"}
)
def test_starts_anywhere_and_asks_nobody(server: Server, client: httpx.Client) -> None:
    """Without a home, in the root directory, and without a call; one line greets."""
    listed = client.get(MODELS).json()["data"]

    assert len(listed) == 5
    lines = [json.loads(line) for line in server.log.splitlines()]
    assert {line["level"] for line in lines} == {"info"}
    (line,) = [each for each in lines if "lls-openai" in each["event"]]
    assert {"event", "level", "logger", "timestamp"} <= line.keys()
    said = version("lls-openai"), f"{server.url}/v1,", "workers: 1,", listed[0]["id"]
    assert [each for each in said if each not in line["event"]] == []


STOCK = [{"provider_id": name, "module": None} for name in PROVIDERS]


@pytest.mark.server({"providers": {"inference": STOCK}}, env=NOBODY)
def test_starts_on_the_stock_provider(server: Server, client: httpx.Client) -> None:
    """Without the `module:` lines run.yaml serves as well."""
    listed = client.get(MODELS, headers=bearer())

    assert "openai/gpt-4o" in {each["id"] for each in listed.json()["data"]}
    assert "lls_openai" not in server.log


UNKNOWN = {"provider_id": "a", "provider_type": "remote::nothing", "config": {}}
LATER = {
    # It would listen on every interface.
    "server.hostt: unknown key": Variation({"server": {"hostt": "x"}}),
    "remote::nothing": Variation(
        {"providers": {"inference": [UNKNOWN]}}, as_module=True
    ),
    "listen on 127.0.0.1:{port}: stop": Variation(),
}


@pytest.mark.parametrize("says", LATER)
def test_what_is_found_later_is_told_too(servers: Servers, says: str) -> None:
    """By Llama Stack, or under its own command: no traceback, nor status 0."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1] if "{port}" in says else None
        server = servers.start(LATER[says], port, ready=False)
        assert server.wait_exit(90) == 3

    (line,) = [x for x in server.log.splitlines() if "lls-openai: " in x]
    assert says.format(port=port) in line
