"""One connection of a caller: what is a request on it, and when it ends."""

import socket
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from itertools import repeat

import pytest

from tests.support.http import (
    CHAT,
    MODELS,
    Raw,
    ask,
    chat,
    encoded,
    eventually,
    request,
)
from tests.support.server import Server
from tests.support.upstream import Upstream
from tests.support.wire import DONE, JSON, Gate, chunk, event, head, stream

SECONDS = 1.0
PROVIDERS = ("openai", "openai-mini", "gemini", "anthropic")
IMPATIENT = pytest.mark.server(
    {},
    # The largest of the providers' counts.
    providers={name: {"caller_timeout": SECONDS} for name in PROVIDERS},
    env={"FORWARDED_ALLOW_IPS": "127.0.0.1"},
)
BODY = encoded(chat())
STREAM = request(body=encoded(chat(stream=True)))
NEXT = request(body=encoded(chat(user="next")))
HEALTH = request(b"GET", "/v1/health")
CHUNKED = b"Transfer-Encoding: chunked"
NO_KEY = (b"Host: localhost", b"Content-Type: application/json")
FIRST = event({"n": 1})
MEBIBYTE = 1024 * 1024


def post(*lines: bytes, body: bytes = BODY) -> bytes:
    """A call with a body and these header lines."""
    return request(b"POST", CHAT, *lines, body=body)


def posted(*lines: bytes) -> bytes:
    """A call whose lines alone say how long its body is."""
    return request(b"POST", CHAT, *lines) + BODY


def growth(server: Server) -> Callable[[], int]:
    """Give what says by how much the server has grown at most since now."""
    server.forget_peak()
    before = server.memory()
    return lambda: server.memory("VmHWM") - before


OFFERS = {
    "h2c": (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c"),
    "websocket": (b"Connection: Upgrade", b"Upgrade: websocket"),
    "unknown": (b"Upgrade: x/1, y", b"Connection: keep-alive, upgrade"),
}
SEGMENTED: dict[str, Callable[[bytes, int], list[bytes]]] = {
    "at once": lambda sent, _: [sent],
    "body later": lambda sent, at: [sent[:at], sent[at:]],
    "byte by byte": lambda sent, _: [sent[n : n + 1] for n in range(len(sent))],
}


@pytest.mark.parametrize("segmented", SEGMENTED.values(), ids=SEGMENTED)
@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
def test_an_offered_upgrade_is_declined(
    server: Server,
    upstream: Upstream,
    offer: tuple[bytes, ...],
    segmented: Callable[[bytes, int], list[bytes]],
) -> None:
    """The body is read as HTTP/1.1, and no request in it is run (RFC 9110, 7.8)."""
    hidden = b"\r\n" * 5 + request(body=encoded(chat("openai/hidden")))
    chunks = request(b"POST", CHAT, *offer, CHUNKED)
    with Raw(server.port) as raw:
        for sent, status in (
            (post(*offer), 200),
            (post(*offer, body=hidden), 400),
            (chunks + chunk(hidden) + b"0\r\nX-A: b\r\n\r\n", 400),
            (chunks + chunk(BODY) + b"0\r\n\r\n", 200),
            (request(b"GET", MODELS, *offer), 200),
        ):
            for segment in segmented(sent, sent.index(b"\r\n\r\n") + 4):
                raw.send(segment)
                time.sleep(0.05 if segmented is SEGMENTED["body later"] else 0)
            assert raw.answer().status == status
        raw.send(NEXT)
        assert raw.answer().status == 200

    users = [each.json.get("user") for each in upstream.openai.requests]
    assert users == [None, None, "next"]


# What two readers of HTTP might read differently (RFC 9112, sections 5 and 6.3).
DOUBTFUL = {
    "length and chunks": posted(CHUNKED, b"Content-Length: 4"),
    "two lengths": posted(b"Content-Length: 4", b"Content-Length: 5"),
    "a length with a sign": posted(b"Content-Length: +4"),
    "a length beyond 64 bits": posted(b"Content-Length: " + b"9" * 30),
    "a space before the colon": posted(b"Content-Length : 4"),
    "another coding": posted(b"Transfer-Encoding: gzip"),
    "a chunk's size that is none": posted(CHUNKED),
    "a lone line feed": post(b"OpenAI-Beta: a\nX-B: 1"),
    "a folded line": post(b"OpenAI-Beta: a\r\n X-B: 1"),
    "a NUL": post(b"OpenAI-Beta: a\0"),
    "no HTTP": b"\x00\x01\x02 garbage\r\n\r\n",
    "a tunnel": b"CONNECT elsewhere:80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
}


@pytest.mark.parametrize("sent", DOUBTFUL.values(), ids=DOUBTFUL)
def test_what_is_no_clear_request_is_refused(
    server: Server, upstream: Upstream, sent: bytes
) -> None:
    """In the contract's form; nothing behind it on the connection is run."""
    with Raw(server.port) as raw:
        raw.send(sent, NEXT)
        assert raw.answer().error_code == (400, "invalid_http_request")
        assert raw.rest() == b""

    assert upstream.openai.requests == []


def test_a_head_without_an_end_is_refused(server: Server) -> None:
    """Nor does it hold up others; who sends it all before it looks reads the 431."""
    grown = growth(server)
    with socket.create_connection(("127.0.0.1", server.port), 10) as caller:
        caller.sendall(b"GET / HTTP/1.1\r\nX-A: ")
        for part in repeat(b"a" * 100_000, 1000):
            caller.sendall(part)
        answer = caller.recv(65536)
    large = request(b"GET", MODELS, b"X-A: " + b"a" * 60_000)

    assert answer.startswith(b"HTTP/1.1 431 ")
    assert b'"code":"request_too_large"' in answer
    assert ask(server.port, large).status == 200
    assert grown() < 8 * MEBIBYTE


def test_pipelined_requests_are_answered_in_order(
    server: Server, upstream: Upstream
) -> None:
    """Each with the key that it came with; an unread body runs into none of them."""
    keys = [f"sk-openai-mock-{number}" for number in range(8)]
    calls = [
        request(
            body=encoded(chat(user=key)), own=(*NO_KEY, b"X-Api-Key: " + key.encode())
        )
        for key in keys
    ]
    with Raw(server.port) as raw:
        raw.send(request(body=NEXT * 2000, own=NO_KEY) + b"".join(calls))
        assert [raw.answer().status for _ in range(9)] == [401, *[200] * 8]

    arrived = [(each.key, each.json["user"]) for each in upstream.openai.requests]
    assert arrived == [(key, key) for key in keys]


def test_more_pipelined_requests_than_the_bound_end_the_connection(
    server: Server,
) -> None:
    """A hundred thousand without waiting for an answer would pile up in memory."""
    grown = growth(server)
    with Raw(server.port) as raw:
        raw.send(*repeat(HEALTH * 1000, 100))
        answered = raw.rest().count(b"HTTP/1.1 200 OK")

    assert answered < 1000
    assert grown() < 16 * MEBIBYTE


@pytest.mark.parametrize("more", [b"\x00garbage\r\n\r\n", b"X" * 200_000], ids=len)
def test_nothing_is_written_into_a_running_answer(
    server: Server, upstream: Upstream, more: bytes
) -> None:
    """It ends whole, and then the connection."""
    gate = Gate()
    upstream.openai.script(*stream(FIRST, gate, DONE))
    with Raw(server.port) as raw:
        raw.send(STREAM)
        raw.read_until(FIRST)
        raw.send(more)
        # It has been read when another caller has been answered.
        assert ask(server.port, HEALTH).status == 200
        gate.open()
        assert raw.rest() == b"\r\n" + chunk(DONE) + b"0\r\n\r\n"


@pytest.mark.parametrize(
    "refused", [request(b"POST", CHAT, CHUNKED, own=NO_KEY), b"\x00"], ids=len
)
def test_what_is_refused_is_not_read_for_ever(server: Server, refused: bytes) -> None:
    """After half a gigabyte the connection ends, of which nothing was held."""
    grown, sent = growth(server), 0
    address = ("127.0.0.1", server.port)
    with socket.create_connection(address, 10) as caller, suppress(ConnectionError):
        caller.sendall(refused)
        while sent < 1000:
            caller.sendall(chunk(b"x" * MEBIBYTE))
            sent += 1

    assert 400 < sent < 900
    assert grown() < 32 * MEBIBYTE


WAITING = {
    "nothing": b"",
    "half a head": NEXT[:40],
    "a head without its body": post()[: -len(BODY)],
    "half a body": NEXT[:-3],
    "half a chunk": request(b"POST", CHAT, CHUNKED) + b"100\r\n{",
    "an upgrade without its body": post(*OFFERS["h2c"])[:-3],
    "garbage": b"\x00",
    "between requests": HEALTH,
    "a line break after an answer": HEALTH + b"\r\n",
    "a byte behind a 401": request(body=BODY, own=NO_KEY)[: 1 - len(BODY)],
    "a byte behind a 413": request(b"POST", CHAT, b"Content-Length: 999999999") + b"x",
    "a byte behind a 404": request(b"POST", "/v1/files", body=BODY)[:-3],
    "a byte behind a 200": request(b"GET", MODELS, body=BODY)[:-3],
}


@IMPATIENT
def test_a_connection_ends_when_its_caller_does_nothing(
    server: Server, upstream: Upstream
) -> None:
    """In every state; what is closed to one side ends as well."""
    before = server.descriptors()
    began = time.monotonic()
    with ExitStack() as opened:
        raws = {state: opened.enter_context(Raw(server.port)) for state in WAITING}
        for state, raw in raws.items():
            raw.send(WAITING[state])
        took = {}
        for state, raw in raws.items():
            raw.rest()
            took[state] = time.monotonic() - began
        eventually(lambda: server.descriptors() <= before, 4 * SECONDS)

    assert max(took.values()) < 4 * SECONDS, took
    assert upstream.openai.requests == []


@IMPATIENT
@pytest.mark.parametrize("refused", [False, True])
def test_what_drips_ends_in_time(server: Server, *, refused: bool) -> None:
    """A byte of a head, or of a body that is refused, is none of the progress."""
    long = request(b"POST", CHAT, b"Content-Length: 99999", own=NO_KEY)
    with Raw(server.port) as raw:
        began = time.monotonic()
        raw.send(long if refused else HEALTH[:-4])
        if refused:
            assert raw.answer().status == 401
        while not raw.closed(0.1):
            raw.send(b"a")
            assert time.monotonic() - began < 4 * SECONDS


@IMPATIENT
def test_an_answer_that_is_not_read_is_given_up(
    server: Server, upstream: Upstream
) -> None:
    """Its connection to the upstream ends with it."""
    upstream.openai.script(*stream(*[b"x" * MEBIBYTE] * 64))
    with Raw(server.port) as raw:
        raw.send(STREAM)
        (call,) = upstream.openai.wait_requests()
        assert call.disconnected.wait(5 * SECONDS)


@IMPATIENT
def test_a_slow_caller_is_not_cut(server: Server, upstream: Upstream) -> None:
    """Neither one that sends slowly nor one that reads slowly, as long as it does."""
    size = 14 * MEBIBYTE
    headers = JSON | {"content-length": str(size)}
    upstream.openai.script(head(200, headers), repeat(b"x" * 65536, size // 65536))
    with Raw(server.port) as raw:
        raw.send(post()[: -len(BODY)])
        for part in (BODY[:10], BODY[10:20], BODY[20:]):
            time.sleep(0.6 * SECONDS)
            raw.send(part)
        raw.read_until(b"\r\n\r\n")
        got = 0
        while part := raw.read(min(MEBIBYTE, size - got)):
            time.sleep(0.3 * SECONDS)
            got += len(part)

    assert got == size


@IMPATIENT
def test_a_slow_answer_is_waited_for(server: Server, upstream: Upstream) -> None:
    """The upstream's silence is not the caller's, before an answer and inside it."""
    gates = Gate(), Gate()
    upstream.openai.script(gates[0], *stream(FIRST, gates[1], DONE))
    with Raw(server.port) as raw:
        raw.send(STREAM)
        for gate in gates:
            gate.wait_reached()
            time.sleep(1.7 * SECONDS)
            gate.open()
        assert DONE in raw.answer().body


@pytest.mark.parametrize(
    ("path", "client"),
    [
        ("/v1/models/not-believed", "127.0.0.1"),
        pytest.param("/v1/models/believed", "203.0.113.7", marks=IMPATIENT),
    ],
)
def test_only_a_named_proxy_is_believed(server: Server, path: str, client: str) -> None:
    """Uvicorn by itself would believe whoever calls from this machine."""
    ask(server.port, request(b"GET", path, b"X-Forwarded-For: 203.0.113.7"))

    (line,) = server.wait_access(path=path)
    assert line["client"].partition(":")[0] == client
