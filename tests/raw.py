"""HTTP as bytes: requests that no HTTP client would send, and what comes back."""

import socket
from collections.abc import Iterable
from contextlib import suppress
from http.client import HTTPResponse
from io import BytesIO
from typing import Self, cast, override

import httpx

from tests.calls import CHAT, KEY, Answer

HOST = b"Host: localhost"
BEARER = f"Authorization: Bearer {KEY}".encode()
POST_CHAT = f"POST {CHAT} HTTP/1.1".encode()


def request(
    start: bytes = POST_CHAT,
    *headers: bytes,
    body: bytes | None = None,
    own: Iterable[bytes] = (HOST, BEARER),
) -> bytes:
    """Write a request that asks to close the connection after its answer.

    Args:
        start: The request line.
        headers: Header lines, as they are.
        body: The body; its length is told unless it is None.
        own: Header lines before those, which a good request has.
    """
    length = [] if body is None else [b"Content-Length: %d" % len(body)]
    lines = [start, *own, *headers, *length, b"Connection: close"]
    return b"\r\n".join(lines) + b"\r\n\r\n" + (body or b"")


def chunked(*parts: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    """Write a body in HTTP chunks.

    Args:
        parts: One chunk each.
        end: What ends it: the last chunk, and trailers.
    """
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + end


def exchange(port: int, *pieces: bytes, seconds: float = 10) -> bytes:
    """Send bytes to a server, and give what comes back until it closes.

    Args:
        port: The server's.
        pieces: What to send, in pieces; the rest is not sent once it has closed.
        seconds: How long to wait for the next bytes.

    Raises:
        TimeoutError: The server neither answered nor closed in time.
    """
    address = ("127.0.0.1", port)
    received = bytearray()
    with socket.create_connection(address, timeout=seconds) as caller:
        with suppress(ConnectionError):
            for piece in pieces:
                caller.sendall(piece)
        with suppress(ConnectionError):
            while part := caller.recv(65536):
                received += part
    return bytes(received)


class _Received(BytesIO):
    """What came, in the place of a socket and of its file, which stays open."""

    def makefile(self, _mode: str) -> Self:
        return self

    @override
    def close(self) -> None:
        """Leave the next answer to be read."""


def answers(received: bytes) -> list[Answer]:
    """Read the answers that follow each other on a connection.

    Args:
        received: All that came; the last answer may end with the connection.
    """
    stream = _Received(received)
    found = []
    while stream.tell() < len(received):
        response = HTTPResponse(cast("socket.socket", stream))
        response.begin()
        body = response.read()
        headers = httpx.Headers(response.getheaders())
        found.append(Answer(response.status, headers, body))
    return found


def ask(port: int, *pieces: bytes, seconds: float = 10) -> Answer:
    """Send a request and read the one answer to it; the arguments are `exchange`'s."""
    (answer,) = answers(exchange(port, *pieces, seconds=seconds))
    return answer
