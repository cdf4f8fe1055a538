"""What `lls_openai` reaches into is there, and of the shape that it counts on.

None of it is anybody's public interface. Each of these fails, and says where, when an
upgrade of Llama Stack, aiohttp or uvicorn takes one of them away.
"""

import asyncio
import inspect
from typing import Any

import aiohttp
import pytest
from aiohttp.client_proto import ResponseHandler
from llama_stack.core import distribution, request_headers
from llama_stack.core.routers.inference import InferenceRouter
from llama_stack.core.routing_tables.common import CommonRoutingTableImpl
from llama_stack.core.server import server
from llama_stack.core.stack import Stack
from llama_stack.log import CATEGORIES, setup_logging
from llama_stack.providers.remote.inference.passthrough.passthrough import (
    PassthroughInferenceAdapter,
)
from llama_stack.providers.utils.forward_headers import build_forwarded_headers
from llama_stack.providers.utils.inference import model_registry
from llama_stack.telemetry import inference_metrics
from openai import AsyncOpenAI
from uvicorn.protocols.http import httptools_impl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.supervisors.multiprocess import Multiprocess, Process

from lls_openai import hooks
from lls_openai.adapter import PassthroughAdapter
from lls_openai.config import ProviderConfig
from lls_openai.pool import PooledConnection, open_pool
from lls_openai.provider import get_provider_spec
from lls_openai.relay import Relay


def _parameters(function: Any) -> list[str]:  # noqa: ANN401 - whatever is called
    """The names of a function's parameters, without `self`."""
    names = list(inspect.signature(function).parameters)
    return [name for name in names if name != "self"]


@pytest.mark.parametrize("name", hooks._OURS)  # noqa: SLF001 - the list of what is rebound
def test_the_server_looks_up_what_is_rebound(name: str) -> None:
    """`create_app` finds it as a global of its module, at the time it is called."""
    assert name in server.create_app.__code__.co_names
    assert hasattr(server, name)


def test_the_server_loads_providers_before_it_looks() -> None:
    """`StackApp` imports the provider module, and comes before any middleware."""
    source = inspect.getsource(server.create_app)

    places = [source.index(f"{name}(") for name in ("StackApp", "app.add_middleware")]
    assert places == sorted(places)


def test_the_middlewares_are_asgi_applications_around_another() -> None:
    """They are made with the next application, and called with ASGI's three."""
    kinds = (server.ProviderDataMiddleware, server.AuthenticationMiddleware)

    made = [_parameters(kind) for kind in kinds]
    called = {tuple(_parameters(kind.__call__)) for kind in kinds}
    assert made == [["app"], ["app", "auth_config", "impls"]]
    assert {("scope", "receive", "send")} == called
    assert issubclass(Relay, server.ProviderDataMiddleware)


def test_the_relay_stands_behind_every_guard() -> None:
    """The last that is added runs first: it is added before what has to precede it."""
    source = inspect.getsource(server.create_app)
    order = (
        "ClientVersionMiddleware",
        "ProviderDataMiddleware",
        "RouteAuthorizationMiddleware",
        "AuthenticationMiddleware",
        "QuotaMiddleware",
        "CORSMiddleware",
        "RequestMetricsMiddleware",
    )

    added = [source.index(f"app.add_middleware({name}") for name in order[:2]]
    added += [source.index(f"{name},") for name in order[2:]]
    assert added == sorted(added)


def test_the_handler_of_exceptions_takes_a_request_and_an_exception() -> None:
    """And is awaited."""
    stock, ours = server.global_exception_handler, hooks.answer_exception

    assert inspect.iscoroutinefunction(stock)
    assert inspect.iscoroutinefunction(ours)
    assert len(_parameters(stock)) == len(_parameters(ours)) == 2


def test_the_application_holds_the_stack() -> None:
    """`scope["app"].stack` has the implementations and the configuration."""
    assert "self.stack: Stack = Stack(config)" in inspect.getsource(server.StackApp)
    source = inspect.getsource(Stack)
    assert "self.impls" in source
    assert "self.run_config" in source


def test_the_router_finds_the_provider_of_a_model() -> None:
    """With access control, and gives the provider and its own name for the model."""
    find = InferenceRouter._get_model_provider  # noqa: SLF001 - what the relay calls

    assert inspect.iscoroutinefunction(find)
    assert _parameters(find) == ["model_id", "expected_model_type"]
    assert "is_action_allowed" in inspect.getsource(
        InferenceRouter._get_provider_by_fallback  # noqa: SLF001 - what that one calls
    )
    assert "self.routing_table = " in inspect.getsource(InferenceRouter.__init__)


def test_the_routing_table_knows_providers_and_models() -> None:
    """Providers by their id, and what is registered by its type."""
    table = CommonRoutingTableImpl({"p": "impl"}, None, [])

    assert table.impls_by_provider_id == {"p": "impl"}
    assert inspect.iscoroutinefunction(table.get_all_with_type)
    assert _parameters(table.get_all_with_type) == ["type"]


def test_the_stock_adapter_gets_its_client_in_one_place() -> None:
    """Each of its methods asks `_get_openai_client`, which gives an `AsyncOpenAI`."""
    methods = ("openai_chat_completion", "openai_completion", "openai_embeddings")
    sources = [
        inspect.getsource(getattr(PassthroughInferenceAdapter, name))
        for name in methods
    ]

    assert ["self._get_openai_client()" in source for source in sources] == [True] * 3
    get_client = PassthroughInferenceAdapter._get_openai_client  # noqa: SLF001 - overridden
    assert inspect.signature(get_client).return_annotation is AsyncOpenAI
    assert PassthroughAdapter._get_openai_client is not get_client  # noqa: SLF001 - likewise


def test_the_stock_settings_are_those_that_are_read() -> None:
    """Of the provider, and of its `network` block."""
    kinds = {
        ProviderConfig: "base_url allowed_models auth_credential network "
        "forward_headers",
        model_registry.NetworkConfig: "tls proxy timeout headers",
        model_registry.TLSConfig: "verify min_version ciphers client_cert client_key",
        model_registry.ProxyConfig: "url http https cacert no_proxy",
        model_registry.TimeoutConfig: "connect read",
    }

    missing = {
        kind.__name__: set(names.split()) - set(kind.model_fields)
        for kind, names in kinds.items()
    }
    assert not any(missing.values()), missing
    # A field that is new in these blocks would be one that is not honoured.
    new = [
        set(kind.model_fields) - set(names.split())
        for kind, names in kinds.items()
        if kind is not ProviderConfig
    ]
    assert new == [set(), set(), set(), set()]


def test_headers_to_forward_are_built_of_a_dictionary() -> None:
    """Without the validator that Llama Stack would put before it."""
    built = build_forwarded_headers({"a": "1", "b": "2"}, {"a": "X-A"})

    assert (built, build_forwarded_headers({"a": "1"}, None)) == ({"X-A": "1"}, {})


def test_the_instruments_take_what_is_recorded() -> None:
    """Three histograms, and the attributes that the router gives them."""
    attributes = inference_metrics.create_inference_metric_attributes(
        model="m", provider="p", stream=True, status="success"
    )

    expected = {"model": "m", "provider": "p", "stream": "true", "status": "success"}
    assert expected == attributes
    for name in ("duration", "time_to_first_token", "tokens_per_second"):
        getattr(inference_metrics, f"inference_{name}").record(1.0, attributes=expected)


def test_the_user_of_a_request_is_told_to_the_router() -> None:
    """By a context, from what authentication has put into the scope."""
    scope = {"principal": "alice", "user_attributes": {"roles": ["caller"]}}
    user = request_headers.user_from_scope(scope)

    with request_headers.request_provider_data_context({}, user):
        inside = request_headers.get_authenticated_user()

    assert (
        inside.principal,
        request_headers.get_authenticated_user(),
    ) == ("alice", None)


def test_a_module_in_run_yaml_is_asked_for_its_specification() -> None:
    """`module: NAME` imports `NAME.provider` and calls `get_provider_spec`."""
    source = inspect.getsource(distribution.get_external_providers_from_module)

    assert '.provider"' in source
    assert "get_provider_spec" in source
    assert _parameters(get_provider_spec) == []


def test_logging_can_be_set_up_again() -> None:
    """With a level for each category."""
    assert "core" in CATEGORIES
    assert _parameters(setup_logging)[0] == "category_levels"


def test_the_pool_makes_connections_of_ours() -> None:
    """Aiohttp's connector asks `_factory`; its protocol holds the body that is read."""

    async def make() -> ResponseHandler:
        async with open_pool() as pool:
            connector = pool.connector
            assert isinstance(connector, aiohttp.TCPConnector)
            return connector._factory()  # noqa: SLF001 - what the connector calls

    connection = asyncio.run(make())
    assert isinstance(connection, PooledConnection)
    assert connection._payload is None  # noqa: SLF001 - what the connection looks at
    assert "self._factory" in inspect.getsource(aiohttp.TCPConnector)


def test_a_request_is_sent_on_a_connection() -> None:
    """The pool hands a request the connection, before a byte of it is written."""
    assert inspect.iscoroutinefunction(aiohttp.ClientRequest.send)
    assert _parameters(aiohttp.ClientRequest.send) == ["conn"]
    assert "Accept-Encoding" in aiohttp.ClientRequest.DEFAULT_HEADERS


def test_uvicorns_connection_has_what_is_bounded() -> None:
    """The parser's callbacks, the pipeline and the headers, under these names."""
    callbacks = ("begin", "complete")
    names = [f"on_message_{name}" for name in callbacks]
    names += ["on_headers_complete", "on_body", "data_received"]
    source = inspect.getsource(HttpToolsProtocol.__init__)

    assert [True] * len(names) == [hasattr(HttpToolsProtocol, name) for name in names]
    assert "self.pipeline: deque" in source
    assert "self.headers: list" in source
    assert "self.access_logger = " in source
    assert "self.access_logger.info(" in inspect.getsource(httptools_impl)


def test_uvicorns_parent_starts_and_ends_workers_by_these_names() -> None:
    """`Multiprocess` holds its sockets and its workers, and each is a process."""
    source = inspect.getsource(Multiprocess)

    assert "self.sockets = sockets" in source
    assert "self.processes: list[Process]" in source
    assert "self.terminate_all()" in source
    assert "process.start()" in source
    assert "self.process = " in inspect.getsource(Process.__init__)
