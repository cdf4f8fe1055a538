"""What one caller or one vendor does costs no other caller its answer."""

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import httpx
import pytest

from tests.calls import call, chat, open_call
from tests.polling import poll
from tests.process import forget_peak, peak, resident
from tests.raw import HOST, POST_CHAT, ask, request
from tests.scripts import DONE, EVENTS, streaming
from tests.server import Server
from tests.upstream import Connection, Gate, Request, Upstream

HANGING = 100
STORM = 200
MEBIBYTE = 1024 * 1024
FIRST = b"data: 1\n\n"
# Asks for more than one answer on a connection.
LASTING = request(body=chat(stream=True)).replace(b"Connection: close\r\n", b"")


async def _hangs(_request: Request, _connection: Connection) -> None:
    await Gate().wait()


@contextmanager
def _hanging_calls(server: Server, count: int) -> Iterator[None]:
    """Calls of a vendor that never answers."""
    with ExitStack() as callers:
        for _ in range(count):
            address = ("127.0.0.1", server.port)
            caller = callers.enter_context(socket.create_connection(address))
            caller.sendall(request(body=chat()))
        yield


def test_a_dead_vendor_and_wrong_keys_stop_nobody(
    server: Server, upstream: Upstream, http: httpx.Client
) -> None:
    """With 100 calls hanging and a storm of 401s, the others get their answers.

    How long they take then, `make soak` shows.
    """
    upstream.openai.answer_with(_hangs)
    own = (HOST, b"Authorization: Bearer wrong")
    wrong = request(body=chat("anthropic/claude-haiku-4-5"), own=own)

    def storm(_number: int) -> int:
        return ask(server.port, wrong).status

    with _hanging_calls(server, HANGING), ThreadPoolExecutor(8) as callers:
        upstream.openai.wait_until(lambda: len(upstream.openai.calls) == HANGING)
        refused = callers.map(storm, range(STORM))
        others = [
            call(http, server.url, chat("gemini/gemini-2.5-flash-lite", stream=stream))
            for stream in (False, True) * 20
        ]
        assert list(refused) == [401] * STORM

    assert [answer.status for answer in others] == [200] * 40
    assert all(DONE in answer.body for answer in others[1::2])


def test_everybody_who_leaves_frees_its_connection(
    server: Server, upstream: Upstream
) -> None:
    """A hundred calls that hang are a hundred connections, and then none."""
    upstream.openai.drop_connections()
    upstream.openai.answer_with(_hangs)

    with _hanging_calls(server, HANGING):
        upstream.openai.wait_until(lambda: len(upstream.openai.calls) == HANGING)
        during = upstream.openai.open_connections

    assert (
        during,
        poll(lambda: upstream.openai.open_connections == 0, seconds=2),
    ) == (HANGING, True)


@pytest.mark.parametrize("ahead", [b"", LASTING, LASTING * 20, b"GET / HTTP/1.1\r\n"])
@pytest.mark.parametrize("later", [False, True])
def test_who_leaves_is_noticed_behind_what_it_sent_ahead(
    server: Server, upstream: Upstream, http: httpx.Client, ahead: bytes, *, later: bool
) -> None:
    """The next request, or a part of it, may have come by then; nothing calls it."""
    upstream.openai.answer_with(streaming(FIRST, Gate()))
    address = ("127.0.0.1", server.port)
    with socket.create_connection(address, timeout=10) as caller:
        caller.sendall(LASTING if later else LASTING + ahead)
        upstream.openai.wait_until(lambda: bool(upstream.openai.calls))
        if later:
            caller.sendall(ahead)
            # There is one event loop: with this answered, that has been read.
            assert http.get(f"{server.url}/v1/health").status_code == 200

    (arrived,) = upstream.openai.calls
    upstream.openai.wait_until(lambda: arrived.peer_closed_at is not None, deadline=2)
    assert arrived.answered_at is None


class _Flood:
    """A vendor that sends without end; says how much of it was taken.

    Attributes:
        sent: How many bytes the server has taken so far, or its kernel.
    """

    def __init__(self) -> None:
        self.sent = 0

    async def __call__(self, _request: Request, connection: Connection) -> None:
        """Send events until the server leaves."""
        event = b"data: " + b"x" * 65_000 + b"\n\n"
        await connection.head(200, EVENTS)
        while True:
            await connection.chunk(event)
            self.sent += len(event)


def test_a_caller_that_does_not_read_holds_a_bounded_buffer(
    server: Server, upstream: Upstream, http: httpx.Client
) -> None:
    """Its vendor is made to wait, and nothing piles up; others go on meanwhile."""
    before = resident(server.pid)
    forget_peak(server.pid)
    flood = _Flood()
    upstream.openai.answer_with(flood)
    address = ("127.0.0.1", server.port)

    with socket.create_connection(address, timeout=10) as caller:
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        caller.sendall(request(body=chat(stream=True)))
        taken = _until_steady(flood)
        other = call(http, server.url, chat("anthropic/claude-haiku-4-5"))

    assert other.status == 200
    # Most of it in the kernel's buffers of the connections on both sides.
    assert 65_000 < taken < 32 * MEBIBYTE
    assert peak(server.pid) - before < 4 * MEBIBYTE


def _until_steady(flood: _Flood) -> int:
    """Wait until no more is taken, and say how much was."""
    seen = -1

    def is_steady() -> bool:
        nonlocal seen
        last, seen = seen, flood.sent
        # Long enough for a byte to move, if one can.
        time.sleep(0.3)
        return last == flood.sent > 0

    assert poll(is_steady)
    return flood.sent


def test_a_caller_that_reads_slowly_gets_everything(
    server: Server, upstream: Upstream, http: httpx.Client
) -> None:
    """Waiting loses nothing, and the order stays."""
    events = [b"data: %d%b\n\n" % (n, b"x" * 50_000) for n in range(200)]
    upstream.openai.answer_with(streaming(*events, DONE))

    seen = b""
    with open_call(http, server.url, chat(stream=True)) as stream:
        while part := stream.read(2_000_000):
            seen += part
            # It reads slowly: that is what is tested.
            time.sleep(0.02)

    assert b"".join(events) + DONE == seen


def test_a_caller_that_sends_slowly_holds_nobody_up(
    server: Server, upstream: Upstream, http: httpx.Client
) -> None:
    """Fifty that have sent half of a request, at every place of it."""
    whole = request(POST_CHAT, body=chat(user="slow"))
    with ExitStack() as callers:
        for place in range(1, len(whole), max(1, len(whole) // 50)):
            address = ("127.0.0.1", server.port)
            caller = callers.enter_context(socket.create_connection(address))
            caller.sendall(whole[:place])
        answer = call(http, server.url, chat(user="fast"))

    assert answer.status == 200
    assert [each.json["user"] for each in upstream.openai.calls] == ["fast"]
