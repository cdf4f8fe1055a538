"""The run.yaml snippets and commands of docs/operating.md and docs/models.md.

The snippets of `GUARDED` fit together, and run in one server, `guarded`.
"""

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest

from tests.support import docs
from tests.support.http import (
    CHAT,
    KEYS,
    MODEL,
    bearer,
    chat,
    eventually,
    provider_data,
)
from tests.support.network import Network
from tests.support.run_yaml import RUN_YAML, Variation
from tests.support.server import Server, Servers, free_port
from tests.support.upstream import Upstream
from tests.support.wire import Json

pytestmark = pytest.mark.own_processes
OPERATING = "docs/operating.md"
AUTHENTICATION = "Require a server token"
# tests/test_shutdown.py runs servers with two workers.
WORKERS = "Several workers"
# tests/test_make_server.py runs these.
OPEN = {"Host and port", "TLS", "Another model", "Another vendor"}
GUARDED = {
    "An upstream without a version in its path",
    AUTHENTICATION,
    "CORS",
    "Custom CA",
    "Limits",
    "Logs",
    "Metrics",
    "Model names",
    "Outbound proxy",
    "Rate limits",
    "Restrict models",
}
ALLOWED_ORIGIN = "https://app.example.com"


def test_every_yaml_snippet_is_tested() -> None:
    with_yaml = {title for title in docs.SECTIONS if docs.snippets(title, "yaml")}

    assert with_yaml == OPEN | GUARDED | {WORKERS}
    assert docs.run_yaml_with({WORKERS})["server"]["workers"] == 2


def added_routes() -> list[str]:
    """Return the paths that the section "Other routes" adds to the route policy."""
    (diff,) = docs.snippets("Other routes", "diff")
    return re.findall(r"(?m)^\+ +- (\S+)$", diff)


def test_route_snippet_applies_to_run_yaml() -> None:
    (diff,) = docs.snippets("Other routes", "diff")
    context = [line[1:] for line in diff.splitlines() if line.startswith(" ")]
    assert "\n".join(context) in RUN_YAML.read_text()


@dataclass
class Guarded:
    """The server that requires a token, and the clone in which one was made."""

    server: Server
    token: str
    clone: docs.Clone

    def call(
        self,
        model: str = MODEL,
        headers: Json | None = None,
        path: str = CHAT,
        **fields: object,
    ) -> httpx.Response:
        """Call a model with the token and a key, unless `headers` replace them."""
        all_headers = bearer(self.token) | provider_data() | (headers or {})
        body = chat(model, **fields)
        return self.server.client.post(path, json=body, headers=all_headers)


@pytest.fixture(scope="module")
def guarded(
    servers: Servers, network: Network, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Guarded]:
    """The server of `GUARDED`, with the variables that the page's commands set."""
    clone = docs.Clone(tmp_path_factory.mktemp("guarded"))
    shutil.copy(network.env["CA_FILE"], clone.path / "company-ca.pem")
    (make_token,), port = docs.snippets(AUTHENTICATION, "sh"), free_port()
    env = dict(re.findall(r"(\w+)=(\S+) make server", docs.PAGES[OPERATING]))
    env |= {
        "JWKS_URI": env["JWKS_URI"].replace("9000", str(port)),
        "OTEL_EXPORTER_OTLP_ENDPOINT": network.env["COLLECTOR_URL"],
        "OTEL_METRIC_EXPORT_INTERVAL": "100",
        "OPENAI_UPSTREAM_URL": network.env["TLS_URL"],
        "HTTPS_PROXY": network.env["PROXY_URL"],
    }
    config = docs.run_yaml_with(GUARDED)
    config["server"]["auth"]["route_policy"][0]["permit"]["paths"] += added_routes()
    variation = Variation(config, env=env, cwd=clone.path)
    servers.boot(variation)
    with clone.running(make_token.replace("9000", str(port)), port):
        server = servers.get(variation)
        token = (clone.path / "token.txt").read_text().strip()
        yield Guarded(server, token, clone)


def test_call_with_token_and_key_is_relayed_without_the_token(
    guarded: Guarded, upstream: Upstream
) -> None:
    response = guarded.call()

    assert response.status_code == 200, response.text
    request = upstream.openai.request
    assert request.key == KEYS["openai"]
    assert [v for _, v in request.headers if guarded.token.encode() in v] == []


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param(bearer(), id="key-as-token"),
        pytest.param(bearer("e30.e30.e30"), id="unsigned-token"),
        pytest.param({"authorization": ""}, id="no-token"),
    ],
)
def test_call_without_valid_token_is_rejected(
    guarded: Guarded, upstream: Upstream, headers: Json
) -> None:
    response = guarded.call(headers=headers)

    assert response.status_code == 401, response.text
    assert upstream.requests == []


def test_call_with_token_and_without_key_is_rejected(
    guarded: Guarded, upstream: Upstream
) -> None:
    response = guarded.call(headers={"x-llamastack-provider-data": "{}"})

    assert response.status_code == 401, response.text
    assert response.json()["error"]["code"] == "missing_api_key"
    assert upstream.requests == []


@pytest.mark.parametrize(
    ("path", "status"), [("/v1/health", 200), ("/v1/version", 200), ("/v1/models", 401)]
)
def test_only_health_and_version_need_no_token(
    guarded: Guarded, path: str, status: int
) -> None:
    assert guarded.server.client.get(path).status_code == status


def test_debug_log_has_neither_token_nor_key_nor_prompt(guarded: Guarded) -> None:
    response = guarded.call()

    guarded.server.wait_log_line(response.headers["x-request-id"])
    log = guarded.server.log
    assert '"level": "debug"' in log or '"level":"debug"' in log
    for secret in (KEYS["openai"], guarded.token, "hello"):
        assert secret not in log


def test_make_client_sends_the_token(guarded: Guarded, upstream: Upstream) -> None:
    text = docs.section(OPERATING, AUTHENTICATION)
    (command,) = re.findall(r"`(\w+=\$\(cat token.txt\) make client)`", text)

    status, output = guarded.clone.run(
        f'{command} ARGS="--model {MODEL}"',
        LLAMA_STACK_PORT=str(guarded.server.port),
        OPENAI_API_KEY=KEYS["openai"],
    )

    assert status == 0, output
    assert len(upstream.openai.requests) == 2


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        pytest.param(ALLOWED_ORIGIN, 200, id="allowed-origin"),
        pytest.param("https://elsewhere.example.com", 400, id="other-origin"),
    ],
)
def test_browser_may_call_from_the_allowed_origin_only(
    guarded: Guarded, origin: str, status: int
) -> None:
    names = "authorization,x-llamastack-provider-data"

    response = guarded.server.client.options(
        CHAT,
        headers={
            "origin": origin,
            "access-control-request-method": "POST",
            "access-control-request-headers": names,
        },
    )

    assert response.status_code == status, response.text
    allowed = response.headers["access-control-allow-headers"].lower()
    assert set(names.split(",")) <= {*allowed.replace(" ", "").split(",")}


@pytest.mark.parametrize(
    ("headers", "status"),
    [pytest.param({}, 200, id="200"), pytest.param(bearer(), 401, id="401")],
)
def test_browser_may_read_responses_and_rejections(
    guarded: Guarded, headers: Json, status: int
) -> None:
    response = guarded.call(headers={"origin": ALLOWED_ORIGIN} | headers)

    assert response.status_code == status, response.text
    assert response.headers["access-control-allow-origin"] == ALLOWED_ORIGIN
    exposed = response.headers["access-control-expose-headers"]
    assert exposed == "X-Request-Id, Retry-After"


def test_quota_counts_requests_by_client_address(
    guarded: Guarded, upstream: Upstream
) -> None:
    """Of the address that the named proxy forwards; all routes count, and tokens."""
    address = {"x-forwarded-for": "203.0.113.7"}
    client = guarded.server.client

    statuses = [
        client.get("/v1/health", headers=address).status_code for _ in range(101)
    ]

    assert statuses == [200] * 100 + [429]
    assert guarded.call(headers=address).status_code == 429
    assert upstream.requests == []
    assert guarded.call().status_code == 200


def test_proxy_and_authority_are_used_for_their_provider_only(
    guarded: Guarded, upstream: Upstream, network: Network
) -> None:
    network.proxy.requests.clear()
    upstream.openai.drop_connections()
    tunnel = network.env["TLS_URL"].replace("https://", "CONNECT ")

    with_snippets = guarded.call("openai/gpt-4o")
    without = guarded.call("openai-mini/gpt-4o-mini")

    assert with_snippets.status_code == 200, with_snippets.text
    assert without.json()["error"]["code"] == "upstream_unreachable"
    assert network.proxy.targets == [tunnel]


def test_added_route_is_relayed(guarded: Guarded, upstream: Upstream) -> None:
    (path,) = added_routes()

    response = guarded.call(path=path)

    assert response.status_code == 200, response.text
    assert upstream.openai.request.path == path


def test_models_are_restricted_for_their_provider(
    guarded: Guarded, upstream: Upstream
) -> None:
    response = guarded.call("openai/gpt-5.6-luna")

    assert response.json()["error"]["code"] == "model_not_found"
    assert upstream.requests == []


def test_every_metric_of_the_page_reaches_the_collector(
    guarded: Guarded, upstream: Upstream
) -> None:
    pattern = r"`((?:gen_ai|lls_openai)\.[\w.]+)`"
    names = set(re.findall(pattern, docs.section(OPERATING, "Metrics")))
    usage = {"include_usage": True}
    assert guarded.call(stream=True, stream_options=usage).status_code == 200
    assert guarded.call(model="unknown/m-1").status_code == 404

    def missing() -> set[str]:
        sent = [r for r in upstream.collector.requests if r.path == "/v1/metrics"]
        exported = b"".join(request.body for request in sent)
        return {name for name in names if name.encode() not in exported}

    assert len(names) == 11
    eventually(lambda: not missing(), f"the collector gets {sorted(names)}")
