"""What stands between the server and others: TLS, proxies, dead ports, auth."""

import asyncio
import socket
import ssl
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit

import trustme

from tests.support.upstream import Upstream

_HOST = "127.0.0.1"
# A name too long for any resolver to ask others about (RFC 1035, section 2.3.4).
_NAMELESS = "http://" + "a." * 150 + "test"


class Network:
    """Ports and certificates that a run.yaml names by the variables of `env`."""

    def __init__(self, directory: Path, upstream: Upstream, stack: ExitStack) -> None:
        """Listen everywhere, in the upstream's loop, until the stack is closed."""
        self.authority = trustme.CA()
        self.trusting = ssl.create_default_context()
        self.authority.configure_trust(self.trusting)
        self.proxy = Proxy()
        proxy = upstream.openai.run(self.proxy.listen())
        stack.callback(lambda: upstream.openai.run(self.proxy.close()))
        self.env = upstream.environment | self._tls(upstream) | self._files(directory)
        self.env |= {
            "PROXY_URL": f"http://{_HOST}:{proxy}",
            "PROXY_PORT": str(proxy),
            "REFUSED_URL": _url(_refusing(stack)),
            "DEAF_URL": _url(_deaf(stack)),
            "NAMELESS_URL": _NAMELESS,
            "COLLECTOR_URL": upstream.collector.url,
            "GATEKEEPER_URL": upstream.gatekeeper.url,
        }

    def _context(self, host: str = _HOST) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.authority.issue_cert(host).configure_cert(context)
        return context

    def _tls(self, upstream: Upstream) -> dict[str, str]:
        contexts = {
            "TLS_URL": self._context(),
            "MUTUAL_TLS_URL": self._context(),
            "OLD_TLS_URL": self._context(),
            "OTHER_NAME_URL": self._context("elsewhere.test"),
        }
        contexts["MUTUAL_TLS_URL"].verify_mode = ssl.CERT_REQUIRED
        self.authority.configure_trust(contexts["MUTUAL_TLS_URL"])
        contexts["OLD_TLS_URL"].maximum_version = ssl.TLSVersion.TLSv1_2
        ports = {
            name: upstream.openai.run(upstream.openai.listen(tls=context))
            for name, context in contexts.items()
        }
        return {name: f"https://{_HOST}:{port}" for name, port in ports.items()}

    def _files(self, directory: Path) -> dict[str, str]:
        mine = self.authority.issue_cert(_HOST)
        pems = {
            "CA_FILE": self.authority.cert_pem,
            "OTHER_CA_FILE": trustme.CA().cert_pem,
            "CERT_FILE": mine.cert_chain_pems[0],
            "KEY_FILE": mine.private_key_pem,
        }
        for name, pem in pems.items():
            pem.write_to_path(str(directory / name))
        return {name: str(directory / name) for name in pems}


class Proxy:
    """A proxy that forwards requests, and tunnels what asks for CONNECT."""

    def __init__(self) -> None:
        self.heads: list[str] = []
        self._server: asyncio.Server

    @property
    def targets(self) -> list[str]:
        """Method and target of each request that it got."""
        return [" ".join(head.split(" ")[:2]) for head in self.heads]

    async def listen(self) -> int:
        self._server = await asyncio.start_server(self._serve, _HOST, 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def close(self) -> None:
        self._server.close()

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        self.heads.append(head)
        method, target, _ = head.split(" ", 2)
        url = urlsplit(target if "//" in target else f"//{target}")
        there, back = await asyncio.open_connection(url.hostname, url.port)
        if method == "CONNECT":
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            # One request a connection: the next one may go elsewhere.
            head = head.replace("\r\n", "\r\nConnection: close\r\n", 1)
            back.write(head.replace(target, url.path, 1).encode("latin-1"))
        await asyncio.gather(_pump(reader, back), _pump(there, writer))


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
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


def _refusing(stack: ExitStack) -> socket.socket:
    """A port that is taken, and nobody listens."""
    bound = stack.enter_context(socket.socket())
    bound.bind((_HOST, 0))
    return bound


def _deaf(stack: ExitStack) -> socket.socket:
    """A port that answers no connection: the queue of those that wait is full."""
    deaf = _refusing(stack)
    deaf.listen(0)
    for _ in range(3):
        waiting = stack.enter_context(socket.socket())
        waiting.setblocking(False)  # noqa: FBT003 - there is no other way to say it
        waiting.connect_ex(deaf.getsockname())
    return deaf
