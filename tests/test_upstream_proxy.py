"""Tunnels and TLS sessions of connections to an upstream, on both event loops."""

import asyncio
import socket
import ssl

import pytest
import uvloop

from lls_openai.relay.upstream_errors import UpstreamError
from tests.support.listener import RESPONSE, call, listening, upstream_at
from tests.support.network import Network


@pytest.mark.parametrize(
    ("base_url", "start"),
    [
        pytest.param(
            "https://[::1]:8443",
            b"CONNECT [::1]:8443 HTTP/1.1\r\nHost: [::1]:8443\r\n",
            id="ipv6-tunnel",
        ),
        pytest.param(
            "https://b\xfccher.test",
            b"CONNECT xn--bcher-kva.test:443 HTTP/1.1\r\n"
            b"Host: xn--bcher-kva.test:443\r\n",
            id="idna-tunnel",
        ),
    ],
)
def test_tunnel_is_opened_to_the_encoded_host(base_url: str, start: bytes) -> None:
    received = []

    def refuse(connection: socket.socket) -> None:
        received.append(connection.recv(65536))
        connection.sendall(b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno")

    async def connect(port: int) -> None:
        proxy = {"url": f"http://us%40er:p%3Aw@127.0.0.1:{port}"}
        with pytest.raises(UpstreamError, match="HTTP 403"):
            await call(upstream_at(base_url, proxy=proxy))

    with listening(refuse) as port:
        uvloop.run(connect(port))
    # Base64 of us@er:p:w.
    credentials = b"Proxy-Authorization: Basic dXNAZXI6cDp3\r\n\r\n"
    assert received == [start + credentials]


@pytest.mark.parametrize(
    ("response", "message"),
    [
        pytest.param(b"", "no valid HTTP response", id="closed"),
        pytest.param(b"SSH-2.0-x\r\n\r\n", "no valid HTTP response", id="not-http"),
        pytest.param(b"HTTP/1.1 200", "no valid HTTP response", id="half-of-a-line"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\n\r\nunsolicited",
            "no valid HTTP response",
            id="bytes-before-tls",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * 70_000,
            "no valid HTTP response",
            id="endless-headers",
        ),
        pytest.param(b"HTTP/1.0 407 Auth\r\n\r\n", "HTTP 407", id="status-407"),
        pytest.param(b"HTTP/1.1 302 Found\r\n\r\n", "HTTP 302", id="status-302"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nX-A: b\r\n\r\n",
            "closed the connection during the handshake",
            id="no-tls",
        ),
    ],
)
def test_failure_of_a_proxy_is_reported(response: bytes, message: str) -> None:
    def answer(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(response)

    async def connect(port: int) -> None:
        proxy = {"url": f"http://127.0.0.1:{port}"}
        with pytest.raises(UpstreamError, match=message):
            await call(upstream_at("https://upstream.test", proxy=proxy))

    with listening(answer) as port:
        uvloop.run(connect(port))


def test_tls_session_is_resumed_by_the_next_connection(network: Network) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    network.authority.issue_cert("127.0.0.1").configure_cert(context)
    resumed = []

    def serve_tls(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as tls:
            resumed.append(tls.session_reused)
            tls.recv(65536)
            tls.sendall(RESPONSE)
            # The upstream closes: the next call makes a new connection.

    async def call_thrice(port: int) -> None:
        tls = {"verify": network.env["CA_FILE"]}
        upstream = upstream_at(f"https://127.0.0.1:{port}", tls=tls)
        for number in range(1, 4):
            assert await call(upstream) == b"{}"
            assert len(resumed) == number
            await asyncio.sleep(0.1)
        await upstream.pool.close()

    with listening(serve_tls) as port:
        uvloop.run(call_thrice(port))
    assert resumed == [False, True, True]
