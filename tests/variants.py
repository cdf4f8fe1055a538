"""Servers on variants of run.yaml, each started once for all tests that need it.

A test module takes these fixtures by `pytest_plugins = ["tests.variants"]`; imported,
they would be started once a module.
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from tests import providers
from tests.certificates import Authority
from tests.endpoint import Endpoint, endpoint
from tests.run_yaml import variant
from tests.server import Server
from tests.tls_server import TlsServer
from tests.upstream import Upstream
from tests.way import Proxy, listening

type Json = dict[str, Any]


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The authority that some providers are told to trust."""
    return Authority(tmp_path_factory.mktemp("authority"), "trusted")


@pytest.fixture(scope="session")
def proxy() -> Iterator[Proxy]:
    """The proxy that some providers are told to use."""
    proxy = Proxy()
    with listening(proxy):
        yield proxy


@pytest.fixture(scope="session")
def collector() -> Iterator[Endpoint]:
    """A collector of OpenTelemetry metrics, to which `various_server` sends them."""
    with endpoint(lambda _path, _body: (200, b"")) as collecting:
        yield collecting


@pytest.fixture(scope="session")
def various_server(
    running_upstream: Upstream,
    authority: Authority,
    proxy: Proxy,
    collector: Endpoint,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:
    """A server with providers of all kinds, another API in front of them, and metrics.

    Llama Guard asks a model, in-process, whether what it is given is safe.
    """
    directory = tmp_path_factory.mktemp("various")
    with ExitStack() as started:
        further = [
            *providers.behind_tls(running_upstream, authority, proxy, started),
            *providers.behind_a_proxy(running_upstream, proxy),
            *providers.hard_to_reach(running_upstream, started),
            *providers.particular(running_upstream),
        ]
        guard = {"provider_id": "guard", "provider_type": "inline::llama-guard"}

        def change(config: Json) -> None:
            config["apis"].append("safety")
            config["providers"]["inference"] += further
            config["providers"]["safety"] = [guard | {"config": {}}]
            permitted = config["server"]["auth"]["route_policy"][0]["permit"]
            permitted["paths"].append("/v1/safety/run-shield")
            config["registered_resources"]["shields"] = [
                {
                    "shield_id": model,
                    "provider_id": "guard",
                    "provider_shield_id": model,
                }
                for model in ("openai/gpt-4o", "gemini/gemini-2.5-flash-lite")
            ]

        variables = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_METRIC_EXPORT_INTERVAL": "200",
        }
        running = Server(
            directory,
            run_yaml=variant(directory, change),
            variables=running_upstream.environment | variables,
        )
        yield started.enter_context(running)


# Who a token belongs to, and the roles of that user.
USERS = {
    "token-of-alice": ("alice", ["caller"]),
    "token-of-bob": ("bob", ["caller"]),
    "token-of-carol": ("carol", ["reader"]),
}


@pytest.fixture(scope="session")
def gatekeeper() -> Iterator[Endpoint]:
    """The service that `guarded_server` asks about each token."""

    def respond(_path: str, body: bytes) -> tuple[int, bytes]:
        token = json.loads(body)["api_key"]
        if token not in USERS:
            return 401, b""
        principal, roles = USERS[token]
        user = {"principal": principal, "attributes": {"roles": roles}}
        return 200, json.dumps(user).encode()

    with endpoint(respond) as serving:
        yield serving


def _guard(config: Json, gatekeeper: Endpoint, authority: Authority) -> None:
    """Switch on what an operator can put in front: TLS, CORS, tokens and policies."""
    certificate = authority.issue("127.0.0.1")
    config["server"] |= {
        "tls_certfile": str(certificate.file),
        "tls_keyfile": str(certificate.key_file),
        "cors": {
            "allow_origins": ["https://page.example"],
            "allow_methods": ["GET", "POST"],
            "allow_headers": ["authorization", "x-llamastack-provider-data"],
            "expose_headers": ["x-request-id"],
        },
    }
    auth = config["server"]["auth"]
    auth["provider_config"] = {"type": "custom", "endpoint": gatekeeper.url}
    auth["route_policy"] = [
        {"permit": {"paths": ["/v1/models", "/v1/health"]}},
        {"permit": {"paths": "/v1/*"}, "when": "user with caller in roles"},
    ]
    auth["access_policy"] = [
        {"permit": {"principal": "alice", "actions": ["read"], "resource": "model::*"}},
        {"permit": {"actions": ["read"], "resource": "regex:model::gemini/"}},
    ]


@pytest.fixture(scope="session")
def guarded_server(
    running_upstream: Upstream,
    authority: Authority,
    gatekeeper: Endpoint,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:
    """A server behind TLS, where tokens say who calls and policies what they may.

    Alice may call every model, bob those of Gemini, and carol may only list them.
    """
    directory = tmp_path_factory.mktemp("guarded")
    run_yaml = variant(directory, lambda c: _guard(c, gatekeeper, authority))
    with TlsServer(
        directory,
        trusting=authority.trusted(),
        run_yaml=run_yaml,
        variables=running_upstream.environment,
    ) as running:
        yield running


@pytest.fixture(scope="session")
def https(authority: Authority) -> Iterator[httpx.Client]:
    """An HTTP client that trusts the authority, and nobody else."""
    with httpx.Client(verify=authority.trusted(), trust_env=False, timeout=30) as http:
        yield http
