"""What can stand on the way to an upstream: a port with TLS, or a proxy."""

import asyncio
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

_HOST = "127.0.0.1"


class TlsFront:
    """A loopback port that takes TLS off and passes everything on to another port.

    Attributes:
        port: The port it listens on.
    """

    def __init__(self, target: int, context: ssl.SSLContext) -> None:
        """Make a front that does not listen yet.

        Args:
            target: The port to pass everything on to.
            context: The certificate it shows, and whom it lets in.
        """
        self.port = 0
        self._target = target
        self._context = context

    async def start(self) -> asyncio.Server:
        """Listen, in the running loop."""
        server = await asyncio.start_server(self._pass, _HOST, 0, ssl=self._context)
        self.port = _port(server)
        return server

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await _join(reader, writer, *await asyncio.open_connection(_HOST, self._target))


class Proxy:
    """A loopback proxy: it forwards requests, and tunnels what asks for CONNECT.

    Attributes:
        port: The port it listens on.
        heads: The heads of the requests that it got, as text.
    """

    def __init__(self) -> None:
        """Make a proxy that does not listen yet."""
        self.port = 0
        self.heads: list[str] = []

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://{_HOST}:{self.port}"

    @property
    def asked_for(self) -> list[str]:
        """Method and target of each request that it got."""
        return [" ".join(head.split(" ")[:2]) for head in self.heads]

    async def start(self) -> asyncio.Server:
        """Listen, in the running loop."""
        server = await asyncio.start_server(self._serve, _HOST, 0)
        self.port = _port(server)
        return server

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        self.heads.append(head)
        method, target, rest = head.split(" ", 2)
        is_tunnel = method == "CONNECT"
        url = urlsplit(f"//{target}" if is_tunnel else target)
        there, back = await asyncio.open_connection(url.hostname, url.port)
        if is_tunnel:
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            # One request a connection: the next one may go elsewhere.
            first, lines = rest.split("\r\n", 1)
            head = f"{method} {url.path} {first}\r\nConnection: close\r\n{lines}"
            back.write(head.encode("latin-1"))
        await _join(reader, writer, there, back)


@contextmanager
def listening(*listeners: TlsFront | Proxy) -> Iterator[None]:
    """Let them listen, in a thread, while the context lasts."""
    with asyncio.Runner() as runner:
        servers = [runner.run(listener.start()) for listener in listeners]
        loop = runner.get_loop()
        thread = threading.Thread(target=loop.run_forever, name="way", daemon=True)
        thread.start()
        try:
            yield
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            for server in servers:
                server.close()


async def _join(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    there: asyncio.StreamReader,
    back: asyncio.StreamWriter,
) -> None:
    await asyncio.gather(_pump(reader, back), _pump(there, writer))


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Pass bytes on until the source ends, and end the sink with it."""
    with suppress(OSError):
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
    sink.close()


def _port(server: asyncio.Server) -> int:
    port: int = server.sockets[0].getsockname()[1]
    return port
