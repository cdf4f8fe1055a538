"""Connections to the upstreams are shared, and used only while they are sound."""

import asyncio
from contextlib import ExitStack
from types import SimpleNamespace
from unittest.mock import AsyncMock

import httpx
import pytest
from llama_stack_api import Api
from multidict import CIMultiDict
from starlette.types import Message, Receive, Scope, Send

from lls_openai.relay.app import Relay
from lls_openai.relay.client import open_pool, post
from lls_openai.relay.routes import ROUTES
from lls_openai.relay.upstream import Upstream as Pinned
from lls_openai.settings import ProviderConfig
from tests.support import wire
from tests.support.http import CHAT, Raw, ask, bearer, chat, encoded, request
from tests.support.server import Server
from tests.support.upstream import Upstream
from tests.support.vendors import KEYS
from tests.support.wire import Gate, answer

CALL = request(body=encoded(chat()))
GEMINI = chat("gemini/gemini-2.5-flash-lite")


def test_callers_share_connections(
    server: Server, upstream: Upstream, client: httpx.Client
) -> None:
    """One after the other, with another key each, regular and streamed: one is used."""
    ask(server.port, CALL)
    before = upstream.openai.connections
    keys = [f"{KEYS['openai']}-{number}" for number in range(10)]

    for number, key in enumerate(keys):
        body = chat(stream=number % 2 == 0)
        assert client.post(CHAT, json=body, headers=bearer(key)).status_code == 200

    assert [each.key for each in upstream.openai.requests[1:]] == keys
    assert upstream.openai.connections == before


@pytest.mark.parametrize("unasked", [b"", answer(b"not yours")])
def test_what_waits_in_the_kernel_is_seen_before_a_connection_is_used(
    upstream: Upstream, unasked: bytes
) -> None:
    """An end, or bytes that nobody asked for: a loop that was busy has read neither."""
    gate = Gate()
    pinned = Pinned(ProviderConfig(base_url=upstream.openai.url))
    upstream.openai.script(answer(b"first"), gate, unasked)
    upstream.openai.script(answer(b"second"))

    url = pinned.endpoint(ROUTES[CHAT], b"")

    async def call_twice() -> list[bytes]:
        bodies = []
        async with open_pool() as pool:
            for _ in range(2):
                headers = CIMultiDict[str]()
                response = await post(pool, pinned, url, headers, b"{}")
                bodies.append(await response.read())
                # These block the loop, which so cannot notice what the mock does.
                gate.open()
                assert upstream.openai.requests[0].answered.wait(5)
                if not unasked:
                    upstream.openai.drop_connections()
        return bodies

    assert asyncio.run(call_twice()) == [b"first", b"second"]
    assert len(upstream.openai.requests) == 2


@pytest.mark.parametrize("kind", [wire.JSON, wire.EVENTS], ids=["regular", "streamed"])
@pytest.mark.parametrize("unasked", [answer(b"not yours"), b"HTTP/1.1 200", b"\r\n"])
def test_what_comes_unasked_is_nobodys_answer(
    server: Server, upstream: Upstream, unasked: bytes, kind: dict[str, str]
) -> None:
    """It would be the next caller's, and each later answer that of the call before."""
    gate, mine = Gate(), answer(b"mine", headers=kind)
    upstream.openai.script(mine + unasked)
    upstream.openai.script(mine, gate, unasked)
    upstream.openai.script(answer(b"yours"), times=2)

    bodies = [ask(server.port, CALL).body for _ in range(2)]
    gate.open()
    assert upstream.openai.requests[1].answered.wait(5)
    # The server's loop reads what came before this call.
    ask(server.port, request(body=encoded(GEMINI)))
    bodies += [ask(server.port, CALL).body for _ in range(2)]

    assert bodies == [b"mine", b"mine", b"yours", b"yours"]
    assert len(upstream.openai.requests) == 4


def test_a_connection_answered_before_the_request_was_read_is_not_used_again(
    server: Server, upstream: Upstream
) -> None:
    """The answer to a large body may come early; the rest would be the next request."""
    upstream.openai.script(answer(b"large", 413), wire.READ_BODY, read_body=False)

    early = ask(server.port, request(body=encoded(chat(user="x" * 20_000_000))))
    after = ask(server.port, CALL)

    assert (early.status, early.body, after.status) == (413, b"large", 200)
    first, second = upstream.openai.requests
    assert first.connection != second.connection


def test_a_vendor_that_hangs_costs_no_other_vendor_anything(
    server: Server, upstream: Upstream, client: httpx.Client
) -> None:
    """Nor do connections stay open for callers that have gone."""
    upstream.openai.drop_connections()
    upstream.openai.script(wire.SILENCE, times=None)

    with ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(Raw(server.port)).send(CALL)
        upstream.openai.wait_requests(100)
        key = bearer(KEYS["gemini"])
        others = [client.post(CHAT, json=GEMINI, headers=key) for _ in range(20)]
        assert upstream.openai.open_connections == 100

    assert {each.status_code for each in others} == {200}
    upstream.openai.wait_until(lambda: upstream.openai.open_connections == 0)


def test_the_pool_is_closed_before_the_server_says_that_it_is_down() -> None:
    """What comes after that, uvicorn does not wait for."""
    pinned = Pinned(ProviderConfig.model_validate({"base_url": "http://host"}))
    providers = {"a": SimpleNamespace(upstream=pinned)}
    router = SimpleNamespace(
        routing_table=SimpleNamespace(impls_by_provider_id=providers)
    )
    config = SimpleNamespace(server=SimpleNamespace(auth=None))
    stack = SimpleNamespace(run_config=config, impls={Api.inference: router})
    closed: dict[str, bool] = {}

    async def application(_scope: Scope, _receive: Receive, send: Send) -> None:
        for kind in ("startup", "shutdown"):
            await send({"type": f"lifespan.{kind}.complete"})

    async def send(message: Message) -> None:
        closed[message["type"]] = relay._pool.closed  # noqa: SLF001 - the pool

    relay = Relay(application)
    scope = {"type": "lifespan", "app": SimpleNamespace(stack=stack)}
    asyncio.run(relay(scope, AsyncMock(), send))

    assert closed == {
        "lifespan.startup.complete": False,
        "lifespan.shutdown.complete": True,
    }
