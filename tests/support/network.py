"""TLS, a proxy, and unreachable ports between the server and the mock upstream."""

import asyncio
import socket
import ssl
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit

import trustme

from tests.support.upstream import Upstream

_HOST = "127.0.0.1"
# Too long for any resolver to look it up (RFC 1035, section 2.3.4).
_UNRESOLVABLE_URL = "http://" + "a." * 150 + "test"


class Network:
    """Ports and certificates; `env` has the variables that a run.yaml names."""

    def __init__(self, directory: Path, upstream: Upstream, stack: ExitStack) -> None:
        """Listen on all ports, in the upstream's loop, until the stack is closed."""
        self.authority = trustme.CA()
        self.client_context = ssl.create_default_context()
        self.authority.configure_trust(self.client_context)
        self.proxy = Proxy()
        proxy_port = upstream.openai.run(self.proxy.listen())
        tls_proxy = self.proxy.listen(self._server_context())
        tls_proxy_port = upstream.openai.run(tls_proxy)
        stack.callback(lambda: upstream.openai.run(self.proxy.close()))
        self.env = upstream.environment | self._listen_with_tls(upstream)
        self.env |= self._write_certificates(directory)
        self.env |= {
            "PROXY_URL": f"http://{_HOST}:{proxy_port}",
            "PROXY_PORT": str(proxy_port),
            "TLS_PROXY_URL": f"https://{_HOST}:{tls_proxy_port}",
            "REFUSED_URL": _url(_bind(stack)),
            "UNRESPONSIVE_URL": _url(_bind_unresponsive(stack)),
            "UNRESOLVABLE_URL": _UNRESOLVABLE_URL,
            "COLLECTOR_URL": upstream.collector.url,
            "AUTH_URL": upstream.authenticator.url,
        }

    def _server_context(self, host: str = _HOST) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.authority.issue_cert(host).configure_cert(context)
        return context

    def _listen_with_tls(self, upstream: Upstream) -> dict[str, str]:
        contexts = {
            "TLS_URL": self._server_context(),
            "MUTUAL_TLS_URL": self._server_context(),
            "OLD_TLS_URL": self._server_context(),
            "OTHER_NAME_URL": self._server_context("elsewhere.test"),
        }
        contexts["MUTUAL_TLS_URL"].verify_mode = ssl.CERT_REQUIRED
        self.authority.configure_trust(contexts["MUTUAL_TLS_URL"])
        contexts["OLD_TLS_URL"].maximum_version = ssl.TLSVersion.TLSv1_2
        ports = {
            name: upstream.openai.run(upstream.openai.listen(tls=context))
            for name, context in contexts.items()
        }
        return {name: f"https://{_HOST}:{port}" for name, port in ports.items()}

    def _write_certificates(self, directory: Path) -> dict[str, str]:
        certificate = self.authority.issue_cert(_HOST)
        pems = {
            "CA_FILE": self.authority.cert_pem,
            "OTHER_CA_FILE": trustme.CA().cert_pem,
            "CERT_FILE": certificate.cert_chain_pems[0],
            "KEY_FILE": certificate.private_key_pem,
        }
        for name, pem in pems.items():
            pem.write_to_path(str(directory / name))
        return {name: str(directory / name) for name in pems}


class Proxy:
    """A proxy that forwards requests, and opens a tunnel for CONNECT."""

    def __init__(self) -> None:
        # Start line and headers of each request.
        self.requests: list[str] = []
        self._listeners: list[asyncio.Server] = []

    @property
    def targets(self) -> list[str]:
        """Method and target of each request."""
        return [" ".join(request.split(" ")[:2]) for request in self.requests]

    async def listen(self, tls: ssl.SSLContext | None = None) -> int:
        """Listen on one more port; return it."""
        listener = await asyncio.start_server(self._serve, _HOST, 0, ssl=tls)
        self._listeners.append(listener)
        port: int = listener.sockets[0].getsockname()[1]
        return port

    async def close(self) -> None:
        for listener in self._listeners:
            listener.close()

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        self.requests.append(request)
        method, target, _ = request.split(" ", 2)
        url = urlsplit(target if "//" in target else f"//{target}")
        from_upstream, to_upstream = await asyncio.open_connection(
            url.hostname, url.port
        )
        if method == "CONNECT":
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            # One request a connection: the next one may be for another host.
            request = request.replace("\r\n", "\r\nConnection: close\r\n", 1)
            to_upstream.write(request.replace(target, url.path, 1).encode("latin-1"))
        await asyncio.gather(_copy(reader, to_upstream), _copy(from_upstream, writer))


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        try:
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
        finally:
            sink.close()
            await sink.wait_closed()


def _url(bound: socket.socket) -> str:
    return f"http://{_HOST}:{bound.getsockname()[1]}"


def _bind(stack: ExitStack) -> socket.socket:
    """Return a socket that is bound to a port and does not listen."""
    bound = stack.enter_context(socket.socket())
    bound.bind((_HOST, 0))
    return bound


def _bind_unresponsive(stack: ExitStack) -> socket.socket:
    """Return a listening socket whose queue of new connections is full."""
    unresponsive = _bind(stack)
    unresponsive.listen(0)
    for _ in range(3):
        waiting = stack.enter_context(socket.socket())
        waiting.setblocking(False)  # noqa: FBT003 - it has no keyword
        waiting.connect_ex(unresponsive.getsockname())
    return unresponsive
