"""Heads of requests made to cost much, or never to end: they end, and others go on."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import repeat

import httpx
import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from lls_openai import connection
from lls_openai.errors import send_json
from tests.calls import CHAT, call, chat
from tests.polling import poll
from tests.process import forget_peak, peak, resident
from tests.raw import POST_CHAT, answers, chunked, exchange, request
from tests.server import Server
from tests.upstream import Upstream

MEBIBYTE = 1024 * 1024
BEGUN = POST_CHAT + b"\r\nHost: localhost\r\n"
BODY = chunked(chat())
TRAILING = request(POST_CHAT, b"Transfer-Encoding: chunked") + BODY[: -len(b"\r\n")]
LARGE = b"a" * 100_000

# What begins a head, and what then comes again and again: 100 MB of it.
ENDLESS_HEADS = {
    "a header": (BEGUN + b"X-A: ", LARGE),
    "a header's name": (BEGUN, LARGE),
    "headers": (BEGUN, b"X-A: a\r\n" * 12_500),
    "empty headers": (BEGUN, b"a:\r\n" * 25_000),
    "a key": (BEGUN + b"Authorization: Bearer ", LARGE),
    "a target": (b"POST /", LARGE),
    "a method": (b"", b"GET" * 33_333),
    "line breaks": (b"", b"\r\n" * 50_000),
}
ENDLESS_TAILS = {
    "a trailer": (TRAILING + b"X-A: ", LARGE),
    "trailers": (TRAILING, b"X-A: a\r\n" * 12_500),
    "a chunk's extension": (TRAILING[: -len(b"0\r\n")] + b"1;", LARGE),
    "a chunk's size": (TRAILING, b"0" * 100_000),
}


@pytest.fixture
def growth(server: Server, http: httpx.Client) -> Callable[[], int]:
    """Says by how many bytes the server has grown at most since the test began."""
    assert call(http, server.url, chat()).status == 200
    before = resident(server.pid)
    forget_peak(server.pid)
    return lambda: peak(server.pid) - before


@pytest.mark.parametrize(("begin", "more"), ENDLESS_HEADS.values(), ids=ENDLESS_HEADS)
def test_a_head_without_an_end_is_refused(
    server: Server, growth: Callable[[], int], begin: bytes, more: bytes
) -> None:
    """The connection is closed long before the 100 MB are there.

    To uvicorn's parser alone, one such caller was a server that answered nobody for a
    minute.
    """
    found = answers(exchange(server.port, begin, *repeat(more, 1000)))

    assert {400, 431} >= {answer.status for answer in found}
    assert growth() < 8 * MEBIBYTE


def test_a_head_that_is_too_large_is_told_so(server: Server) -> None:
    """431, in OpenAI's form, if the caller waits for an answer."""
    (answer,) = answers(exchange(server.port, BEGUN + b"X-A: " + LARGE))

    expected = {
        "message": "The request's headers are over the limit of 65,536 bytes",
        "type": "invalid_request_error",
        "param": None,
        "code": "request_too_large",
    }
    assert (431, expected) == (answer.status, answer.error)


@pytest.mark.parametrize(("begin", "more"), ENDLESS_TAILS.values(), ids=ENDLESS_TAILS)
def test_what_comes_after_a_head_is_bounded_too(
    server: Server, growth: Callable[[], int], begin: bytes, more: bytes
) -> None:
    """The connection is closed: by then an answer may be under way on it."""
    sent = [begin, *repeat(more, 1000)]

    found = answers(exchange(server.port, *sent))

    assert {200, 400} >= {answer.status for answer in found}
    assert growth() < 8 * MEBIBYTE


def test_a_head_below_the_limit_is_taken(server: Server, upstream: Upstream) -> None:
    """60 KB of headers are unusual, and allowed."""
    (answer,) = answers(
        exchange(server.port, request(POST_CHAT, b"X-A: " + b"a" * 60_000, body=chat()))
    )

    assert (answer.status, len(upstream.openai.calls)) == (200, 1)


def test_requests_without_a_pause_are_bounded(
    server: Server, growth: Callable[[], int]
) -> None:
    """A hundred thousand, without an answer awaited: some are answered, no more."""
    small = b"GET /v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n"

    found = answers(exchange(server.port, *repeat(small * 1000, 100)))

    assert {200, 400} >= {answer.status for answer in found}
    assert len(found) < 1000
    assert growth() < 16 * MEBIBYTE


async def _app(_scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send_json(send, 200, [], b"{}")


@contextmanager
def _impatient_server() -> Iterator[int]:
    """A server of uvicorn's with this project's connections; gives its port."""
    config = uvicorn.Config(_app, lifespan="off", log_config=None, log_level="critical")
    config.load()
    connection.accept_with_bounds(config)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        assert poll(lambda: server.started)
        yield listening.getsockname()[1]
        server.should_exit = True
        thread.join()


@pytest.mark.parametrize(
    "begun",
    [b"", b"POST", BEGUN, BEGUN + b"Content-Length: 10\r\n\r\n"],
    ids=["nothing", "half a line", "half a head", "a head without its body"],
)
def test_a_head_that_does_not_come_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    """The connection is closed after `HEAD_SECONDS`, however slowly bytes drip."""
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.3)

    def drip(caller: socket.socket) -> bool:
        """Send another byte if that is one of a head; say whether it is closed."""
        with suppress(TimeoutError):
            if begun == BEGUN:
                caller.sendall(b"a")
            return caller.recv(1) == b""
        return False

    with (
        _impatient_server() as port,
        socket.create_connection(("127.0.0.1", port), timeout=0.05) as caller,
    ):
        caller.sendall(begun)
        assert poll(lambda: drip(caller))


def test_a_connection_in_use_outlasts_that(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is each head's own time."""
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.3)
    with (
        _impatient_server() as port,
        httpx.Client(trust_env=False, base_url=f"http://127.0.0.1:{port}") as http,
    ):
        seen = []
        deadline = time.monotonic() + 0.8
        while time.monotonic() < deadline:
            stream = http.post(CHAT, content=b"{}").extensions["network_stream"]
            seen.append(stream.get_extra_info("client_addr"))

    assert len(seen) > 3
    assert len(set(seen)) == 1
