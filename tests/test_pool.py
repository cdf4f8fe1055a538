"""Clients share the connections to an upstream, and nothing else."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx
import pytest

from tests.support.http import (
    CHAT,
    CHAT_REQUEST,
    GEMINI_MODEL,
    RawConnection,
    bearer,
    chat,
    eventually,
)
from tests.support.server import Server
from tests.support.upstream import Upstream
from tests.support.wire import EVENTS, JSON, SILENCE, Gate, Json, respond

# For this provider the mock is a proxy, so that it sees a host with a name.
pytestmark = pytest.mark.providers(
    {
        "named": {
            "base_url": "http://a.test",
            "network": {"proxy": {"url": "${env.OPENAI_UPSTREAM_URL}"}},
        }
    }
)


def call(client: httpx.Client, model: str = "openai/gpt-4o") -> httpx.Response:
    return client.post(CHAT, json=chat(model), headers=bearer())


def test_clients_share_connections_but_not_keys(
    client: httpx.Client, upstream: Upstream
) -> None:
    def call_with_key(number: int) -> None:
        body = chat(user=f"sk-{number}", stream=number % 2 == 0)
        client.post(CHAT, json=body, headers=bearer(f"sk-{number}"))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(call_with_key, range(64)))

    keys = {each.json["user"]: each.key for each in upstream.openai.requests}
    assert keys == {f"sk-{number}": f"sk-{number}" for number in range(64)}
    assert upstream.openai.connections <= 8


def test_cookies_are_not_kept(client: httpx.Client, upstream: Upstream) -> None:
    upstream.openai.script(respond(headers={"set-cookie": "a=b"}), times=2)

    for _ in range(2):
        assert call(client, "named/m-1").status_code == 200

    cookies = [each.header("cookie") for each in upstream.openai.requests]
    assert cookies == [None, None]


def test_stale_pooled_connection_is_not_reused(
    server: Server, upstream: Upstream
) -> None:
    """The server has to notice the upstream's close before it sends the request."""
    with RawConnection(server.port) as connection:
        connection.send(CHAT_REQUEST)
        assert connection.read_response().status == 200
        # Both are waiting when the server continues: the request, and the close.
        os.kill(server.pid, signal.SIGSTOP)
        try:
            connection.send(CHAT_REQUEST)
            upstream.openai.drop_connections()
        finally:
            os.kill(server.pid, signal.SIGCONT)

        response = connection.read_response()

    assert response.status == 200, response
    assert len(upstream.openai.requests) == 2


@pytest.mark.parametrize("headers", [JSON, EVENTS], ids=["json", "event-stream"])
@pytest.mark.parametrize(
    "unsolicited",
    [
        pytest.param(respond(b"unsolicited"), id="response"),
        pytest.param(b"HTTP/1.1 200", id="half-of-a-response"),
        pytest.param(b"\r\n", id="line-break"),
    ],
)
@pytest.mark.parametrize("is_late", [False, True], ids=["at-once", "later"])
def test_unsolicited_upstream_bytes_are_not_a_response(
    client: httpx.Client,
    upstream: Upstream,
    unsolicited: bytes,
    headers: Json,
    *,
    is_late: bool,
) -> None:
    """The next client would get them, and each later one the response before."""
    first, gate = respond(b"first", headers=headers), Gate()
    upstream.openai.script(
        *([first, gate, unsolicited] if is_late else [first + unsolicited])
    )
    upstream.openai.script(respond(b"second"), times=2)

    assert call(client).content == b"first"
    gate.open()
    assert upstream.openai.request.responded.wait(5)
    # Once this is answered, the server has read what came before.
    call(client, GEMINI_MODEL)
    connections = upstream.openai.connections

    assert [call(client).content for _ in range(2)] == [b"second", b"second"]
    assert len(upstream.openai.requests) == 3
    assert not is_late or upstream.openai.connections == connections + 1


def test_upstream_that_hangs_does_not_affect_other_upstreams(
    server: Server, client: httpx.Client, upstream: Upstream
) -> None:
    upstream.openai.drop_connections()
    upstream.openai.script(SILENCE, times=None)

    with ExitStack() as stack:
        for _ in range(100):
            connection = stack.enter_context(RawConnection(server.port))
            connection.send(CHAT_REQUEST)
        upstream.openai.wait_requests(100)
        others = [call(client, GEMINI_MODEL).status_code for _ in range(20)]
        assert others == [200] * 20
        assert upstream.openai.open_connections == 100

    eventually(lambda: upstream.openai.running_calls == 0, "all calls are closed")
