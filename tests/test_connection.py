"""One connection of a caller: what is a request on it, and when it ends."""

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from itertools import repeat

import pytest

from tests.support.http import (
    CHAT,
    MODELS,
    OWN,
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
    providers=dict.fromkeys(PROVIDERS, {"caller_timeout": SECONDS}),
    env={"FORWARDED_ALLOW_IPS": "127.0.0.1"},
)
BODY = encoded(chat())
NEXT = request(body=encoded(chat(user="next")))
HEALTH = request(b"GET", "/v1/health")
CHUNKED = b"Transfer-Encoding: chunked"
NO_KEY = (b"Host: localhost", b"Content-Type: application/json")
REFUSED = (400, "invalid_http_request")
FIRST = event({"n": 1})
MEBIBYTE = 1024 * 1024

OFFERS = {
    "h2c": (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c"),
    "websocket": (b"Connection: Upgrade", b"Upgrade: websocket"),
    "unknown": (b"Upgrade: x/1, y", b"Connection: keep-alive, upgrade"),
}
FRAMED = {
    "length": lambda offer, body: request(b"POST", CHAT, *offer, body=body),
    "chunks": lambda offer, body: (
        request(b"POST", CHAT, *offer, CHUNKED) + chunk(body) + b"0\r\nX-A: b\r\n\r\n"
    ),
}
SEGMENTED: dict[str, Callable[[bytes, int], list[bytes]]] = {
    "at once": lambda sent, _: [sent],
    "body later": lambda sent, at: [sent[:at], sent[at:]],
    "byte by byte": lambda sent, _: [sent[n : n + 1] for n in range(len(sent))],
}


def send_apart(raw: Raw, segments: list[bytes]) -> None:
    """Send segments that do not arrive as one."""
    for segment in segments:
        raw.send(segment)
        time.sleep(0.05 if len(segments) == 2 else 0)


@pytest.mark.parametrize("segmented", SEGMENTED.values(), ids=SEGMENTED)
@pytest.mark.parametrize("framed", FRAMED.values(), ids=FRAMED)
@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
def test_an_offered_upgrade_is_declined(
    server: Server,
    upstream: Upstream,
    offer: tuple[bytes, ...],
    framed: Callable[[tuple[bytes, ...], bytes], bytes],
    segmented: Callable[[bytes, int], list[bytes]],
) -> None:
    """The body is read as HTTP/1.1, and no request in it is run (RFC 9110, 7.8)."""
    hidden = b"\r\n" * 50 + request(body=encoded(chat("openai/hidden")))
    with Raw(server.port) as raw:
        for body, expected in ((BODY, 200), (hidden, 400)):
            sent = framed(offer, body)
            send_apart(raw, segmented(sent, sent.index(b"\r\n\r\n") + 4))
            assert raw.answer().status == expected
        raw.send(NEXT)
        assert raw.answer().status == 200

    assert [each.json for each in upstream.openai.requests] == [
        {"model": "gpt-4o"} | body
        for body in (
            {"messages": chat()["messages"]},
            chat(user="next", model="gpt-4o"),
        )
    ]


@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
def test_an_upgrade_offered_without_a_body_is_declined(
    server: Server, offer: tuple[bytes, ...]
) -> None:
    """No web socket is opened either; what follows is the next request."""
    with Raw(server.port) as raw:
        raw.send(request(b"GET", MODELS, *offer) + HEALTH)
        assert [raw.answer().status, raw.answer().status] == [200, 200]


def test_no_tunnel_is_opened(server: Server, upstream: Upstream) -> None:
    """CONNECT is a method that no route has."""
    with Raw(server.port) as raw:
        raw.send(b"CONNECT elsewhere:80 HTTP/1.1\r\nHost: localhost\r\n\r\n", NEXT)
        assert raw.answer().error_code == REFUSED
        assert raw.rest() == b""

    assert upstream.openai.requests == []


# What two readers of HTTP might read differently (RFC 9112, sections 5 and 6.3).
DOUBTFUL = {
    "length and chunks": request(b"POST", CHAT, CHUNKED, body=BODY),
    "two lengths": request(b"POST", CHAT, b"Content-Length: 4", body=BODY),
    "a list of lengths": request(b"POST", CHAT, b"Content-Length: 4, 4") + BODY,
    "a length with a sign": request(b"POST", CHAT, b"Content-Length: +4") + BODY,
    "a length in hexadecimal": request(b"POST", CHAT, b"Content-Length: 0x9") + BODY,
    "a length beyond 64 bits": request(b"POST", CHAT, b"Content-Length: " + b"9" * 30),
    "chunks that are not last": request(b"POST", CHAT, CHUNKED + b", gzip") + BODY,
    "another coding": request(b"POST", CHAT, b"Transfer-Encoding: gzip") + BODY,
    "a space before the colon": request(b"POST", CHAT, b"Content-Length : 4") + BODY,
    "a chunk's size that is none": request(b"POST", CHAT, CHUNKED) + b"zz\r\n",
    "a chunk that is longer": request(b"POST", CHAT, CHUNKED)
    + b"1\r\nabc\r\n0\r\n\r\n",
    "a lone line feed": request(b"POST", CHAT, b"OpenAI-Beta: a\nX-B: 1", body=BODY),
    "a lone return": request(b"POST", CHAT, b"OpenAI-Beta: a\rX-B: 1", body=BODY),
    "a folded line": request(b"POST", CHAT, b"OpenAI-Beta: a\r\n X-B: 1", body=BODY),
    "a NUL": request(b"POST", CHAT, b"OpenAI-Beta: a\0", body=BODY),
    "a name in brackets": request(b"POST", CHAT, b"(OpenAI-Beta): a", body=BODY),
    "no HTTP": b"\x00\x01\x02 garbage\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}


@pytest.mark.parametrize("sent", DOUBTFUL.values(), ids=DOUBTFUL)
def test_what_is_no_clear_request_is_refused(
    server: Server, upstream: Upstream, sent: bytes
) -> None:
    """In the contract's form; nothing behind it on the connection is run."""
    with Raw(server.port) as raw:
        raw.send(sent, NEXT)
        answer = raw.answer()
        assert answer.error_code[0] == 400
        assert raw.rest() == b""

    assert upstream.openai.requests == []


def test_a_head_without_an_end_is_refused(server: Server) -> None:
    """100 MB of one header cost neither memory nor other callers' time."""
    server.forget_peak()
    before = server.memory()
    began = time.monotonic()
    with Raw(server.port) as raw:
        raw.send(b"GET / HTTP/1.1\r\nX-A: ", *repeat(b"a" * 100_000, 1000))
        answer = raw.answer()
        assert answer.error_code == (431, "request_too_large")
    # Below the limit, a large one is taken.
    assert ask(server.port, request(b"GET", MODELS, b"X-A: " + b"a" * 60_000))

    assert time.monotonic() - began < 5
    assert server.memory("VmHWM") - before < 8 * MEBIBYTE


def test_pipelined_requests_are_answered_in_order(
    server: Server, upstream: Upstream
) -> None:
    """Each with the key that it came with; an unread body runs into none of them."""
    keys = [f"sk-openai-mock-{number}" for number in range(8)]
    unread = request(body=NEXT * 2000, own=NO_KEY)
    with Raw(server.port) as raw:
        raw.send(
            unread
            + b"".join(
                request(
                    body=encoded(chat(user=key)),
                    own=(*NO_KEY, f"X-Api-Key: {key}".encode()),
                )
                for key in keys
            )
        )
        assert [raw.answer().status for _ in range(9)] == [401, *[200] * 8]

    assert [(key, key) for key in keys] == [
        (each.key, each.json["user"]) for each in upstream.openai.requests
    ]


def test_more_pipelined_requests_than_the_bound_end_the_connection(
    server: Server,
) -> None:
    """A hundred thousand without waiting for an answer would pile up in memory."""
    server.forget_peak()
    before = server.memory()
    with Raw(server.port) as raw:
        raw.send(*repeat(HEALTH * 1000, 100))
        answered = raw.rest().count(b"HTTP/1.1 200 OK")

    assert answered < 1000
    assert server.memory("VmHWM") - before < 16 * MEBIBYTE


@pytest.mark.parametrize("more", [b"\x00garbage\r\n\r\n", b"X" * 200_000], ids=len)
def test_nothing_is_written_into_a_running_answer(
    server: Server, upstream: Upstream, more: bytes
) -> None:
    """It ends whole, and then the connection."""
    gate = Gate()
    upstream.openai.script(*stream(FIRST, gate, DONE))
    with Raw(server.port) as raw:
        raw.send(request(body=encoded(chat(stream=True))))
        raw.read_until(FIRST)
        raw.send(more)
        # It has been read when another caller has been answered.
        assert ask(server.port, HEALTH).status == 200
        gate.open()
        assert raw.rest() == b"\r\n" + chunk(DONE) + b"0\r\n\r\n"


def test_a_refused_body_is_discarded_within_bounds(server: Server) -> None:
    """A client that sends all before it looks sees its 413, but not for gigabytes."""
    server.forget_peak()
    before = server.memory()
    size = 100 * MEBIBYTE
    with Raw(server.port) as raw:
        raw.send(request(b"POST", CHAT, b"Content-Length: %d" % size))
        raw.send(*repeat(b"x" * MEBIBYTE, 100), NEXT)
        assert raw.answer().error_code == (413, "request_too_large")
        assert raw.answer().status == 200
    sent = 0
    closed = threading.Event()

    def send_until_closed() -> None:
        nonlocal sent
        while not closed.is_set():
            raw.send(chunk(b"x" * MEBIBYTE))
            sent += 1

    with Raw(server.port) as raw:
        raw.send(request(b"POST", CHAT, CHUNKED, own=NO_KEY))
        sender = threading.Thread(target=send_until_closed)
        sender.start()
        raw.rest()
        closed.set()
        sender.join()

    assert 400 < sent < 1000
    assert server.memory("VmHWM") - before < 32 * MEBIBYTE


WAITING = {
    "nothing sent": b"",
    "half a head": request(body=BODY)[:40],
    "a head without its body": request(body=BODY)[: -len(BODY)],
    "half a body": request(body=BODY)[:-3],
    "half a chunk": request(b"POST", CHAT, CHUNKED) + b"100\r\n{",
    "between requests": HEALTH,
    "a line break after an answer": HEALTH + b"\r\n",
    "a byte of body behind a 401": request(body=BODY, own=NO_KEY)[: 1 - len(BODY)],
    "a byte of body behind a 413": request(b"POST", CHAT, b"Content-Length: 999999999")
    + b"x",
    "a byte of body behind a 404": request(b"POST", "/v1/files", body=BODY)[:-3],
    "a byte of body behind a 200": request(b"GET", MODELS, body=BODY)[:-3],
    "garbage": b"\x00",
    "an upgrade without its body": request(b"POST", CHAT, *OFFERS["h2c"], body=BODY)[
        :-3
    ],
}


@IMPATIENT
def test_a_connection_ends_when_its_caller_does_nothing(
    server: Server, upstream: Upstream
) -> None:
    """In every state, whether the caller has been answered or not."""
    before = server.descriptors()
    began = time.monotonic()
    with ExitStack() as stack:
        waiting = {state: stack.enter_context(Raw(server.port)) for state in WAITING}
        for state, raw in waiting.items():
            raw.send(WAITING[state])
        took = {}
        for state, raw in waiting.items():
            raw.rest()
            took[state] = time.monotonic() - began
        # What is closed to one side ends as well.
        eventually(lambda: server.descriptors() <= before, 4 * SECONDS)

    assert max(took.values()) < 4 * SECONDS, took
    assert upstream.openai.requests == []


@IMPATIENT
def test_a_head_that_drips_ends_in_time(server: Server) -> None:
    """Each byte is none of the progress that counts: a whole head is."""
    with Raw(server.port) as raw:
        began = time.monotonic()
        raw.send(HEALTH[:-4])
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
        raw.send(request(body=encoded(chat(stream=True))))
        (call,) = upstream.openai.wait_requests()
        assert call.disconnected.wait(5 * SECONDS)
    assert server.wait_access(status=200, path=CHAT)


@IMPATIENT
def test_a_slow_caller_is_not_cut(server: Server, upstream: Upstream) -> None:
    """Neither one that sends slowly nor one that reads slowly, as long as it does."""
    size = 16 * MEBIBYTE
    upstream.openai.script(
        head(200, JSON | {"content-length": str(size)}), repeat(b"x" * 65536, 256)
    )
    with Raw(server.port) as raw:
        raw.send(request(body=BODY)[: -len(BODY)])
        for part in (BODY[:10], BODY[10:20], BODY[20:30], BODY[30:40], BODY[40:]):
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
    first, second = Gate(), Gate()
    upstream.openai.script(first, *stream(FIRST, second, DONE))
    with Raw(server.port) as raw:
        raw.send(request(body=encoded(chat(stream=True))))
        for gate in (first, second):
            gate.wait_reached()
            time.sleep(2.5 * SECONDS)
            gate.open()
        assert DONE in raw.answer().body


FORWARDED = request(b"GET", MODELS, b"X-Forwarded-For: 203.0.113.7")


def test_no_proxy_is_believed_unless_it_is_named(server: Server) -> None:
    """uvicorn would believe whoever calls from this machine."""
    path = "/v1/models/not-believed"
    ask(server.port, FORWARDED.replace(MODELS.encode(), path.encode()))

    (line,) = server.wait_access(path=path)
    assert line["client"].startswith("127.0.0.1:")


@IMPATIENT
def test_a_named_proxy_is_believed(server: Server) -> None:
    """By uvicorn's own variable."""
    ask(server.port, FORWARDED)

    assert server.wait_access(client="203.0.113.7:0")
