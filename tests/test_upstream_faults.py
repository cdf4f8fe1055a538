"""An upstream that breaks HTTP, drips, or never ends, is an error in bounded time."""

import asyncio
from collections.abc import Callable, Iterator

import httpx
import pytest

from tests.calls import CHAT, call, chat
from tests.inside import Watched
from tests.marks import complaints
from tests.process import forget_peak, peak, resident
from tests.raw import ask, request
from tests.scripts import EVENTS, JSON
from tests.server import Server
from tests.upstream import Connection, Gate, Handler, Request, Upstream

pytest_plugins = ["tests.watched"]

MEBIBYTE = 1024 * 1024
OK = b"HTTP/1.1 200 OK\r\n"
EMPTY = b"Content-Length: 0\r\n\r\n"
# A provider that waits for half a second, for a connection and for the next byte.
BRIEF = "brief/m-1"


@pytest.fixture
def quiet(talkative: Watched) -> Iterator[Server]:
    """The server that logs all it can, and tells of no traceback meanwhile."""
    before = len(talkative.server.log)
    yield talkative.server
    assert complaints(talkative.server.log[before:]) == []


def _writing(*parts: bytes, ends: bool = True) -> Handler:
    async def script(_request: Request, connection: Connection) -> None:
        for part in parts:
            await connection.write(part)
        if ends:
            connection.close()
        else:
            await Gate().wait()

    return script


def _dripping(head: bytes, part: bytes, pause: float) -> Handler:
    """Writes one part after the other, for as long as the server listens."""

    async def script(_request: Request, connection: Connection) -> None:
        await connection.write(head)
        while True:
            await connection.write(part)
            await asyncio.sleep(pause)

    return script


# What no caller could be given: a status that is none, or one that promises another
# answer, or another protocol.
@pytest.mark.parametrize(
    "status", [b"000", b"099", b"101", b"199", b"600", b"999", b"1", b"2000", b"-20"]
)
@pytest.mark.parametrize("rest", [EMPTY, b"Upgrade: x\r\nConnection: upgrade\r\n\r\n"])
def test_a_status_that_cannot_be_is_no_answer(
    quiet: Server, upstream: Upstream, status: bytes, rest: bytes
) -> None:
    """502, as for anything else that is no HTTP."""
    upstream.openai.answer_with(_writing(b"HTTP/1.1 %b What\r\n%b" % (status, rest)))

    answer = ask(quiet.port, request(body=chat()))

    assert answer.error_code == (502, "upstream_unreachable")


@pytest.mark.parametrize("value", [b"a\x01b", b"a\x7fb", b"a\x0bb", b"\x1b[31m"])
@pytest.mark.parametrize("name", [b"x-request-id", b"content-type", b"retry-after"])
def test_a_header_that_cannot_be_is_left_out(
    quiet: Server, upstream: Upstream, name: bytes, value: bytes
) -> None:
    """The answer is relayed without it."""
    line = b"%b: %b\r\n" % (name, value)
    upstream.openai.answer_with(
        _writing(OK, line, b"openai-version: 1\r\nContent-Length: 2\r\n\r\n{}")
    )

    answer = ask(quiet.port, request(body=chat()))

    assert (
        answer.status,
        answer.body,
        answer.headers["openai-version"],
        answer.headers.get(name.decode()),
    ) == (200, b"{}", "1", None)


INTERIM = b"HTTP/1.1 103 Early Hints\r\nLink: </>\r\n\r\n"
NEVER_A_HEAD: dict[str, Handler] = {
    "nothing after an interim answer": _writing(INTERIM, ends=False),
    "interim answers without an end": _dripping(INTERIM, INTERIM, 0.05),
    "a head that drips": _dripping(OK, b"x-a: b\r\n", 0.05),
    "a header that drips": _dripping(OK + b"x-a: ", b"b", 0.05),
    "a status that drips": _dripping(b"HTTP/1.1 200 ", b"O", 0.05),
}


@pytest.mark.parametrize("script", NEVER_A_HEAD.values(), ids=NEVER_A_HEAD)
def test_a_head_that_never_ends_is_a_timeout(
    quiet: Server, upstream: Upstream, script: Handler
) -> None:
    """504, once connecting and the first byte could each have taken their time."""
    upstream.openai.answer_with(script)

    answer = ask(quiet.port, request(body=chat(BRIEF)))

    (arrived,) = upstream.openai.calls
    upstream.openai.wait_until(lambda: arrived.peer_closed_at is not None)
    assert answer.error_code == (504, "upstream_timeout")


@pytest.fixture
def growth(quiet: Server, http: httpx.Client) -> Callable[[], int]:
    """Says by how many bytes the server has grown at most since the test began."""
    assert call(http, quiet.url, chat()).status == 200
    before = resident(quiet.pid)
    forget_peak(quiet.pid)
    return lambda: peak(quiet.pid) - before


ENDLESS_HEADS: dict[str, Handler] = {
    "headers": _dripping(OK, b"x-a: b\r\n" * 8000, 0),
    "a header": _dripping(OK + b"x-a: ", b"b" * 65_536, 0),
    "a reason": _dripping(b"HTTP/1.1 200 ", b"O" * 65_536, 0),
}


@pytest.mark.parametrize("script", ENDLESS_HEADS.values(), ids=ENDLESS_HEADS)
def test_a_head_of_any_size_is_not_held(
    quiet: Server, upstream: Upstream, growth: Callable[[], int], script: Handler
) -> None:
    """502 as soon as it is too large; the connection is closed."""
    upstream.reset()
    upstream.openai.answer_with(script)

    answer = ask(quiet.port, request(body=chat()))

    assert answer.error_code == (502, "upstream_unreachable")
    assert growth() < 4 * MEBIBYTE


@pytest.mark.parametrize("headers", [EVENTS, JSON], ids=["an event", "a body"])
@pytest.mark.parametrize("part", [b"x" * MEBIBYTE, b"data: x\n" * 131_072])
def test_an_answer_of_any_size_is_not_held(
    quiet: Server,
    upstream: Upstream,
    growth: Callable[[], int],
    headers: dict[str, str],
    part: bytes,
) -> None:
    """100 MB in one line, or in lines without the blank one, pass and leave nothing."""

    async def script(_request: Request, connection: Connection) -> None:
        await connection.head(200, headers)
        for _ in range(100):
            await connection.chunk(part)
        await connection.end()

    upstream.reset()
    upstream.openai.answer_with(script)

    answer = ask(quiet.port, request(body=chat(stream=True)))

    assert (200, 100 * len(part)) == (answer.status, len(answer.body))
    assert growth() < 16 * MEBIBYTE


@pytest.mark.parametrize(
    "left_over",
    [OK + b"Content-Length: 8\r\n\r\nnot this", b"garbage\r\n\r\n", b"\r\n", b"0"],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_left_over_is_nobodys_answer(
    quiet: Server,
    upstream: Upstream,
    http: httpx.Client,
    left_over: bytes,
    *,
    stream: bool,
) -> None:
    """A wrong Content-Length leaves bytes on the connection, right away or later."""
    kind = b"text/event-stream" if stream else b"application/json"
    whole = OK + b"Content-Type: %b\r\nContent-Length: 2\r\n\r\n{}" % kind
    gate = Gate()

    async def script(_request: Request, connection: Connection) -> None:
        await connection.write(whole)
        await gate.wait()
        await connection.write(left_over)

    upstream.openai.answer_with(script, times=1)
    first = call(http, quiet.url, chat(stream=stream))
    gate.open()
    (arrived,) = upstream.openai.calls
    upstream.openai.wait_until(lambda: arrived.answered_at is not None)
    others = [call(http, quiet.url, chat(user=str(n))) for n in range(5)]

    assert first.body == b"{}"
    assert {200} == {answer.status for answer in others}
    assert all(b"heard: hello" in answer.body for answer in others)


@pytest.mark.parametrize("route", [CHAT, "/v1/completions", "/v1/embeddings"])
def test_a_fault_is_the_same_on_every_route(
    quiet: Server, upstream: Upstream, http: httpx.Client, route: str
) -> None:
    """502 for an answer cut off, and the next call is whole."""
    upstream.openai.answer_with(_writing(OK + b"Content-Length: 9\r\n\r\n{"), times=1)

    answer = call(http, quiet.url, chat("openai/m-1"), route=route)

    assert answer.error_code == (502, "upstream_unreachable")
    assert call(http, quiet.url, chat()).status == 200
