"""The caller's side: paths, keys, bodies, events, and HTTP as bytes on a socket."""

import json
import socket
import ssl
import struct
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import Any

import h11
import httpx

from tests.support.vendors import KEYS
from tests.support.wire import Json

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
EMBEDDINGS = "/v1/embeddings"
RESPONSES = "/v1/responses"
MESSAGES = "/v1/messages"
COUNT_TOKENS = "/v1/messages/count_tokens"
MODELS = "/v1/models"
ROUTES = (CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES, MESSAGES, COUNT_TOKENS)

MODEL = "openai/gpt-4o"
GEMINI = "gemini/gemini-2.5-flash-lite"
CLAUDE = "anthropic/claude-haiku-4-5-20251001"
HELLO = {"role": "user", "content": "hello"}


def bearer(key: str = KEYS["openai"]) -> dict[str, str]:
    """The key as OpenAI's clients send it."""
    return {"authorization": f"Bearer {key}"}


def provider_data(key: str = KEYS["openai"], **more: object) -> dict[str, str]:
    """The key as Llama Stack's clients send it."""
    data = {"passthrough_api_key": key} | more
    return {"x-llamastack-provider-data": json.dumps(data)}


def chat(model: str = MODEL, **fields: object) -> Json:
    return {"model": model, "messages": [HELLO]} | fields


def encoded(body: object) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()


def eventually[T](condition: Callable[[], T], seconds: float = 10) -> T:
    """Wait until something is true, and give it."""
    deadline = time.monotonic() + seconds
    while not (came := condition()):
        assert time.monotonic() < deadline, f"it has not come about in {seconds} s"
        time.sleep(0.005)
    return came


@dataclass(frozen=True)
class Answer:
    """A whole answer, its content coding still on the body."""

    status: int
    headers: httpx.Headers
    body: bytes

    @property
    def json(self) -> Any:  # noqa: ANN401 - JSON has every type
        return json.loads(self.body)

    @property
    def error_code(self) -> tuple[int, str]:
        return self.status, self.json["error"]["code"]


OWN = (
    b"Host: localhost",
    b"Content-Type: application/json",
    b"Authorization: Bearer " + KEYS["openai"].encode(),
)


def request(
    method: bytes = b"POST",
    path: str = CHAT,
    *lines: bytes,
    body: bytes | None = None,
    own: tuple[bytes, ...] = OWN,
) -> bytes:
    """The bytes of a request with Host, type, a bearer and the length of its body.

    `lines` are further header lines; `own` replaces Host, the type and the bearer.
    """
    length = [] if body is None else [b"Content-Length: %d" % len(body)]
    start = b"%b %b HTTP/1.1" % (method, path.encode())
    head = b"\r\n".join([start, *own, *lines, *length])
    return head + b"\r\n\r\n" + (body or b"")


HEALTH = request(b"GET", "/v1/health")
BODY = encoded(chat())
CALL = request(body=BODY)
STREAM = request(body=encoded(chat(stream=True)))
NO_JSON = (b"Host: localhost", b"Content-Type: text/plain")
MEBIBYTE = 1024 * 1024


class Raw(AbstractContextManager["Raw"]):
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

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, *segments: bytes) -> None:
        """Send each of these at once; a peer that has closed is no error."""
        with suppress(ConnectionError):
            for segment in segments:
                self._socket.sendall(segment)

    def reset(self) -> None:
        """Leave with a TCP reset."""
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
        """Exactly so many bytes; fewer only when the peer closes."""
        while len(self._received) < size and self._receive():
            pass
        return self._take(size)

    def read_until(self, end: bytes) -> bytes:
        """What comes up to these bytes, with them."""
        while end not in self._received and self._receive():
            pass
        return self._take(self._received.find(end) + len(end))

    def rest(self) -> bytes:
        """What comes until the peer closes."""
        return self.read(sys.maxsize)

    def closed(self, seconds: float = 10) -> bool:
        """Whether the peer closes in time without a further byte."""
        self._socket.settimeout(seconds)
        try:
            return not self._received and not self._receive()
        except TimeoutError:
            return False

    def answer(self) -> Answer:
        """Read one answer; what comes after it stays for the next one."""
        parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 22)
        # What has been sent is none of the parser's business.
        parser.send(h11.Request(method="POST", target="/", headers=[("host", "a")]))
        parser.send(h11.EndOfMessage())
        head, body = None, bytearray()
        while not isinstance(part := self._event(parser), h11.EndOfMessage):
            head = part if isinstance(part, h11.Response) else head
            body += part.data if isinstance(part, h11.Data) else b""
        self._received = parser.trailing_data[0]
        assert head
        headers = httpx.Headers([(bytes(n), bytes(v)) for n, v in head.headers])
        return Answer(head.status_code, headers, bytes(body))

    def _event(self, parser: h11.Connection) -> object:
        while (event := parser.next_event()) is h11.NEED_DATA:
            if not self._received:
                self._receive()
            # Nothing received means that the peer has closed.
            parser.receive_data(self._take(len(self._received)))
        return event


def ask(port: int, *segments: bytes) -> Answer:
    """Send the segments of a request, read the one answer, and close."""
    with Raw(port) as raw:
        raw.send(*segments)
        return raw.answer()
