"""Connections to an upstream, without the server around them.

A test cannot bring these conditions about from outside the process.
"""

import asyncio
import gc
import socket
import threading
import time
from contextlib import suppress
from typing import Any
from unittest.mock import Mock
from urllib.parse import urlsplit

import pytest
import uvloop

from lls_openai.relay.connection import Connection
from lls_openai.relay.connector import Connector
from lls_openai.relay.endpoints import Endpoint
from lls_openai.relay.upstream_errors import UpstreamError, UpstreamTimeout
from lls_openai.relay.upstream_response import UpstreamResponse
from tests.support.http import MEBIBYTE
from tests.support.listener import HEAD, RESPONSE, call, listening, respond, upstream_at
from tests.support.network import Network


def test_upload_that_progresses_may_take_longer_than_the_timeout() -> None:
    body = b"x" * (4 * MEBIBYTE)

    def read_slowly(connection: socket.socket) -> None:
        unread = len(HEAD % len(body)) + len(body)
        while unread:
            time.sleep(0.02)
            unread -= len(connection.recv(100_000))
        connection.sendall(RESPONSE)

    async def upload(port: int) -> None:
        upstream = upstream_at(f"http://127.0.0.1:{port}", timeout=0.5)
        assert await call(upstream, body) == b"{}"
        await upstream.pool.close()

    with listening(read_slowly) as port:
        start = time.monotonic()
        uvloop.run(upload(port))
    assert time.monotonic() - start > 0.6


def test_upload_that_stops_is_a_timeout() -> None:
    done = threading.Event()

    async def upload(port: int) -> None:
        upstream = upstream_at(f"http://127.0.0.1:{port}", timeout=0.5)
        with pytest.raises(UpstreamTimeout, match=r"longer than 0\.5 s"):
            await call(upstream, b"x" * (32 * MEBIBYTE))
        await upstream.pool.close()
        done.set()

    def read_nothing(_: socket.socket) -> None:
        done.wait(10)

    with listening(read_nothing) as port:
        start = time.monotonic()
        uvloop.run(upload(port))
    assert 0.4 < time.monotonic() - start < 2


def test_slow_client_is_not_the_silence_of_the_upstream() -> None:
    body = b"x" * (8 * MEBIBYTE)

    def send_body(connection: socket.socket) -> None:
        connection.recv(65536)
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
        connection.sendall(head % len(body) + body)

    async def read_late(port: int) -> None:
        upstream = upstream_at(f"http://127.0.0.1:{port}", timeout=0.2)
        response = await upstream.pool.send(HEAD % 2, b"{}")
        received = await response.read()
        await asyncio.sleep(0.6)
        assert not response.complete
        while data := await response.read():
            received += data
        assert received == body
        await upstream.pool.close()

    with listening(send_body) as port:
        uvloop.run(read_late(port))


def test_connections_have_tcp_keep_alive_after_60_s() -> None:
    async def connect(port: int) -> None:
        connection = Connection(1, print, print)
        await Connector(Endpoint("127.0.0.1", port), None, 1).connect(connection)
        sock = connection.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        connection.abort()
        await asyncio.sleep(0)

    with listening(respond) as port:
        uvloop.run(connect(port))


def resolve_to(*ports: int) -> Mock:
    """Resolve `upstream.test` to these ports; return a mock of the look-ups."""
    loop, lookups = asyncio.get_running_loop(), Mock()
    getaddrinfo = loop.getaddrinfo

    async def resolve(host: str, port: int, **options: Any) -> list[Any]:  # noqa: ANN401 - as in asyncio
        if host != "upstream.test":
            return await getaddrinfo(host, port, **options)
        lookups(host, port)
        await asyncio.sleep(0.05)
        addresses = [("127.0.0.1", each) for each in ports]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", a) for a in addresses]

    loop.getaddrinfo = resolve  # type: ignore[assignment,method-assign]
    return lookups


@pytest.mark.parametrize("name", ["REFUSED_URL", "UNRESPONSIVE_URL"])
def test_next_address_of_a_host_is_tried(network: Network, name: str) -> None:
    dead = urlsplit(network.env[name]).port or 0

    async def connect(port: int) -> None:
        resolve_to(dead, port)
        upstream = upstream_at("http://upstream.test", timeout=5)
        assert await call(upstream) == b"{}"
        await upstream.pool.close()

    with listening(respond) as port:
        start = time.monotonic()
        uvloop.run(connect(port))
    assert time.monotonic() - start < 2


def test_connections_made_at_once_share_a_look_up() -> None:
    async def call_at_once(port: int) -> None:
        lookups = resolve_to(port)
        upstream = upstream_at("http://upstream.test")
        cancelled = asyncio.create_task(call(upstream))
        calls = [asyncio.create_task(call(upstream)) for _ in range(3)]
        await asyncio.sleep(0.01)
        cancelled.cancel()
        assert await asyncio.gather(*calls) == [b"{}"] * 3
        lookups.assert_called_once_with("upstream.test", 80)
        await upstream.pool.close()

    with listening(respond) as port:
        uvloop.run(call_at_once(port))


@pytest.mark.parametrize(
    "response",
    [
        pytest.param(RESPONSE, id="response"),
        pytest.param(RESPONSE[:-1], id="half-of-a-body"),
        pytest.param(RESPONSE[:20], id="half-of-headers"),
        pytest.param(b"not HTTP\r\n\r\n", id="not-http"),
    ],
)
def test_ended_connection_needs_no_garbage_collection(response: bytes) -> None:
    """A cycle would keep the body of a call until the collector finds it."""

    def serve(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(response)

    async def call_and_count(port: int) -> None:
        upstream = upstream_at(f"http://127.0.0.1:{port}")
        with suppress(UpstreamError):
            await call(upstream)
        await upstream.pool.close()
        kinds = (Connection, UpstreamResponse)
        assert [each for each in gc.get_objects() if isinstance(each, kinds)] == []

    gc.collect()
    gc.disable()
    try:
        with listening(serve) as port:
            uvloop.run(call_and_count(port))
    finally:
        gc.enable()
