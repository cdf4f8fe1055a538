"""What is wrong with its configuration ends the server with one line that says so."""

import json
import os
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import httpx
import pytest
import yaml

from lls_openai.__main__ import main
from tests.support.http import MODELS, bearer
from tests.support.server import RUN_YAML, Server, Variation, free_port
from tests.support.upstream import Upstream
from tests.support.wire import Json

# uvicorn's own status for a server that does not come up.
FAILED = 3
TAKEN = "{taken}"
HTTPS = "HTTPS enabled"

pytestmark = pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")


@dataclass(frozen=True)
class Wrong:
    """A server that cannot start, and what its one line says.

    `content` is run.yaml as it stands, or else `run_yaml` and `openai` (that provider's
    settings) change the real one; in `env` TAKEN is a port where somebody listens.
    """

    says: str
    run_yaml: Json = field(default_factory=dict)
    openai: Json = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None

    def write(self, directory: Path) -> str:
        """Write its run.yaml."""
        if self.content is None:
            providers = {"openai": self.openai} if self.openai else {}
            return str(Variation(self.run_yaml, providers).write(directory))
        path = directory / "run.yaml"
        path.write_bytes(self.content)
        return str(path)


def entry(**fields: object) -> Json:
    """A change of run.yaml that leaves one provider, with more in its entry."""
    config = {"base_url": "https://host"}
    first = {"provider_id": "a", "provider_type": "remote::passthrough"}
    only = first | {"module": "lls_openai", "config": config} | fields
    resources = {"models": [{"model_id": "m", "provider_id": "a"}]}
    return {"providers": {"inference": [only]}, "registered_resources": resources}


def unknown(where: str, near: str, run_yaml: Json) -> Wrong:
    """A key that Llama Stack would drop without a word."""
    return Wrong(f"unknown key {where}, did you mean {near}?\n", run_yaml)


PERMIT = {"permit": {"paths": ["/v1/models"]}}
CUSTOM = {"type": "custom", "endpoint": "http://127.0.0.1:9"}
UNKNOWN = {
    "hostt": unknown("server.hostt", "host", {"server": {"hostt": "::"}}),
    "auht": unknown("server.auht", "auth", {"server": {"auht": {}}}),
    "storag": unknown("storag", "storage", {"storag": {}}),
    "a policy's": unknown(
        "server.auth.route_policies",
        "route_policy",
        {"server": {"auth": {"route_policies": []}}},
    ),
    "in a list": unknown(
        "server.auth.route_policy.0.permitt",
        "permit",
        {"server": {"auth": {"route_policy": [PERMIT | {"permitt": {}}]}}},
    ),
    "the authentication's": unknown(
        "server.auth.provider_config.endpont",
        "endpoint",
        {"server": {"auth": {"provider_config": CUSTOM | {"endpont": "x"}}}},
    ),
    "CORS's": unknown(
        "server.cors.allow_origin",
        "allow_origins",
        {"server": {"cors": {"allow_origin": []}}},
    ),
    "a store's": unknown(
        "storage.backends.kv_memory.dbpath",
        "db_path",
        {"storage": {"backends": {"kv_memory": {"dbpath": "x"}}}},
    ),
    "the log's": unknown(
        "logging_config.category_level",
        "category_levels",
        {"logging_config": {"category_level": {}}},
    ),
    "a provider's": unknown(
        "providers.inference.0.modul", "module", entry(modul="lls_openai")
    ),
    "the network's": Wrong("network.timout", openai={"network": {"timout": 5}}),
    "TLS's": Wrong("network.tls.verfy", openai={"network": {"tls": {"verfy": False}}}),
    "like no other": Wrong("unknown key zzz\n", {"zzz": 1}),
}
FILES = {
    "no YAML": Wrong("run.yaml is not YAML", content=b"a: ["),
    "no text": Wrong("run.yaml is not YAML", content=b"\xff\xfe"),
    "an empty file": Wrong("run.yaml holds no settings", content=b""),
    "no providers": Wrong("providers: Field required", content=b"version: 2"),
    "an unset variable": Wrong(
        "the variable NOT_SET is not set", openai={"base_url": "${env.NOT_SET}"}
    ),
    "a misspelt list": Wrong("allowed_model: ", openai={"allowed_model": []}),
    "a wrong type": Wrong("max_request_bytes: ", openai={"max_request_bytes": "a"}),
    "no body": Wrong("max_request_bytes: ", openai={"max_request_bytes": 0}),
    "no bodies": Wrong("max_bytes_in_flight: ", openai={"max_bytes_in_flight": 0}),
    "no time": Wrong("caller_timeout: ", openai={"caller_timeout": 0}),
    "no drain": Wrong("drain_timeout: ", openai={"drain_timeout": -1}),
    "no certificate": Wrong(
        "network.tls.verify: ", openai={"network": {"tls": {"verify": "/not/there"}}}
    ),
    "a rule without paths": Wrong(
        "server.auth.route_policy.0.permit.paths: Field required",
        {"server": {"auth": {"route_policy": [{"permit": {}}]}}},
    ),
}
VARIABLES = {
    url: Wrong("base_url: ", env={"OPENAI_UPSTREAM_URL": url})
    for url in ("nowhere", "ftp://host", "https://u:password@host", "https://host/?a=b")
} | {
    "workers that are no number": Wrong("server.workers: ", env={"LLS_WORKERS": "a"}),
    "no workers": Wrong("LLS_WORKERS", env={"LLS_WORKERS": "0"}),
    "no port": Wrong("LLAMA_STACK_PORT", env={"LLAMA_STACK_PORT": "http"}),
    "a port too high": Wrong("LLAMA_STACK_PORT", env={"LLAMA_STACK_PORT": "65536"}),
    "another interface": Wrong(
        "cannot listen on 192.0.2.1", env={"LLS_HOST": "192.0.2.1"}
    ),
    "a taken port": Wrong("stop what listens", env={"LLAMA_STACK_PORT": TAKEN}),
}
FOUND_FIRST = {**UNKNOWN, **FILES, **VARIABLES}
# What is found after Llama Stack has begun: under its own command, and by it.
FOUND_LATER = {
    "an unknown key": (UNKNOWN["hostt"], False),
    "a misspelt list": (FILES["a misspelt list"], False),
    "a taken port": (VARIABLES["a taken port"], False),
    "an unknown provider type": (
        Wrong("remote::nothing", entry(provider_type="remote::nothing", module=None)),
        True,
    ),
    "a certificate that is none": (
        Wrong(
            "the network block of https://host/: ",
            openai={
                "base_url": "https://host",
                "network": {"tls": {"verify": str(RUN_YAML)}},
            },
        ),
        True,
    ),
}
# Everything that operators put in, spelt as Llama Stack spells it.
RIGHT: Json = {
    "logging_config": {"category_levels": {"all": "info"}},
    "server": {
        "host": "192.0.2.1",
        "tls_certfile": "cert.pem",
        "tls_keyfile": "key.pem",
        "cors": {"allow_origins": ["https://page.example"], "max_age": 600},
        "quota": {
            "kvstore": {"backend": "kv_memory", "namespace": "quota"},
            "anonymous_max_requests": 100,
            "authenticated_max_requests": 1000,
            "period": "day",
        },
        "auth": {
            "provider_config": CUSTOM,
            "route_policy": [PERMIT | {"when": "user with caller in roles"}],
            "access_policy": [{"permit": {"actions": ["read"]}, "description": "all"}],
        },
    },
}
RIGHT_NETWORK = {
    "tls": {"verify": False, "min_version": "TLSv1.2"},
    "proxy": {"url": "http://127.0.0.1:9", "no_proxy": ["a.b"]},
    "timeout": {"connect": 1, "read": 2},
    "headers": {"X-A": "b"},
}


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


@pytest.mark.parametrize("wrong", FOUND_FIRST.values(), ids=FOUND_FIRST)
def test_what_is_wrong_is_one_line(
    start: Start, tmp_path: Path, taken: str, wrong: Wrong
) -> None:
    """It says what and where, and not the value, which may be secret."""
    env = {name: value.replace(TAKEN, taken) for name, value in wrong.env.items()}

    line = start(wrong.write(tmp_path), **{"LLAMA_STACK_PORT": str(free_port())} | env)

    assert wrong.says in line
    assert "password" not in line


def test_a_file_that_is_not_there_is_one_line(start: Start) -> None:
    """It is named as it was given."""
    line = start("not/there.yaml")

    assert line == (
        "lls-openai: cannot read not/there.yaml: No such file or directory\n"
    )


def test_what_is_right_passes(start: Start, tmp_path: Path) -> None:
    """All is well but the interface, which is looked at last."""
    providers = {"openai": {"network": RIGHT_NETWORK, "forward_headers": {"a": "b"}}}

    line = start(str(Variation(RIGHT, providers).write(tmp_path)), "--port", "8321")

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


def test_what_is_found_later_is_one_line_too(
    start_server: Callable[..., Server], taken: str
) -> None:
    """Under `llama stack run` as well, which would end with a traceback or status 0."""

    def end(wrong: Wrong, *, checked: bool) -> tuple[str, int, list[str]]:
        port = int(taken) if TAKEN in wrong.env.values() else None
        server = start_server(
            wrong.run_yaml,
            providers={"openai": wrong.openai} if wrong.openai else {},
            checked=checked,
            port=port,
            ready=False,
        )
        status = server.wait(90)
        own = [x for x in server.log.splitlines(keepends=True) if "lls-openai: " in x]
        return wrong.says, status, own

    with ThreadPoolExecutor(2) as pool:
        ends = [pool.submit(end, w, checked=c) for w, c in FOUND_LATER.values()]
    for says, status, own in (each.result() for each in ends):
        assert (status, len(own)) == (FAILED, 1), own
        assert says in own[0]


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
