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
    KEYS,
    MODEL,
    RawConnection,
    bearer,
    chat,
    eventually,
    provider_data,
)
from tests.support.network import Network
from tests.support.run_yaml import RUN_YAML, Variation, merge
from tests.support.server import Server, Servers, free_port
from tests.support.upstream import Upstream
from tests.support.wire import Json

OPERATING = "docs/operating.md"
IN_FRONT = "Require a server token"
ELSEWHERE = "Host and port"
# What `LLS_WORKERS=2` means, too, with which tests/test_shutdown.py starts servers.
WORKERS = "Several workers"
OPEN = {ELSEWHERE, "TLS", "Another model", "Another vendor"}
GUARDED = {IN_FRONT, "Rate limits", "CORS", "Logs", "Limits"}
GUARDED |= {"Custom CA", "Metrics", "Outbound proxy", "Restrict models"}
PAGE = "https://app.example.com"
TITLES = {
    title: page
    for page in ("docs/operating.md", "docs/models.md")
    for title in re.findall(r"(?m)^##+ (.+)$", docs.PAGES[page])
}


def _blocks(title: str, language: str) -> list[str]:
    return docs.blocks(docs.section(TITLES[title], title), language)


def _with_lines(titles: set[str]) -> Any:  # noqa: ANN401 - any YAML
    """run.yaml with the lines of sections in it."""
    config = yaml.safe_load(RUN_YAML.read_text())
    for title in sorted(titles):
        (lines,) = _blocks(title, "yaml")
        config = merge(config, yaml.safe_load(lines))
    return config


def test_all_lines_are_tried() -> None:
    """Each section that has some is one of those that are served below."""
    with_lines = {title for title in TITLES if _blocks(title, "yaml")}
    assert with_lines == OPEN | GUARDED | {WORKERS}
    assert _with_lines({WORKERS})["server"]["workers"] == 2


@dataclass
class Guarded:
    """The server, a token for it, and the clone where that was made."""

    server: Server
    token: str
    clone: docs.Clone

    def call(
        self, model: str = MODEL, headers: Json | None = None, **fields: object
    ) -> httpx.Response:
        """Call a model with the token, a key, and further headers."""
        known = bearer(self.token) | provider_data() | (headers or {})
        return self.server.client.post(CHAT, json=chat(model, **fields), headers=known)


@pytest.fixture(scope="module")
def guarded(
    servers: Servers, network: Network, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Guarded]:
    """With its variables as the commands of the page set them."""
    clone = docs.Clone(tmp_path_factory.mktemp("guarded"))
    shutil.copy(network.env["CA_FILE"], clone.path / "company-ca.pem")
    (make_token,), port = _blocks(IN_FRONT, "sh"), free_port()
    env = dict(re.findall(r"(\w+)=(\S+) make server", docs.PAGES[OPERATING]))
    env["JWKS_URI"] = env["JWKS_URI"].replace("9000", str(port))
    env["OTEL_EXPORTER_OTLP_ENDPOINT"] = network.env["COLLECTOR_URL"]
    env["OTEL_METRIC_EXPORT_INTERVAL"] = "100"
    env["OPENAI_UPSTREAM_URL"] = network.env["TLS_URL"]
    env["HTTPS_PROXY"] = network.env["PROXY_URL"]
    variation = Variation(_with_lines(GUARDED), env=env, cwd=clone.path)
    servers.boot(variation)
    with clone.running(make_token.replace("9000", str(port)), port):
        server = servers.get(variation)
        token = (clone.path / "token.txt").read_text().strip()
        yield Guarded(server, token, clone)


def test_a_token_in_front_is_no_key_and_goes_no_further(
    guarded: Guarded, upstream: Upstream
) -> None:
    """A key alone is no token, either; health and version stay open.

    The log, of the level debug, has neither of them, nor a prompt.
    """
    no_key = {"x-llamastack-provider-data": "{}"}
    sent: list[Json] = [{}, no_key, bearer(), bearer("e30.e30.e30")]
    answers = [guarded.call(headers=headers) for headers in sent]
    paths = ("/v1/health", "/v1/version", "/v1/models")
    answers += [guarded.server.client.get(path) for path in paths]

    arrived = upstream.openai.request
    statuses = [200, 401, 401, 401, 200, 200, 401]
    assert [answer.status_code for answer in answers] == statuses
    assert answers[1].json()["error"]["code"] == "missing_api_key"
    assert arrived.key == KEYS["openai"]
    assert all(guarded.token.encode() not in value for _, value in arrived.headers)
    marks = ('"level": "debug"', KEYS["openai"], guarded.token, "hello")
    assert [mark in guarded.server.log for mark in marks] == [True] + [False] * 3


def test_make_client_takes_the_token(guarded: Guarded, upstream: Upstream) -> None:
    text = docs.section(OPERATING, IN_FRONT)
    (command,) = re.findall(r"`(\w+=\$\(cat token.txt\) make client)`", text)
    env = {"LLAMA_STACK_PORT": str(guarded.server.port)}
    env |= {"OPENAI_API_KEY": KEYS["openai"]}

    status, output = guarded.clone.run(f'{command} ARGS="--model {MODEL}"', **env)

    assert status == 0, output
    assert len(upstream.openai.requests) == 2


def test_only_the_page_of_the_lines_may_call_from_a_browser(guarded: Guarded) -> None:
    """It may ask before it calls, and read answers and refusals."""
    names = "authorization,x-llamastack-provider-data"
    ask = {"access-control-request-method": "POST"}
    ask |= {"access-control-request-headers": names, "origin": PAGE}
    others = ask | {"origin": "https://elsewhere.example.com"}

    asked = [
        guarded.server.client.options(CHAT, headers=each) for each in (ask, others)
    ]
    read = [guarded.call(headers={"origin": PAGE} | more) for more in ({}, bearer())]

    assert [each.status_code for each in (*asked, *read)] == [200, 400, 200, 401]
    allowed = asked[0].headers["access-control-allow-headers"].lower()
    assert [name for name in names.split(",") if name not in allowed] == []
    for each in read:
        assert each.headers["access-control-allow-origin"] == PAGE
        exposed = each.headers["access-control-expose-headers"]
        assert exposed == "X-Request-Id, Retry-After"


def test_the_quota_is_that_of_the_callers_address(
    guarded: Guarded, upstream: Upstream
) -> None:
    """As told by the named proxy; a token makes no difference, and health counts."""
    caller = {"x-forwarded-for": "203.0.113.7"}
    client = guarded.server.client
    calls = [client.get("/v1/health", headers=caller) for _ in range(101)]

    refused = guarded.call(headers=caller)

    assert [call.status_code for call in calls] == [200] * 100 + [429]
    assert refused.status_code == 429
    assert upstream.openai.requests == []
    assert guarded.call().status_code == 200


def test_only_one_provider_has_the_lines(
    guarded: Guarded, upstream: Upstream, network: Network
) -> None:
    """For the proxy, the company's authority and the models that are allowed."""
    tunnel = network.env["TLS_URL"].replace("https://", "CONNECT ")
    upstream.openai.drop_connections()
    before = network.proxy.targets.count(tunnel)

    models = MODEL, "openai/gpt-5.6-luna", "openai-mini/gpt-4o-mini"
    answers = [guarded.call(model).json() for model in models]

    codes = [answer.get("error", {}).get("code") for answer in answers]
    assert codes == [None, "model_not_found", "upstream_unreachable"]
    assert len(upstream.openai.requests) == 1
    assert network.proxy.targets.count(tunnel) == before + 1


def test_the_metrics_that_the_page_names_arrive(
    guarded: Guarded, upstream: Upstream
) -> None:
    """After a streamed call with usage, at the collector of the command."""
    pattern = r"`((?:gen_ai|lls_openai)\.[\w.]+)`"
    named = set(re.findall(pattern, docs.section(OPERATING, "Metrics")))
    usage = {"include_usage": True}
    assert guarded.call(stream=True, stream_options=usage).status_code == 200
    assert guarded.call(model="nobody/m-1").status_code == 404

    def all_there() -> bool:
        sent = [r for r in upstream.collector.requests if r.path == "/v1/metrics"]
        arrived = b"".join(request.body for request in sent)
        return all(name.encode() in arrived for name in named)

    eventually(all_there, "all metrics at the collector")
    assert len(named) == 11


def test_make_serves_over_tls_and_a_stop_waits_for_no_idle_client(
    network: Network, upstream: Upstream, tmp_path: Path
) -> None:
    """On another port and interface, with one more vendor and one more model."""
    clone, port = docs.Clone(tmp_path), free_port()
    for name in ("CERT_FILE server.pem", "KEY_FILE server-key.pem", "CA_FILE ca.pem"):
        variable, file = name.split()
        shutil.copy(network.env[variable], clone.path / file)
    (clone.path / "run.yaml").write_text(yaml.safe_dump(_with_lines(OPEN)))
    (start,), (ask,) = _blocks(ELSEWHERE, "sh"), _blocks("TLS", "sh")
    url = f"https://127.0.0.1:{port}"
    env = upstream.environment | {"MISTRAL_UPSTREAM_URL": f"{upstream.openai.url}/v1"}
    keys = dict.fromkeys(("MISTRAL_API_KEY", "OPENAI_API_KEY"), KEYS["openai"])

    with clone.running(start.replace("8400", str(port)), port, **env):
        status, output = clone.run(ask.replace("https://localhost:8321", url), **keys)
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(url.replace("https", "http"), trust_env=False)
        idle = RawConnection(port, tls=network.client_context)
        asked = time.monotonic()

    with idle:
        assert idle.is_closed_within()
    assert time.monotonic() - asked < 8
    assert status == 0, output
    rows = re.findall(r"(?m)^(\S+/\S+) +ok +ok ", output)
    assert {"openai/gpt-5.6-luna", "mistral/mistral-small-latest"} < set(rows)
    assert f"at https://0.0.0.0:{port}/v1 " in clone.output()
    assert "Traceback" not in clone.output()
