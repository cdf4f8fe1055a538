"""A listening socket whose connections a function serves, and a client of it."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from lls_openai.relay.upstream import Upstream
from lls_openai.settings import ProviderConfig

HEAD = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


@contextmanager
def listening(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """Serve each connection in a separate thread; yield the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        # Small, so that the writer notices a slow reader.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        thread = threading.Thread(target=_accept, args=(listener, serve), daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)


def _accept(listener: socket.socket, serve: Callable[[socket.socket], None]) -> None:
    # The test ends this by closing the listener.
    with suppress(OSError):
        while True:
            connection, _ = listener.accept()
            connection.settimeout(10)
            arguments = (connection, serve)
            threading.Thread(target=_serve, args=arguments, daemon=True).start()


def _serve(connection: socket.socket, serve: Callable[[socket.socket], None]) -> None:
    with connection, suppress(OSError):
        serve(connection)


def respond(connection: socket.socket) -> None:
    while connection.recv(65536):
        connection.sendall(RESPONSE)


def upstream_at(url: str, **network: object) -> Upstream:
    config = {"base_url": url, "network": network}
    return Upstream(ProviderConfig.model_validate(config))


async def call(upstream: Upstream, body: bytes = b"{}") -> bytes:
    response = await upstream.pool.send(HEAD % len(body), body)
    received = b""
    while data := await response.read():
        received += data
    return received
