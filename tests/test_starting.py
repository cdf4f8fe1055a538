"""What is wrong with its configuration ends the server with one line that says so."""

import json
import os
import socket
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from pathlib import Path

import httpx
import pytest
import yaml

from lls_openai.__main__ import main
from tests.support.http import MODELS, bearer
from tests.support.server import RUN_YAML, Server, Variation
from tests.support.upstream import Upstream

# uvicorn's own status for a server that does not come up.
FAILED = 3
HTTPS = "HTTPS enabled"

pytestmark = pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")


# A key that Llama Stack would drop without a word; the nearest; where it stands.
UNKNOWN = {
    "server.hostt": ("host", "server: {hostt: x}"),
    "server.auht": ("auth", "server: {auht: {}}"),
    "storag": ("storage", "storag: {}"),
    "server.cors.allow_origin": ("allow_origins", "server: {cors: {allow_origin: []}}"),
    "server.auth.route_policies": (
        "route_policy",
        "server: {auth: {route_policies: x}}",
    ),
    "server.auth.route_policy.0.permitt": (
        "permit",
        "server: {auth: {route_policy: [{permitt: {}, permit: {paths: [/a]}}]}}",
    ),
    "server.auth.provider_config.endpont": (
        "endpoint",
        "server: {auth: {provider_config: {type: custom, endpoint: x, endpont: x}}}",
    ),
    "storage.backends.kv_memory.dbpath": (
        "db_path",
        "storage: {backends: {kv_memory: {dbpath: x}}}",
    ),
    "logging_config.category_level": (
        "category_levels",
        "logging_config: {category_level: {}}",
    ),
    "registered_resources.models.0.metdata": (
        "metadata",
        "registered_resources: {models: [{model_id: m, provider_id: a, metdata: x}]}",
    ),
}
# What is wrong with a provider's own settings: what the line says, and the settings.
SETTINGS = {
    "an unset variable": ("the variable NO is not set", "base_url: ${env.NO}"),
    "a misspelt setting": ("allowed_model: Extra inputs", "allowed_model: []"),
    "a wrong type": ("max_request_bytes: Input", "max_request_bytes: much"),
    "no body": ("max_request_bytes: Input", "max_request_bytes: 0"),
    "no bodies": ("max_bytes_in_flight: Input", "max_bytes_in_flight: 0"),
    "no patience": ("caller_timeout: Input", "caller_timeout: 0"),
    "no drain time": ("drain_timeout: Input", "drain_timeout: 0"),
    "the network's key": (".network.timout, did you mean timeout?", "network: {timout: 5}"),
    "TLS's key": (".network.tls.verfy, did you mean verify?", "network: {tls: {verfy: false}}"),
    "no certificate": ("tls.verify: ", "network: {tls: {verify: /not/there}}"),
}
FILES = {
    "no YAML": ("run.yaml is not YAML", b"a: ["),
    "no text": ("run.yaml is not YAML", b"\xff\xfe"),
    "an empty file": ("run.yaml holds no settings", b""),
    "no providers": ("providers: Field required", b"version: 2"),
    "like no other": ("unknown key zzz\n", RUN_YAML.read_bytes() + b"zzz: 1"),
}
VARIABLES = {
    "no URL": ("base_url: ", "OPENAI_UPSTREAM_URL", "nowhere"),
    "another scheme": ("base_url: ", "OPENAI_UPSTREAM_URL", "ftp://host"),
    "a password": ("base_url: ", "OPENAI_UPSTREAM_URL", "https://u:secret@host"),
    "a query": ("base_url: ", "OPENAI_UPSTREAM_URL", "https://host/?key=secret"),
    "workers that are no number": ("server.workers: ", "LLS_WORKERS", "many"),
    "no workers": ("LLS_WORKERS", "LLS_WORKERS", "0"),
    "no port": ("LLAMA_STACK_PORT", "LLAMA_STACK_PORT", "http"),
    "a port too high": ("LLAMA_STACK_PORT", "LLAMA_STACK_PORT", "65536"),
    "another interface": ("listen on 192.0.2.1:", "LLS_HOST", "192.0.2.1"),
}
# Everything that operators put in, spelt as Llama Stack spells it.
RIGHT = """
logging_config: {category_levels: {all: info}}
server:
  host: 192.0.2.1
  tls_certfile: cert.pem
  tls_keyfile: key.pem
  cors: {allow_origins: ["https://page.example"], max_age: 600}
  quota:
    kvstore: {backend: kv_memory, namespace: quota}
    anonymous_max_requests: 100
    authenticated_max_requests: 1000
    period: day
  auth:
    provider_config: {type: custom, endpoint: "http://127.0.0.1:9"}
    route_policy: [{permit: {paths: [/v1/models]}, when: user with caller in roles}]
    access_policy: [{permit: {actions: [read]}, description: all}]
"""
RIGHT_SETTINGS = """
forward_headers: {a: b}
network:
  tls: {verify: false, min_version: TLSv1.2}
  proxy: {url: "http://127.0.0.1:9", no_proxy: [a.b]}
  timeout: {connect: 1, read: 2}
  headers: {X-A: b}
"""


@pytest.fixture(scope="module")
def taken() -> Iterator[str]:
    """A port where somebody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield str(listening.getsockname()[1])


type Start = Callable[..., str]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Start:
    """Call the command's own function, since loading Llama Stack takes seconds.

    It gives the one line, after it has checked that there is one, and the status.
    """

    def start(*arguments: str, **env: str) -> str:
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["lls_openai", *arguments])
        monkeypatch.setattr(os, "_exit", sys.exit)
        with pytest.raises(SystemExit) as ended:
            main()
        output = capfd.readouterr()
        assert (ended.value.code, output.out) == (FAILED, "")
        assert output.err.startswith("lls-openai: ")
        assert output.err.count("\n") == 1
        return output.err

    return start


@pytest.mark.parametrize("key", UNKNOWN)
def test_an_unknown_key_is_named_with_the_nearest(
    start: Start, tmp_path: Path, key: str
) -> None:
    """`hostt:` would listen on every interface, `auht:` open every route."""
    near, run_yaml = UNKNOWN[key]
    path = Variation(yaml.safe_load(run_yaml)).write(tmp_path)

    line = start(str(path))

    assert line == f"lls-openai: {path}: unknown key {key}, did you mean {near}?\n"


@pytest.mark.parametrize(("says", "settings"), SETTINGS.values(), ids=SETTINGS)
def test_a_wrong_setting_of_a_provider_is_told(
    start: Start, tmp_path: Path, says: str, settings: str
) -> None:
    """A misspelt `allowed_models`, say, would allow every model."""
    providers = {"openai": yaml.safe_load(settings)}

    assert says in start(str(Variation({}, providers).write(tmp_path)))


@pytest.mark.parametrize(("says", "content"), FILES.values(), ids=FILES)
def test_a_wrong_file_is_told(
    start: Start, tmp_path: Path, says: str, content: bytes
) -> None:
    """YAML's own many lines about it are one here."""
    path = tmp_path / "run.yaml"
    path.write_bytes(content)

    assert says in start(str(path))


@pytest.mark.parametrize(("says", "name", "value"), VARIABLES.values(), ids=VARIABLES)
def test_a_wrong_variable_is_told(
    start: Start, says: str, name: str, value: str
) -> None:
    """But not its value, which may be secret."""
    line = start(str(RUN_YAML), **{name: value})

    assert says in line
    assert "secret" not in line


def test_a_taken_port_is_told(start: Start, taken: str) -> None:
    """Also before several workers start, of which none would say it."""
    line = start(str(RUN_YAML), LLAMA_STACK_PORT=taken, LLS_WORKERS="2")

    assert f"cannot listen on 127.0.0.1:{taken}: stop what listens there" in line


def test_a_file_that_is_not_there_is_one_line(start: Start) -> None:
    """It is named as it was given."""
    line = start("not/there.yaml")

    assert line == (
        "lls-openai: cannot read not/there.yaml: No such file or directory\n"
    )


def test_what_is_right_passes(start: Start, tmp_path: Path) -> None:
    """All is well but the interface, which is looked at last."""
    right = Variation(yaml.safe_load(RIGHT), {"openai": yaml.safe_load(RIGHT_SETTINGS)})

    line = start(str(right.write(tmp_path)), "--port", "8321")

    assert line.startswith("lls-openai: cannot listen on 192.0.2.1:8321: ")


def test_the_version_is_told(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """This project's and Llama Stack's."""
    monkeypatch.setattr(sys, "argv", ["lls_openai", "--version"])

    with pytest.raises(SystemExit) as ended:
        main()

    own, stack = version("lls-openai"), version("llama-stack")
    assert (ended.value.code, capfd.readouterr().out) == (
        0,
        f"lls-openai {own}, llama-stack {stack}\n",
    )


def test_what_is_found_later_is_told_too(
    start_server: Callable[..., Server], taken: str
) -> None:
    """By Llama Stack, or under its own command: no traceback, nor status 0."""
    broken = {"network": {"tls": {"verify": str(RUN_YAML)}}}
    nothing = {
        "provider_id": "nothing",
        "provider_type": "remote::nothing",
        "config": {},
    }
    found: dict[str, Callable[[], Server]] = {
        "unknown key server.hostt": partial(
            start_server, {"server": {"hostt": "x"}}, ready=False
        ),
        f"cannot listen on 127.0.0.1:{taken}": partial(
            start_server, port=int(taken), ready=False
        ),
        "remote::nothing": partial(
            start_server,
            {"providers": {"inference": [nothing]}, "registered_resources": {}},
            checked=True,
            ready=False,
        ),
        "the network block of http": partial(
            start_server, providers={"openai": broken}, checked=True, ready=False
        ),
    }

    def end(start: Callable[[], Server]) -> tuple[int, list[str]]:
        server = start()
        status = server.wait(90)
        return status, [x for x in server.log.splitlines() if "lls-openai: " in x]

    with ThreadPoolExecutor(2) as pool:
        ended = list(pool.map(end, found.values()))

    assert [(status, len(lines)) for status, lines in ended] == [(FAILED, 1)] * 4
    assert [
        says in lines[0] for says, (_, lines) in zip(found, ended, strict=True)
    ] == [True] * 4


def test_starts_anywhere_and_asks_nobody(
    start_server: Callable[..., Server], upstream: Upstream
) -> None:
    """Without a home, in the root directory, and without a call or a key."""
    server = start_server(checked=True, cwd=Path("/"), env={"HOME": "/dev/null/none"})

    listed = httpx.get(server.url + MODELS, trust_env=False).json()["data"]

    assert len(listed) == 5
    assert [vendor.connections for vendor in upstream.vendors] == [0, 0, 0]
    assert HTTPS not in server.log
    (line,) = [x for x in server.log.splitlines() if "lls-openai" in x]
    greeting = json.loads(line)
    assert {"event", "level", "logger", "timestamp"} <= greeting.keys()
    said = (version("lls-openai"), f"{server.url}/v1", "workers: 1", listed[0]["id"])
    assert [each for each in said if each not in greeting["event"]] == []


@pytest.mark.usefixtures("upstream")
def test_starts_on_the_stock_provider(start_server: Callable[..., Server]) -> None:
    """Without the `module:` lines run.yaml serves as well."""
    entries = yaml.safe_load(RUN_YAML.read_text())["providers"]["inference"]
    stock = [{n: v for n, v in each.items() if n != "module"} for each in entries]
    server = start_server({"providers": {"inference": stock}})

    listed = httpx.get(server.url + MODELS, headers=bearer(), trust_env=False)

    assert "openai/gpt-4o" in {each["id"] for each in listed.json()["data"]}
    assert "lls_openai" not in server.log
