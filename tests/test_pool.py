"""Connections to the upstream are shared, reused, and closed at the end."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import httpx
import pytest
from llama_stack_api import Api
from multidict import CIMultiDict
from starlette.types import Message, Receive, Scope, Send

from lls_openai.adapter import PassthroughAdapter
from lls_openai.config import ProviderConfig
from lls_openai.pool import open_pool
from lls_openai.relay import Relay
from lls_openai.transport import Call, post
from lls_openai.upstream import pin_upstream
from tests.calls import CHAT, call, chat, open_call
from tests.conftest import StartServer
from tests.scripts import DONE, JSON, answering, streaming
from tests.server import Server
from tests.upstream import Connection, Gate, Request, Upstream


def _with_key(number: int) -> dict[str, str]:
    return {"Authorization": f"Bearer sk-{number}"}


def test_no_caller_after_the_first_needs_a_new_connection(
    server: Server, upstream: Upstream, http: httpx.Client
) -> None:
    """One after the other, with another key each, regular and streamed."""
    call(http, server.url, chat())
    upstream.openai.reset()

    for number in range(10):
        body = chat(stream=number % 2 == 0)
        call(http, server.url, body, headers=_with_key(number))

    keys = {arrived.key for arrived in upstream.openai.calls}
    assert (upstream.openai.connections, len(keys)) == (0, 10)


def test_as_many_connections_as_calls_at_a_time(
    server: Server, upstream: Upstream, http: httpx.Client
) -> None:
    """No call waits for another's connection."""
    gate = Gate()
    upstream.openai.answer_with(streaming(b"data: 1\n\n", gate, DONE))

    def stream(number: int) -> bytes:
        with open_call(
            http, server.url, chat(stream=True), headers=_with_key(number)
        ) as opened:
            return opened.rest()

    with ThreadPoolExecutor(30) as callers:
        streams = [callers.submit(stream, number) for number in range(30)]
        upstream.openai.wait_until(lambda: len(upstream.openai.calls) == 30)
        gate.open()
        bodies = {done.result() for done in streams}

    numbers = {arrived.connection.number for arrived in upstream.openai.calls}
    assert ({b"data: 1\n\n" + DONE}, 30) == (bodies, len(numbers))


def test_an_upstream_may_close_an_idle_connection(
    server: Server, upstream: Upstream, http: httpx.Client
) -> None:
    """The next call opens another one, and nobody notices."""
    statuses = []
    for _ in range(10):
        statuses.append(call(http, server.url, chat()).status)
        upstream.openai.drop_connections()

    numbers = {arrived.connection.number for arrived in upstream.openai.calls}
    assert (statuses, len(numbers)) == ([200] * 10, 10)


def test_an_upstream_may_close_after_each_answer(
    server: Server, upstream: Upstream, http: httpx.Client
) -> None:
    """Without having said so; the next call comes as soon as it is closed."""

    async def script(_request: Request, connection: Connection) -> None:
        await connection.answer(200, JSON, b"{}")
        connection.close()
        # The end is sent in the loop's next turn.
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    upstream.openai.answer_with(script)
    statuses = []
    for _ in range(50):
        statuses.append(call(http, server.url, chat()).status)
        upstream.openai.wait_until(
            lambda: upstream.openai.calls[-1].answered_at is not None
        )

    assert (statuses, len(upstream.openai.calls)) == ([200] * 50, 50)


def test_a_connection_that_was_closed_unseen_is_not_used(upstream: Upstream) -> None:
    """Its end waits unread in the kernel: it is looked for before anything is sent."""
    upstream.openai.answer_with(answering())
    pinned = pin_upstream(upstream.openai.url, None)

    async def call_thrice() -> list[int]:
        statuses = []
        async with open_pool() as pool:
            for _ in range(3):
                headers = CIMultiDict({"Authorization": "Bearer sk"})
                response = await post(pool, Call(pinned, CHAT, headers, chat()))
                statuses.append(response.status)
                await response.read()
                # Blocks this loop as well, so that it cannot have noticed the end.
                upstream.openai.drop_connections()
        return statuses

    assert (asyncio.run(call_thrice()), len(upstream.openai.calls)) == ([200] * 3, 3)


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 529])
def test_an_error_is_not_tried_again(
    server: Server, upstream: Upstream, http: httpx.Client, status: int
) -> None:
    """The caller's client does that, and is told when to and whether."""
    headers = JSON | {"retry-after": "0", "x-should-retry": "true"}
    upstream.openai.answer_with(answering(status=status, headers=headers))

    answer = call(http, server.url, chat())

    assert (status, "0", "true", 1) == (
        answer.status,
        answer.headers["retry-after"],
        answer.headers["x-should-retry"],
        len(upstream.openai.calls),
    )


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("read_body", [False, True])
def test_a_reset_is_not_tried_again(
    server: Server,
    upstream: Upstream,
    http: httpx.Client,
    *,
    before: bool,
    read_body: bool,
) -> None:
    """Not on a new connection and not on a reused one: it may have been processed."""

    async def script(_request: Request, connection: Connection) -> None:
        connection.reset()

    if before:
        call(http, server.url, chat())
    else:
        upstream.openai.drop_connections()
    upstream.openai.answer_with(script, read_body=read_body)
    answer = call(http, server.url, chat())

    assert answer.error_code == (502, "upstream_unreachable")
    assert int(before) + 1 == len(upstream.openai.calls)


@pytest.mark.parametrize(
    "unasked",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
        b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200",
        b"\r\n",
    ],
)
def test_what_comes_unasked_is_nobodys_answer(
    server: Server, upstream: Upstream, http: httpx.Client, unasked: bytes
) -> None:
    """It would be the next caller's, and each later answer that of the call before."""
    gate = Gate()

    async def script(_request: Request, connection: Connection) -> None:
        await connection.answer(200, JSON, b'{"mine":1}')
        await gate.wait()
        await connection.write(unasked)

    upstream.openai.answer_with(script, times=1)
    first = call(http, server.url, chat())
    gate.open()
    (arrived,) = upstream.openai.calls
    upstream.openai.wait_until(lambda: arrived.answered_at is not None)
    # The server's loop has read what came before this call.
    call(http, server.url, chat("gemini/gemini-2.5-flash-lite"))
    upstream.openai.answer_with(answering(b'{"yours":1}'))
    second = call(http, server.url, chat())

    assert [first.body, second.body] == [b'{"mine":1}', b'{"yours":1}']
    assert len(upstream.openai.calls) == 2


def test_two_answers_at_once_are_one_too_many(
    server: Server, upstream: Upstream, http: httpx.Client
) -> None:
    """Likewise when the second comes right behind the first."""

    async def script(_request: Request, connection: Connection) -> None:
        head = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"
        await connection.write(head + b"{}" + head + b"[]")

    upstream.openai.answer_with(script, times=1)
    first = call(http, server.url, chat())
    upstream.openai.answer_with(answering(b'{"yours":1}'))
    second = call(http, server.url, chat())

    assert [first.body, second.body] == [b"{}", b'{"yours":1}']


def test_the_pool_is_closed_at_shutdown(
    start_server: StartServer, upstream: Upstream, http: httpx.Client
) -> None:
    """Every connection ends in order, and nothing complains of one left open."""
    running = start_server()
    statuses = {call(http, running.url, chat()).status for _ in range(3)}
    (connection,) = {arrived.connection for arrived in upstream.openai.calls}
    assert connection.peer_closed_at is None

    running.stop()
    upstream.openai.wait_until(lambda: connection.peer_closed_at is not None)

    assert {200} == statuses
    assert "nclosed" not in running.log


def test_the_pool_is_closed_before_the_server_says_that_it_is_down(
    upstream: Upstream,
) -> None:
    """What comes after that, uvicorn does not wait for."""
    adapter = PassthroughAdapter(ProviderConfig(base_url=upstream.openai.url))
    table = SimpleNamespace(impls_by_provider_id={"openai": adapter})
    config = SimpleNamespace(server=SimpleNamespace(auth=None))
    router = SimpleNamespace(routing_table=table)
    stack = SimpleNamespace(run_config=config, impls={Api.inference: router})
    closed: list[tuple[str, bool]] = []

    async def application(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})

    async def receive() -> Message:
        return {"type": "lifespan.startup"}

    async def send(message: Message) -> None:
        closed.append((message["type"], relay._pool.closed))  # noqa: SLF001 - the pool

    relay = Relay(application)
    scope = {"type": "lifespan", "app": SimpleNamespace(stack=stack)}
    asyncio.run(relay(scope, receive, send))

    expected = {"lifespan.startup.complete": False, "lifespan.shutdown.complete": True}
    assert expected == dict(closed)
