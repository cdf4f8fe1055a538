"""A caller that goes away takes its call to the upstream with it."""

import socket
from collections.abc import Callable

import httpx
import pytest

from tests.calls import CHAT, KEY, call, chat, open_call
from tests.scripts import DONE, EVENTS, JSON, streaming
from tests.server import Server
from tests.upstream import Connection, Gate, Handler, Request, Upstream

FIRST = b"data: 1\n\n"


def _wait_for_leaving(upstream: Upstream) -> Request:
    """Wait until the server has closed the connection of the only call."""
    upstream.openai.wait_until(lambda: bool(upstream.openai.calls))
    (arrived,) = upstream.openai.calls
    upstream.openai.wait_until(lambda: arrived.peer_closed_at is not None)
    return arrived


def test_leaving_a_stream_closes_it_upstream(
    server: Server, upstream: Upstream, http: httpx.Client
) -> None:
    """Though the upstream would go on with it, and is silent just then."""
    upstream.openai.answer_with(streaming(FIRST, Gate(), DONE))

    with open_call(http, server.url, chat(stream=True)) as stream:
        assert stream.read(1) == FIRST
        stream.leave()
        arrived = _wait_for_leaving(upstream)

    assert arrived.answered_at is None


def _silent(_gate: Gate) -> Handler:
    async def script(_request: Request, _connection: Connection) -> None:
        await Gate().wait()

    return script


def _half_an_answer(_gate: Gate) -> Handler:
    async def script(_request: Request, connection: Connection) -> None:
        await connection.head(200, JSON)
        await connection.chunk(b'{"half":')
        await Gate().wait()

    return script


def _no_event(_gate: Gate) -> Handler:
    return streaming(b"data: ", Gate(), headers=EVENTS)


@pytest.mark.parametrize("script", [_silent, _half_an_answer, _no_event])
def test_leaving_before_an_answer_closes_the_call(
    server: Server, upstream: Upstream, script: Callable[[Gate], Handler]
) -> None:
    """Nothing has come, or nothing that could be relayed."""
    upstream.openai.answer_with(script(Gate()))
    body = chat()
    head = (
        f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )

    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as caller:
        caller.sendall(head.encode() + body)
        upstream.openai.wait_until(lambda: bool(upstream.openai.calls))
    arrived = _wait_for_leaving(upstream)

    assert arrived.answered_at is None


def test_leaving_inside_a_request_calls_nobody(
    server: Server, upstream: Upstream, http: httpx.Client
) -> None:
    """A body that never became whole goes nowhere."""
    head = (
        f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n"
        "Content-Length: 1000\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as caller:
        caller.sendall(head.encode() + chat())

    assert call(http, server.url, chat(user="next")).status == 200
    assert [arrived.json.get("user") for arrived in upstream.openai.calls] == ["next"]


def test_others_do_not_notice(
    server: Server, upstream: Upstream, http: httpx.Client
) -> None:
    """A stream beside the one that was left goes on to its end."""
    gate = Gate()
    upstream.openai.answer_with(streaming(FIRST, gate, DONE))

    with open_call(http, server.url, chat(stream=True)) as staying:
        first = staying.read(1)
        with open_call(http, server.url, chat(stream=True)) as leaving:
            leaving.read(1)
            leaving.leave()
            upstream.openai.wait_until(
                lambda: upstream.openai.calls[1].peer_closed_at is not None
            )
        gate.open()
        assert (first, staying.rest()) == (FIRST, DONE)


def test_a_left_connection_is_not_used_again(
    server: Server, upstream: Upstream, http: httpx.Client
) -> None:
    """The rest of the old answer could be taken for the next one."""
    upstream.openai.answer_with(streaming(FIRST, Gate(), DONE), times=1)
    with open_call(http, server.url, chat(stream=True)) as stream:
        stream.read(1)
        stream.leave()
        left = _wait_for_leaving(upstream)

    assert call(http, server.url, chat()).status == 200
    assert left.connection.number != upstream.openai.calls[1].connection.number
