"""Connections to the upstreams are shared, and used only while they are sound."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock, MagicMock

import httpx
import pytest
from multidict import CIMultiDict
from starlette.types import Message, Receive, Scope, Send

from lls_openai.relay.app import Relay
from lls_openai.relay.client import open_pool, post
from lls_openai.relay.routes import ROUTES
from lls_openai.relay.upstream import Upstream as Pinned
from lls_openai.settings import ProviderConfig
from tests.support.http import CHAT, Raw, bearer, chat, encoded, request
from tests.support.server import Server
from tests.support.upstream import Upstream
from tests.support.vendors import KEYS
from tests.support.wire import EVENTS, JSON, SILENCE, Gate, answer

GEMINI: dict[str, Any] = {
    "json": chat("gemini/gemini-2.5-flash-lite"),
    "headers": bearer(KEYS["gemini"]),
}


def test_callers_share_connections_and_no_keys(
    client: httpx.Client, upstream: Upstream
) -> None:
    """Eight at a time, each with its own key, regular and streamed."""

    def call(number: int) -> None:
        body = chat(user=f"sk-{number}", stream=number % 2 == 0)
        client.post(CHAT, json=body, headers=bearer(f"sk-{number}"))

    with ThreadPoolExecutor(8) as callers:
        list(callers.map(call, range(64)))

    arrived = {each.json["user"]: each.key for each in upstream.openai.requests}
    assert arrived == {f"sk-{number}": f"sk-{number}" for number in range(64)}
    assert upstream.openai.connections <= 8


@pytest.mark.parametrize("unasked", [b"", answer(b"not yours")])
def test_what_waits_in_the_kernel_is_seen_before_a_connection_is_used(
    upstream: Upstream, unasked: bytes
) -> None:
    """An end, or bytes that nobody asked for: a loop that was busy has read neither."""
    gate = Gate()
    pinned = Pinned(ProviderConfig(base_url=upstream.openai.url))
    url = pinned.endpoint(ROUTES[CHAT], b"")
    upstream.openai.script(answer(b"first"), gate, unasked)
    upstream.openai.script(answer(b"second"))

    async def call_twice() -> list[bytes]:
        bodies = []
        async with open_pool() as pool:
            for _ in range(2):
                response = await post(pool, pinned, url, CIMultiDict(), b"{}")
                bodies.append(await response.read())
                # These block the loop, which so cannot notice what the mock does.
                gate.open()
                assert upstream.openai.requests[0].answered.wait(5)
                if not unasked:
                    upstream.openai.drop_connections()
        return bodies

    assert asyncio.run(call_twice()) == [b"first", b"second"]
    assert len(upstream.openai.requests) == 2


@pytest.mark.parametrize("kind", [JSON, EVENTS], ids=["regular", "streamed"])
@pytest.mark.parametrize("unasked", [answer(b"not yours"), b"HTTP/1.1 200", b"\r\n"])
def test_what_comes_unasked_is_nobodys_answer(
    client: httpx.Client, upstream: Upstream, unasked: bytes, kind: dict[str, str]
) -> None:
    """It would be the next caller's, and each later answer that of the call before."""
    gate, mine = Gate(), answer(b"mine", headers=kind)
    upstream.openai.script(mine + unasked)
    upstream.openai.script(mine, gate, unasked)
    upstream.openai.script(answer(b"yours"), times=2)
    call = partial(client.post, CHAT, json=chat(), headers=bearer())

    bodies = [call().content for _ in range(2)]
    gate.open()
    assert upstream.openai.requests[1].answered.wait(5)
    # The server's loop reads what came before this call.
    client.post(CHAT, **GEMINI)
    bodies += [call().content for _ in range(2)]

    assert bodies == [b"mine", b"mine", b"yours", b"yours"]
    assert len(upstream.openai.requests) == 4


def test_a_vendor_that_hangs_costs_no_other_vendor_anything(
    server: Server, client: httpx.Client, upstream: Upstream
) -> None:
    """Nor do connections stay open for callers that have gone."""
    upstream.openai.drop_connections()
    upstream.openai.script(SILENCE, times=None)
    sent = request(body=encoded(chat()))

    with ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(Raw(server.port)).send(sent)
        upstream.openai.wait_requests(100)
        others = [client.post(CHAT, **GEMINI) for _ in range(20)]
        assert {each.status_code for each in others} == {200}
        assert upstream.openai.open_connections == 100

    upstream.openai.wait_until(lambda: upstream.openai.open_connections == 0)


def test_the_pool_is_closed_before_the_server_says_that_it_is_down() -> None:
    """What comes after that, uvicorn does not wait for."""
    pinned = Pinned(ProviderConfig.model_validate({"base_url": "http://host"}))
    app = MagicMock()
    table = app.stack.impls.__getitem__.return_value.routing_table
    table.impls_by_provider_id = {"a": SimpleNamespace(upstream=pinned)}
    closed = []

    async def application(_scope: Scope, _receive: Receive, send: Send) -> None:
        for kind in ("startup", "shutdown"):
            await send({"type": f"lifespan.{kind}.complete"})

    async def send(_: Message) -> None:
        closed.append(relay._pool.closed)  # noqa: SLF001 - the pool

    relay = Relay(application)
    asyncio.run(relay({"type": "lifespan", "app": app}, AsyncMock(), send))

    assert closed == [False, True]
