"""Variations of run.yaml, and the marks of tests that need one."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.wire import Json

PROJECT = Path(__file__).parents[2]
RUN_YAML = PROJECT / "run.yaml"
# The server of this environment, and the prefix of its variables.
IS_OGX = find_spec("ogx") is not None
VARIABLE = "OGX" if IS_OGX else "LLAMA_STACK"
PROVIDERS = "openai", "openai-mini", "gemini", "anthropic"
_NEW_PROVIDER: Json = {
    "provider_type": "remote::passthrough",
    "module": "lls_openai",
    "config": {"base_url": "${env.OPENAI_UPSTREAM_URL}"},
}

# Three users, models of two types, a name that several models have, another type of
# provider, and an API that calls a model itself.
_AUTH: Json = yaml.safe_load("""
apis: [inference, safety]
providers:
  inference:
    - provider_id: stock
      provider_type: remote::openai
      config: {base_url: "${env.OPENAI_UPSTREAM_URL}/v1"}
    # Only registered and full names.
    - {provider_id: anthropic, config: {model_patterns: null}}
  safety: [{provider_id: guard, provider_type: "inline::llama-guard", config: {}}]
registered_resources:
  models:
    - {model_id: gpt-4o, provider_id: openai-mini}
    - model_id: text-embedding-3-small
      provider_id: openai
      model_type: embedding
      metadata: {embedding_dimension: 3}
  shields: [{shield_id: gemini/gemini-2.5-flash-lite, provider_id: guard}]
server:
  auth:
    provider_config: {type: custom, endpoint: "${env.AUTH_URL}"}
    route_policy:
      - permit: {paths: [/v1/models, /v1/health]}
      - {permit: {paths: /v1/*}, when: user with developer in roles}
    access_policy:
      - permit: {principal: alice, actions: [read]}
      - permit: {actions: [read], resource: "regex:model::gemini/"}
""")
if IS_OGX:
    del _AUTH["providers"]["safety"], _AUTH["registered_resources"]["shields"]
    _AUTH["apis"] = ["inference"]
WITH_AUTH = pytest.mark.server(_AUTH)
DEBUG_LOGGING = pytest.mark.server(
    {"logging_config": {"category_levels": {"all": "debug"}}},
    env={f"{VARIABLE}_LOG_FORMAT": "text", f"{VARIABLE}_LOGGING": "all=debug"},
)

# Seconds, and bytes: two bodies of 600 kB are too many.
CLIENT_TIMEOUT = 0.7
MAX_BYTES_IN_FLIGHT = 1_000_000
_SMALLER = {"client_timeout": CLIENT_TIMEOUT / 10, "max_bytes_in_flight": 1}
SMALL_LIMITS = pytest.mark.server(
    # The largest of the providers' values is used.
    providers={
        "openai": {
            "client_timeout": CLIENT_TIMEOUT,
            "max_bytes_in_flight": MAX_BYTES_IN_FLIGHT,
        },
        "openai-mini": _SMALLER,
        "gemini": _SMALLER,
        "anthropic": _SMALLER,
    },
    env={
        "FORWARDED_ALLOW_IPS": "127.0.0.1",
        # Only proxies in run.yaml are used: with these every call would fail.
        "http_proxy": "http://127.0.0.1:9",
        "all_proxy": "http://127.0.0.1:9",
    },
)

# Its parent is killed by tests/test_shutdown.py.
UNDER_NOHUP = pytest.mark.server(
    env={"LLS_WORKERS": "2", f"{VARIABLE}_LOG_FORMAT": "text"},
    as_module=True,
    prefix=("nohup",),
)
EXPORTING_METRICS = pytest.mark.server(
    env={
        "OTEL_EXPORTER_OTLP_ENDPOINT": "$COLLECTOR_URL/metrics-test",
        "OTEL_METRIC_EXPORT_INTERVAL": "100",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment=test",
    }
)


@dataclass(frozen=True)
class Variation:
    """How a server differs from one that runs run.yaml as it is."""

    # Merged into run.yaml.
    run_yaml: Json = field(default_factory=dict)
    # The `config` of further providers, or more of it for those of run.yaml.
    providers: Json = field(default_factory=dict)
    # Values may contain `$NAME`, a variable of `Network.env`.
    env: Mapping[str, str] = field(default_factory=dict)
    # A command that runs the server.
    prefix: tuple[str, ...] = ()
    # `python -m lls_openai` instead of `llama stack run`.
    as_module: bool = False
    cwd: Path | None = None
    # False if its start fails.
    serves: bool = True

    @property
    def key(self) -> str:
        """The same for equal variations."""
        return json.dumps(vars(self), sort_keys=True, default=str)

    def write(self, directory: Path) -> Path:
        """Write the run.yaml of this variation, unless it is the project's own."""
        if not self.run_yaml and not self.providers:
            return RUN_YAML
        config = merge(yaml.safe_load(RUN_YAML.read_text()), self.run_yaml)
        for name, settings in self.providers.items():
            new = {} if name in PROVIDERS else _NEW_PROVIDER
            entry = merge(new, {"provider_id": name, "config": settings})
            config = merge(config, {"providers": {"inference": [entry]}})
        path = directory / "run.yaml"
        path.write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
        return path


def merge(old: Any, new: Any) -> Any:  # noqa: ANN401 - any YAML
    """Merge keys of mappings, and list entries by `provider_id`; null removes a key."""
    if isinstance(old, dict) and isinstance(new, dict):
        both = old | {name: merge(old.get(name), value) for name, value in new.items()}
        return {name: value for name, value in both.items() if value is not None}
    if not old or not isinstance(old, list) or "provider_id" not in old[0]:
        return new
    for entry in new:
        ids = "provider_id", "model_id"
        same = [e for e in old if all(e.get(name) == entry.get(name) for name in ids)]
        old = [merge(e, entry) if e in same else e for e in old]
        old += [] if same else [entry]
    return old
