"""The client's side: paths, keys, bodies, and HTTP as bytes on a socket."""

import json
import socket
import ssl
import struct
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import Any, Self

import h11
import httpx

from tests.support.wire import Gate, Json

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
EMBEDDINGS = "/v1/embeddings"
RESPONSES = "/v1/responses"
COMPACT = "/v1/responses/compact"
INPUT_TOKENS = "/v1/responses/input_tokens"
MESSAGES = "/v1/messages"
COUNT_TOKENS = "/v1/messages/count_tokens"
MODELS = "/v1/models"
ROUTES = (
    CHAT,
    COMPLETIONS,
    EMBEDDINGS,
    RESPONSES,
    COMPACT,
    INPUT_TOKENS,
    MESSAGES,
    COUNT_TOKENS,
)

MODEL = "openai/gpt-4o"
GEMINI_MODEL = "gemini/gemini-2.5-flash-lite"
CLAUDE_MODEL = "anthropic/claude-haiku-4-5-20251001"
HELLO = {"role": "user", "content": "hello"}
KEYS = {
    "openai": "sk-openai-mock",
    "gemini": "AIza-gemini-mock",
    "anthropic": "sk-ant-mock",
}
MEBIBYTE = 1024 * 1024


def bearer(key: str = KEYS["openai"]) -> dict[str, str]:
    """Return the header in which OpenAI's clients send the key."""
    return {"authorization": f"Bearer {key}"}


def provider_data(key: str = KEYS["openai"], **more: object) -> dict[str, str]:
    """Return the header in which Llama Stack's clients send the key."""
    data = {"passthrough_api_key": key} | more
    return {"x-llamastack-provider-data": json.dumps(data)}


def chat(model: str = MODEL, **fields: object) -> Json:
    """Return the body of a chat completion request."""
    return {"model": model, "messages": [HELLO]} | fields


def to_json(body: object) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()


def eventually[T](condition: Callable[[], T], what: str, seconds: float = 10) -> T:
    """Wait until a condition is true and return its value; `what` names it."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.005)
    return value


@dataclass(frozen=True)
class Response:
    """A complete response, its content coding not decoded."""

    status: int
    headers: httpx.Headers
    body: bytes

    def __repr__(self) -> str:
        """Show what a failing assertion has to show."""
        return f"<{self.status} {self.body[:300]!r}>"

    @property
    def json(self) -> Any:  # noqa: ANN401 - JSON has every type
        return json.loads(self.body)

    @property
    def error(self) -> Json:
        """The error in the body, in OpenAI's or Anthropic's form."""
        error: Json | None = self.json.get("error")
        assert error, self
        return error

    @property
    def status_and_code(self) -> tuple[int, str]:
        return self.status, self.error["code"]


DEFAULT_HEADERS = (
    b"Host: localhost",
    b"Content-Type: application/json",
    b"Authorization: Bearer " + KEYS["openai"].encode(),
)
HEADERS_WITHOUT_KEY = DEFAULT_HEADERS[:2]
PLAIN_TEXT_HEADERS = (b"Host: localhost", b"Content-Type: text/plain")
CHUNKED = b"Transfer-Encoding: chunked"


def request(
    method: bytes = b"POST",
    path: str = CHAT,
    *more: bytes,
    body: bytes | None = None,
    headers: tuple[bytes, ...] = DEFAULT_HEADERS,
) -> bytes:
    """Return the bytes of a request; `more` are header lines besides `headers`."""
    length = [] if body is None else [b"Content-Length: %d" % len(body)]
    start = b"%b %b HTTP/1.1" % (method, path.encode())
    lines = b"\r\n".join([start, *headers, *more, *length])
    return lines + b"\r\n\r\n" + (body or b"")


HEALTH_REQUEST = request(b"GET", "/v1/health")
CHAT_BODY = to_json(chat())
CHAT_REQUEST = request(body=CHAT_BODY)
STREAMING_REQUEST = request(body=to_json(chat(stream=True)))


class RawConnection(AbstractContextManager["RawConnection"]):
    """A connection to the server on which a test decides about every byte."""

    def __init__(
        self, port: int, *, timeout: float = 10, tls: ssl.SSLContext | None = None
    ) -> None:
        """Connect; the timeout is for each wait."""
        self._socket = socket.create_connection(("127.0.0.1", port), timeout)
        if tls:
            self._socket = tls.wrap_socket(self._socket, server_hostname="127.0.0.1")
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, *segments: bytes) -> None:
        """Send each segment by itself; a peer that has closed is no error."""
        with suppress(ConnectionError):
            for segment in segments:
                self._socket.sendall(segment)

    def reset(self) -> None:
        """Close with a TCP reset."""
        linger = struct.pack("ii", 1, 0)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._socket.close()

    def _receive(self) -> bytes:
        try:
            part = self._socket.recv(65536)
        except ConnectionError:
            part = b""
        self._received += part
        return part

    def _take(self, size: int) -> bytes:
        taken, self._received = self._received[:size], self._received[size:]
        return taken

    def read(self, size: int) -> bytes:
        """Read `size` bytes, or fewer if the peer closes."""
        while len(self._received) < size and self._receive():
            pass
        return self._take(size)

    def read_until(self, end: bytes) -> bytes:
        """Read up to and including `end`; fail if the peer closes before."""
        while end not in self._received:
            assert self._receive(), f"closed before {end!r}: {self._received[-300:]!r}"
        return self._take(self._received.find(end) + len(end))

    def read_to_end(self) -> bytes:
        """Read until the peer closes."""
        return self.read(sys.maxsize)

    def is_closed_within(self, seconds: float = 10) -> bool:
        """Return whether the peer closes in time without sending anything more."""
        timeout = self._socket.gettimeout()
        self._socket.settimeout(seconds)
        try:
            return not self._received and not self._receive()
        except TimeoutError:
            return False
        finally:
            self._socket.settimeout(timeout)

    def read_response(self) -> Response:
        """Read one response; bytes after it are kept for the next one."""
        parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 22)
        # The parser has to believe that it sent a request.
        parser.send(h11.Request(method="POST", target="/", headers=[("host", "a")]))
        parser.send(h11.EndOfMessage())
        start, body = None, bytearray()
        while not isinstance(part := self._next_event(parser), h11.EndOfMessage):
            assert not isinstance(part, h11.ConnectionClosed), "closed, no response"
            start = part if isinstance(part, h11.Response) else start
            body += part.data if isinstance(part, h11.Data) else b""
        self._received = parser.trailing_data[0]
        assert start
        headers = httpx.Headers([(bytes(n), bytes(v)) for n, v in start.headers])
        return Response(start.status_code, headers, bytes(body))

    def _next_event(self, parser: h11.Connection) -> object:
        while (event := parser.next_event()) is h11.NEED_DATA:
            if not self._received:
                self._receive()
            # Nothing received means that the peer has closed.
            parser.receive_data(self._take(len(self._received)))
        return event


def exchange(port: int, *segments: bytes) -> Response:
    """Send the segments of a request on a new connection; return the response."""
    with RawConnection(port) as connection:
        connection.send(*segments)
        return connection.read_response()


def open_response(
    client: httpx.Client,
    path: str = CHAT,
    model: str = MODEL,
    *,
    is_stream: bool = True,
) -> AbstractContextManager[httpx.Response]:
    """Call a model; the body of the response is read in the context."""
    body = chat(model, stream=is_stream)
    return client.stream("POST", path, json=body, headers=bearer())


def receive(response: httpx.Response, *gates: Gate) -> list[bytes]:
    """Return the bytes received before each gate is opened, and the rest."""
    pieces = response.iter_raw()
    received = []
    for gate in gates:
        received.append(next(pieces))
        gate.open()
    return [*received, b"".join(pieces)]


def call_model(port: int, model: str, *headers: bytes, path: str = CHAT) -> Response:
    """Call a model; `headers` hold the key, if there is one."""
    body = to_json({"model": model})
    return exchange(
        port, request(b"POST", path, *headers, body=body, headers=HEADERS_WITHOUT_KEY)
    )
