"""A start that goes wrong ends with one line, which names the place, and status 3."""

import os
import re
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from lls_openai.server.command import run
from tests.support.network import Network
from tests.support.run_yaml import IS_OGX, RUN_YAML, VARIABLE, Variation

PORT = f"{VARIABLE}_PORT"
# An address for documentation (RFC 5737), which no machine has.
FOREIGN_ADDRESS = "192.0.2.1"

# Llama Stack reads its own configuration through a field that it calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")

type Start = Callable[..., str]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Start:
    """Run the command in this process, without serving; return its one line."""

    def start(*arguments: str, **env: str) -> str:
        for name, value in ({"LLS_HOST": FOREIGN_ADDRESS} | env).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["lls-openai", *arguments])
        monkeypatch.setattr(os, "_exit", sys.exit)
        with pytest.raises(SystemExit) as exited:
            run()
        output = capfd.readouterr()
        assert (exited.value.code, output.out) == (3, ""), output
        assert output.err.count("\n") == 1, output.err
        assert output.err.startswith("lls-openai: ")
        return output.err

    return start


def write(directory: Path, run_yaml: str, openai: str = "{}") -> str:
    """Write run.yaml with more keys, also in the config of the provider `openai`."""
    providers = {"openai": yaml.safe_load(openai)}
    return str(Variation(yaml.safe_load(run_yaml), providers).write(directory))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(b"a: [", "run.yaml is not YAML: ", id="syntax"),
        pytest.param(b"\xff\xfe", "run.yaml is not YAML: ", id="encoding"),
        pytest.param(b"", "run.yaml: providers: Field required", id="empty"),
        pytest.param(b"- a", "run.yaml: Input should be a valid dictionary", id="list"),
    ],
)
def test_file_that_is_no_configuration_is_reported(
    start: Start, tmp_path: Path, content: bytes, reason: str
) -> None:
    (path := tmp_path / "run.yaml").write_bytes(content)

    assert reason in start(str(path))


def test_missing_file_is_reported(start: Start) -> None:
    line = start("not/there.yaml")

    assert line.endswith("cannot read not/there.yaml: No such file or directory\n")


UNKNOWN_KEYS = """
server: {auth: {route_policy: [{permitt: x, permit: {paths: [/a]}}, {permit: {}}]}}
logging_config: {category_level: {}}
zzz: 1
"""


def test_all_wrong_keys_are_reported_in_one_line(start: Start, tmp_path: Path) -> None:
    line = start(write(tmp_path, UNKNOWN_KEYS))

    assert line.endswith(
        "/run.yaml: server.auth.route_policy.0.permitt: unknown key; "
        "server.auth.route_policy.1.permit.paths: Field required; "
        "logging_config.category_level: unknown key; zzz: unknown key\n"
    )


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        pytest.param("allowed_model: []", "allowed_model: unknown key", id="unknown"),
        pytest.param(
            "base_url: https://vendor.test/v1/chat/completions",
            "base_url: base_url must end before the route /chat/completions",
            id="route-in-url",
        ),
        pytest.param(
            "network: {tls: {verify: /not/there}}",
            "network.tls.verify: ",
            id="missing-authority",
        ),
        pytest.param(
            "base_url: '${env.NO}'", "environment variable NO is not set", id="variable"
        ),
        pytest.param(
            "max_request_bytes: 0",
            "max_request_bytes: Input should be greater than 0",
            id="max-request-bytes",
        ),
        pytest.param(
            "max_bytes_in_flight: 0",
            "max_bytes_in_flight: Input should be greater than 0",
            id="max-bytes-in-flight",
        ),
        pytest.param(
            "client_timeout: 0",
            "client_timeout: Input should be greater than 0",
            id="client-timeout",
        ),
        pytest.param(
            "drain_timeout: 0",
            "drain_timeout: Input should be greater than 0",
            id="drain-timeout",
        ),
    ],
)
def test_wrong_provider_setting_is_reported(
    start: Start, tmp_path: Path, config: str, reason: str
) -> None:
    line = start(write(tmp_path, "{}", f"{{{config}}}"))

    assert reason in line
    # An unset variable is reported before the keys are known.
    assert "NO" in reason or "providers.inference.openai.config." in line


@pytest.mark.parametrize(
    "url", ["https://user:secret@host", "https://host/?key=secret", "secret"]
)
def test_wrong_upstream_url_is_reported_by_variable_without_its_value(
    start: Start, url: str
) -> None:
    line = start(str(RUN_YAML), OPENAI_UPSTREAM_URL=url)

    assert "openai.config.base_url (OPENAI_UPSTREAM_URL): " in line
    assert "secret" not in line


def test_wrong_number_of_workers_is_reported_by_variable(start: Start) -> None:
    line = start(str(RUN_YAML), LLS_WORKERS="0")

    assert line.endswith("server.workers (LLS_WORKERS): must be at least 1\n")


@pytest.mark.parametrize(
    ("arguments", "env", "reason"),
    [
        pytest.param([], {PORT: "http"}, "'http' in", id="no-number"),
        pytest.param([], {PORT: "65536"}, "'65536' in", id="too-large"),
        pytest.param(["--port", "0"], {}, "'0' in --port", id="zero-as-option"),
    ],
)
def test_invalid_port_is_reported(
    start: Start, arguments: list[str], env: dict[str, str], reason: str
) -> None:
    line = start(str(RUN_YAML), *arguments, **env)

    assert f"invalid port {reason}" in line
    assert line.endswith(": must be 1-65535\n")


def test_empty_port_is_the_default(start: Start) -> None:
    line = start(str(RUN_YAML), **{PORT: ""})

    assert "192.0.2.1:8321: " in line
    # Llama Stack would read it again, and fail.
    assert PORT not in os.environ


HINT = f"; change {PORT} or LLS_HOST\n"


def test_address_of_another_machine_is_reported(start: Start) -> None:
    line = start(str(RUN_YAML), **{PORT: "8321"})

    reason = "Cannot assign requested address"
    assert line.endswith(f"cannot listen on 192.0.2.1:8321: {reason}{HINT}")


def test_host_that_does_not_resolve_is_reported(start: Start) -> None:
    # Too long for any resolver to look it up (RFC 1035, section 2.3.4).
    host = "a." * 150 + "test"
    line = start(str(RUN_YAML), LLS_HOST=host, **{PORT: "8321"})

    assert f"cannot listen on {host}:8321: " in line
    assert line.endswith(HINT)


def test_port_in_use_is_reported_before_workers_start(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as used:
        port = str(used.getsockname()[1])
        env = {"LLS_HOST": "127.0.0.1", PORT: port, "LLS_WORKERS": "2"}
        line = start(str(RUN_YAML), **env)

    reason = "Address already in use"
    assert line.endswith(f"cannot listen on 127.0.0.1:{port}: {reason}{HINT}")


def test_ipv6_address_in_use_is_reported_in_brackets(start: Start) -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as used:
        port = str(used.getsockname()[1])
        line = start(str(RUN_YAML), LLS_HOST="::1", **{PORT: port})

    assert f"cannot listen on [::1]:{port}: Address already in use" in line


@pytest.mark.parametrize(
    ("server", "reason"),
    [
        pytest.param(
            "tls_certfile: ${env.CERT_FILE}",
            "server.tls_keyfile: is required for TLS",
            id="no-key",
        ),
        pytest.param(
            "tls_keyfile: ${env.KEY_FILE}",
            "server.tls_certfile: is required for TLS",
            id="no-certificate",
        ),
        pytest.param(
            "tls_certfile: ${env.CERT_FILE}\n  tls_keyfile: ${env.GONE:=/not/there}",
            "server.tls_keyfile (GONE): cannot be read: No such file or directory",
            id="missing-key",
        ),
        pytest.param(
            "tls_certfile: ${env.KEY_FILE}\n  tls_keyfile: ${env.KEY_FILE}",
            "server.tls_certfile (KEY_FILE): cannot be used for TLS: ",
            id="no-certificate-in-file",
        ),
    ],
)
def test_wrong_tls_file_is_reported(
    start: Start, network: Network, tmp_path: Path, server: str, reason: str
) -> None:
    env = {name: network.env[name] for name in ("CERT_FILE", "KEY_FILE")}
    line = start(write(tmp_path, f"server:\n  {server}"), **env)

    assert reason in line


VALID = """
server:
  cors: {allow_origins: ["https://page.example"], max_age: 600}
  quota: {kvstore: {backend: kv_memory, namespace: quota}, period: day}
  tls_certfile: ${env.CERT_FILE}
  tls_keyfile: ${env.KEY_FILE}
  auth:
    provider_config: {type: custom, endpoint: "http://127.0.0.1:9"}
    route_policy: [{permit: {paths: [/v1/models]}, when: user with developer in roles}]
    access_policy: [{permit: {actions: [read]}, description: all}]
"""
VALID_PROVIDER = """
api_key: a-key
forward_headers: {a: b}
append_version: false
model_patterns: [a-*]
network:
  tls: {verify: false, min_version: TLSv1.2}
  proxy: {url: "http://127.0.0.1:9", no_proxy: [a.b]}
  headers: {X-A: b}
"""


def test_valid_settings_pass(start: Start, network: Network, tmp_path: Path) -> None:
    """The address is checked last."""
    env = {name: network.env[name] for name in ("CERT_FILE", "KEY_FILE")}
    valid = re.sub("(?m)^  (cors|quota): .*\n", "", VALID) if IS_OGX else VALID
    line = start(write(tmp_path, valid, VALID_PROVIDER), **env)

    assert line.startswith("lls-openai: cannot listen on 192.0.2.1:8321: ")
