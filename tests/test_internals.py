"""What `lls_openai` uses of other packages without their offer is there.

Each of these fails, and says which, when an upgrade takes one away or changes how it is
called. docs/design.md has the same table, with the reasons.
"""

import ast
import asyncio
import importlib
import inspect
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.client_proto import ResponseHandler
from llama_stack import log
from llama_stack.core import exceptions, request_headers, stack
from llama_stack.core.routers.inference import InferenceRouter
from llama_stack.core.routing_tables.common import CommonRoutingTableImpl
from llama_stack.core.server import server
from llama_stack.providers.remote.inference.passthrough.config import (
    PassthroughImplConfig,
)
from llama_stack.providers.remote.inference.passthrough.passthrough import (
    PassthroughInferenceAdapter,
)
from llama_stack.providers.utils import forward_headers
from llama_stack.providers.utils.inference import model_registry
from llama_stack.telemetry import inference_metrics
from uvicorn import Config, Server
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.supervisors.multiprocess import Multiprocess

from lls_openai.relay.client import PooledConnection, open_pool
from tests.support import docs
from tests.support.server import PROJECT, Variation, clean_environment

# File, whose, and the names: with its parameters what is called or overridden.
REACHES: list[tuple[str, Any, str]] = [
    (
        "server/install.py",
        server,
        "ProviderDataMiddleware(app) RouteAuthorizationMiddleware(app,route_policy) "
        "AuthenticationMiddleware(app,auth_config,impls) "
        "global_exception_handler(request,exc)",
    ),
    ("server/install.py", exceptions, "translate_exception(exc)"),
    ("relay/app.py", server.StackApp, "stack"),
    ("relay/routing.py", stack.Stack, "impls run_config"),
    (
        "relay/routing.py",
        InferenceRouter,
        "_get_model_provider(model_id,expected_model_type) routing_table",
    ),
    (
        "relay/routing.py",
        CommonRoutingTableImpl,
        "impls_by_provider_id get_all_with_type(type)",
    ),
    (
        "relay/routing.py",
        request_headers,
        "request_provider_data_context(provider_data,auth_attributes) "
        "user_from_scope(scope)",
    ),
    (
        "relay/upstream.py",
        forward_headers,
        "build_forwarded_headers(provider_data,forward_headers)",
    ),
    (
        "relay/upstream.py",
        urllib.request,
        "proxy_bypass_environment(host,proxies)",
    ),
    ("provider.py", PassthroughInferenceAdapter, "_get_openai_client() list_models()"),
    ("settings.py", PassthroughImplConfig, "auth_credential"),
    (
        "server/run_yaml.py",
        stack,
        "replace_env_vars(config,path) cast_distro_name_to_string(config_dict)",
    ),
    ("server/run_yaml.py", log, "LoggingConfig"),
    ("server/logs.py", log, "CATEGORIES setup_logging(category_levels,log_file)"),
    (
        "server/metrics.py",
        inference_metrics,
        "create_inference_metric_attributes(model,provider,stream,status) "
        "inference_duration inference_time_to_first_token "
        "inference_tokens_per_second",
    ),
    ("server/lifecycle.py", Server, "handle_exit(sig,frame) should_exit started"),
    ("server/lifecycle.py", Server, "servers"),
    (
        "server/lifecycle.py",
        Config,
        "loaded_app timeout_keep_alive timeout_graceful_shutdown "
        "http_protocol_class is_ssl",
    ),
    ("server/lifecycle.py", ProxyHeadersMiddleware, "app"),
    (
        "server/connection.py",
        HttpToolsProtocol,
        "connection_made(transport) connection_lost(exc) data_received(data) "
        "resume_writing() on_message_begin() on_headers_complete() on_body(body) "
        "on_message_complete() on_response_complete() shutdown() "
        "_unset_keepalive_if_required() access_log ws_protocol_class parser headers "
        "scope cycle flow loop transport logger",
    ),
    (
        "server/connection.py",
        RequestResponseCycle,
        "disconnected message_event keep_alive response_started more_body send(message) "
        "chunked_encoding expected_content_length",
    ),
    ("server/connection.py", FlowControl, "read_paused write_paused resume_reading()"),
    ("__main__.py", Multiprocess, "handle_hup() handle_term()"),
    (
        "relay/client.py",
        ResponseHandler,
        "_payload feed_data(data,size) set_exception(exc,exc_cause) should_close",
    ),
    ("relay/client.py", aiohttp.TCPConnector, "_factory _loop"),
    ("relay/client.py", aiohttp.ClientRequest, "send(conn)"),
    ("relay/client.py", aiohttp.Payload, "_size _value"),
]
EACH = [(whose, name) for _, whose, names in REACHES for name in names.split()]


def _has(whose: object, name: str) -> bool:
    """Whether it is there: in a module, or in a class or what that sets at first."""
    made = [getattr(kind, "__init__", None) for kind in getattr(whose, "__mro__", ())]
    codes = [getattr(function, "__code__", None) for function in made]
    set_first = {name for code in codes if code for name in code.co_names}
    fields = getattr(whose, "model_fields", {})
    return hasattr(whose, name) or name in set_first or name in fields


@pytest.mark.parametrize(("whose", "name"), EACH, ids=[name for _, name in EACH])
def test_it_is_there(whose: object, name: str) -> None:
    """Under this name, and called with these."""
    name, called, parameters = name.partition("(")

    assert _has(whose, name)
    if called:
        found = list(inspect.signature(getattr(whose, name)).parameters)
        expected = parameters.removesuffix(")").split(",")
        assert ",".join(p for p in found if p != "self") == ",".join(expected)


def test_the_documentation_has_the_same_names() -> None:
    """File by file."""
    told: dict[str, set[str]] = {}
    for file, names, *_ in docs.rows(docs.section("docs/design.md", "The reaches")):
        told.setdefault(file, set()).update(re.findall(r"\w+", names))
    used: dict[str, set[str]] = {}
    for file, whose, names in REACHES:
        owner = whose.__name__.rpartition(".")[2]
        found = [owner, *(name.partition("(")[0] for name in names.split())]
        used.setdefault(file, set()).update(found)

    assert told == used


def _private_uses() -> Iterator[tuple[str, str]]:
    """The private names of others in the code: file and name."""
    for path in (PROJECT / "lls_openai").rglob("*.py"):
        file = str(path.relative_to(PROJECT / "lls_openai"))
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and re.match("_[a-z]", node.attr):
                if not (isinstance(node.value, ast.Name) and node.value.id == "self"):
                    yield file, node.attr
            elif isinstance(node, ast.ClassDef):
                module = "lls_openai." + file.removesuffix(".py").replace("/", ".")
                ours = getattr(importlib.import_module(module), node.name)
                others = [c for c in ours.__mro__ if "lls_openai" not in c.__module__]
                for each in ast.walk(node):
                    name = getattr(each, "attr", getattr(each, "name", "")) or ""
                    if re.match("_[a-z]", name) and any(_has(c, name) for c in others):
                        yield file, name


def test_no_other_private_name_is_used() -> None:
    """Neither of an object of others nor of a class that ours are made from."""
    listed = {(file, name.partition("(")[0]) for file, _, n in REACHES for name in n.split()}

    used = set(_private_uses())

    assert used == {(file, name) for file, name in listed if name.startswith("_")}


def test_what_stands_in_a_served_application(tmp_path: Path) -> None:
    """The relay behind every guard, each of which is added later and so runs first."""
    auth = {"provider_config": {"type": "custom", "endpoint": "http://127.0.0.1:1"}}
    quota = {"kvstore": {"backend": "kv_memory", "namespace": "quota"}}
    guards = {"server": {"auth": auth, "quota": quota, "cors": True}}
    program = (
        "import os\n"
        "from llama_stack.core.server.server import create_app\n"
        "chain = [each.cls.__name__ for each in create_app().user_middleware]\n"
        "print(*chain, flush=True)\n"
        "os._exit(0)\n"
    )
    path = str(Variation(guards).write(tmp_path))

    ended = subprocess.run(
        [sys.executable, "-c", program],
        env=clean_environment() | {"LLAMA_STACK_CONFIG": path, "HOME": str(tmp_path)},
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert ended.stdout.split() == [
        "RequestMetricsMiddleware",
        "CORSMiddleware",
        "QuotaMiddleware",
        "Authentication",
        "RouteAuthorization",
        "ServedRelay",
        "ClientVersionMiddleware",
    ]


def test_the_blocks_of_the_stock_settings_are_all_honoured() -> None:
    """A field that is new in one of these would be one that is not."""
    names = {
        "NetworkConfig": "tls proxy timeout headers",
        "TLSConfig": "verify min_version ciphers client_cert client_key",
        "ProxyConfig": "url http https cacert no_proxy",
        "TimeoutConfig": "connect read",
    }

    assert {name: set(fields.split()) for name, fields in names.items()} == {
        name: set(getattr(model_registry, name).model_fields) for name in names
    }


def test_the_pool_makes_connections_of_ours() -> None:
    """What aiohttp's connector is asked for."""

    async def make() -> ResponseHandler:
        async with open_pool() as pool:
            connector = pool.connector
            assert isinstance(connector, aiohttp.TCPConnector)
            return connector._factory()  # noqa: SLF001 - what it calls

    assert isinstance(asyncio.run(make()), PooledConnection)
