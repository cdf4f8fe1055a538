"""docs/operating.md and docs/models.md, tried: their lines of run.yaml and commands.

What does not exclude each other stands in one server: `guarded` has all of the sections
in `GUARDED`, and the one that make starts has those in `OPEN`.
"""

import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.support import docs
from tests.support.http import (
    CHAT,
    CLAUDE,
    Raw,
    bearer,
    chat,
    eventually,
    provider_data,
)
from tests.support.network import Network
from tests.support.server import RUN_YAML, Server, Servers, Variation, free_port
from tests.support.upstream import Upstream
from tests.support.vendors import KEYS, OpenAI

OPERATING, MODELS = "docs/operating.md", "docs/models.md"
TOKEN, LISTEN = "A token of one's own in front", "Another port, another interface"  # noqa: S105 - a heading
OPEN = {
    (OPERATING, LISTEN),
    (OPERATING, "TLS"),
    (MODELS, "Another model"),
    (MODELS, "Another vendor"),
}
GUARDED = {
    (OPERATING, TOKEN),
    (OPERATING, "Rate limits"),
    (OPERATING, "A browser page (CORS)"),
    (OPERATING, "Logs"),
    (OPERATING, "A company's authority"),
    (OPERATING, "A proxy"),
    (OPERATING, "Limits"),
    (MODELS, "Fewer models"),
}
# What `LLS_WORKERS=2` means, too, with which tests/test_shutdown.py starts servers.
WORKERS = (OPERATING, "Several workers")
PAGE = "https://app.example.com"


def _with_lines(sections: set[tuple[str, str]]) -> Any:  # noqa: ANN401 - any YAML
    """run.yaml with the lines of sections in it."""
    config = yaml.safe_load(RUN_YAML.read_text())
    for page, title in sorted(sections):
        (lines,) = docs.blocks(docs.section(page, title), "yaml")
        config = _merged(config, yaml.safe_load(lines))
    return config


def _merged(there: Any, added: Any) -> Any:  # noqa: ANN401 - any YAML
    """Put lines where their keys are; a list's entry to the others, or into the same."""
    if isinstance(there, dict) and isinstance(added, dict):
        return there | {n: _merged(there.get(n), value) for n, value in added.items()}
    if not isinstance(there, list) or "provider_id" not in there[0]:
        return added
    for entry in added:
        same = [e for e in there if _identity(e) == _identity(entry)]
        there = [_merged(e, entry) if e in same else e for e in there]
        there += [] if same else [entry]
    return there


def _identity(entry: dict[str, Any]) -> tuple[str | None, ...]:
    return entry.get("provider_id"), entry.get("model_id")


def test_all_lines_are_tried() -> None:
    """Each section that has some is one of those that are served below."""
    with_lines = {
        (page, title)
        for page in (OPERATING, MODELS)
        for title in re.findall(r"(?m)^##+ (.+)$", docs.PAGES[page])
        if docs.blocks(docs.section(page, title), "yaml")
    }
    assert with_lines == OPEN | GUARDED | {WORKERS}
    assert _with_lines({WORKERS})["server"]["workers"] == 2


@dataclass
class Guarded:
    """The server, its client with a token, and the clone where that was made."""

    server: Server
    client: httpx.Client
    token: str
    clone: docs.Clone

    def call(self, **headers: str) -> httpx.Response:
        """Call a model with this token, a key, and further headers."""
        known = bearer(self.token) | provider_data()
        return self.client.post(CHAT, json=chat(), headers=known | headers)


@pytest.fixture(scope="module")
def guarded(
    servers: Servers, network: Network, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Guarded]:
    """With its variables as the commands of the page set them."""
    clone = docs.Clone(tmp_path_factory.mktemp("guarded"))
    shutil.copy(network.env["CA_FILE"], clone.path / "company-ca.pem")
    (make_token,) = docs.blocks(docs.section(OPERATING, TOKEN), "sh")
    port = free_port()
    env = dict(re.findall(r"(\w+)=(\S+) make server", docs.PAGES[OPERATING]))
    jwks = env["JWKS_URI"] = env["JWKS_URI"].replace("9000", str(port))
    env["OTEL_EXPORTER_OTLP_ENDPOINT"] = network.env["COLLECTOR_URL"]
    env |= {"OPENAI_UPSTREAM_URL": network.env["TLS_URL"]}
    env |= {
        "HTTPS_PROXY": network.env["PROXY_URL"],
        "OTEL_METRIC_EXPORT_INTERVAL": "100",
    }
    variation = Variation(_with_lines(GUARDED), env=env, cwd=clone.path)
    servers.boot(variation)
    with clone.running(make_token.replace("9000", str(port)), jwks):
        server = servers.get(variation)
        token = (clone.path / "token.txt").read_text().strip()
        client = servers.client(server, network.trusting)
        yield Guarded(server, client, token, clone)


def test_a_token_in_front_is_no_key_and_goes_no_further(
    guarded: Guarded, upstream: Upstream
) -> None:
    """The vendor gets the key of the provider data; a key alone is no token."""
    answers = [
        guarded.call(),
        guarded.call(**{"x-llamastack-provider-data": "{}"}),
        guarded.call(**bearer()),
        guarded.call(**bearer("e30.e30.e30")),
    ]

    arrived = upstream.openai.request
    assert [answer.status_code for answer in answers] == [200, 401, 401, 401]
    assert answers[1].json()["error"]["code"] == "missing_api_key"
    assert arrived.key == KEYS["openai"]
    assert all(guarded.token.encode() not in value for _, value in arrived.headers)


def test_health_and_version_stay_open(guarded: Guarded) -> None:
    """And the list of models does not."""
    paths = ("/v1/health", "/v1/version", "/v1/models")
    statuses = [guarded.client.get(path).status_code for path in paths]
    assert statuses == [200, 200, 401]


def test_make_client_takes_the_token(guarded: Guarded, upstream: Upstream) -> None:
    """By the command that the page gives."""
    text = docs.section(OPERATING, TOKEN)
    (command,) = re.findall(r"`(\w+=\$\(cat token.txt\) make client)`", text)

    status, output = guarded.clone.run(
        f'{command} ARGS="--model {CLAUDE}"',
        LLAMA_STACK_PORT=str(guarded.server.port),
        ANTHROPIC_API_KEY=KEYS["anthropic"],
    )

    assert status == 0, output
    assert len(upstream.anthropic.requests) == 2


def test_only_the_page_of_the_lines_may_call_from_a_browser(guarded: Guarded) -> None:
    """It may ask before it calls, and read answers and refusals."""
    asked = {"access-control-request-method": "POST"}
    asked |= {
        "access-control-request-headers": "authorization,x-llamastack-provider-data"
    }
    origins = (PAGE, "https://elsewhere.example.com")

    preflights = [
        guarded.client.options(CHAT, headers=asked | {"origin": origin})
        for origin in origins
    ]
    read = [
        guarded.call(origin=PAGE),
        guarded.call(origin=PAGE, authorization="Bearer none"),
    ]

    assert [answer.status_code for answer in preflights] == [200, 400]
    allowed = preflights[0].headers["access-control-allow-headers"].lower()
    assert "x-llamastack-provider-data" in allowed
    assert [answer.status_code for answer in read] == [200, 401]
    for each in read:
        assert each.headers["access-control-allow-origin"] == PAGE
        exposed = each.headers["access-control-expose-headers"]
        assert exposed == "X-Request-Id, Retry-After"


def test_the_limit_is_that_of_the_callers_address(
    guarded: Guarded, upstream: Upstream
) -> None:
    """Which a proxy tells that is named; a token makes no difference, and health counts."""
    caller = {"x-forwarded-for": "203.0.113.7"}
    for _ in range(100):
        assert guarded.client.get("/v1/health", headers=caller).status_code == 200

    health = guarded.client.get("/v1/health", headers=caller)
    refused = guarded.call(**caller)

    assert (health.status_code, refused.status_code) == (429, 429)
    assert upstream.openai.requests == []
    assert guarded.call().status_code == 200


def test_the_vendor_is_reached_through_the_proxy_with_the_companys_authority(
    guarded: Guarded, upstream: Upstream, network: Network
) -> None:
    """By the one provider that has the lines; the other does not trust it."""
    host = network.env["TLS_URL"].removeprefix("https://")
    upstream.openai.drop_connections()

    assert guarded.call().status_code == 200
    tunnels = network.proxy.targets.count(f"CONNECT {host}")
    headers = bearer(guarded.token) | provider_data()
    body = chat("openai-mini/gpt-4o-mini")
    other = guarded.client.post(CHAT, json=body, headers=headers)

    assert other.json()["error"]["code"] == "upstream_unreachable"
    assert len(upstream.openai.requests) == 1
    assert tunnels == network.proxy.targets.count(f"CONNECT {host}") > 0


def test_only_the_allowed_models_are_called(guarded: Guarded) -> None:
    """Of the provider that has the line."""
    headers = bearer(guarded.token) | provider_data()
    answer = guarded.client.post(
        CHAT, json=chat("openai/gpt-5.6-luna"), headers=headers
    )
    assert answer.json()["error"]["code"] == "model_not_found"


def test_the_metrics_that_the_page_names_arrive(
    guarded: Guarded, upstream: Upstream
) -> None:
    """After a streamed call with usage, at the collector of the command."""
    named = re.findall(r"`(llama_stack\.\w\S+)`", docs.section(OPERATING, "Metrics"))
    collected = upstream.collector.requests
    body = chat(stream=True, stream_options={"include_usage": True})
    headers = bearer(guarded.token) | provider_data()
    assert guarded.client.post(CHAT, json=body, headers=headers).status_code == 200

    def all_there() -> bool:
        arrived = b"".join(request.body for request in list(collected))
        return all(name.encode() in arrived for name in named)

    eventually(all_there)
    assert (len(named), collected[0].path) == (6, "/v1/metrics")


def test_the_log_tells_more(guarded: Guarded, upstream: Upstream) -> None:
    """Lines of the level debug are there, and neither key, token nor prompt in them."""
    assert guarded.call().status_code == 200
    assert len(upstream.openai.requests) == 1
    marks = ('"level": "debug"', KEYS["openai"], guarded.token, "hello")
    assert [mark in guarded.server.log for mark in marks] == [True] + [False] * 3


def test_make_serves_over_tls_and_a_stop_waits_for_no_idle_client(
    network: Network,
    upstream: Upstream,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On another port and interface, with one more vendor and one more model."""
    clone, port = docs.Clone(tmp_path), free_port()
    files = {
        "server.pem": "CERT_FILE",
        "server-key.pem": "KEY_FILE",
        "ca.pem": "CA_FILE",
    }
    for name, variable in files.items():
        shutil.copy(network.env[variable], clone.path / name)
    (clone.path / "run.yaml").write_text(yaml.safe_dump(_with_lines(OPEN)))
    (start,) = docs.blocks(docs.section(OPERATING, LISTEN), "sh")
    (ask,) = docs.blocks(docs.section(OPERATING, "TLS"), "sh")
    url = f"https://127.0.0.1:{port}"
    monkeypatch.setattr(OpenAI, "models", (*OpenAI.models, "mistral-small-latest"))
    env = upstream.environment | {"MISTRAL_UPSTREAM_URL": f"{upstream.openai.url}/v1"}

    with clone.running(start.replace("8400", str(port)), f"{url}/v1/health", **env):
        status, output = clone.run(
            ask.replace("https://localhost:8321", url),
            MISTRAL_API_KEY=KEYS["openai"],
            OPENAI_API_KEY=KEYS["openai"],
        )
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(url.replace("https", "http"), trust_env=False)
        idle = Raw(port, tls=network.trusting)
        asked = time.monotonic()

    with idle:
        assert idle.closed()
    assert time.monotonic() - asked < 8
    rows = re.findall(r"(?m)^(\S+/\S+) +ok +ok ", output)
    assert status == 0, output
    assert {"openai/gpt-5.6-luna", "mistral/mistral-small-latest"} < set(rows)
    printed = clone.output()
    assert f"at https://0.0.0.0:{port}/v1, workers: 1, " in printed
    assert "Traceback" not in printed
