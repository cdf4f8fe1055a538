"""Bodies made to cost much: they are answered, and cost no more than their size."""

import asyncio
import time
from collections.abc import Callable, Iterator

import httpx
import pytest
from starlette.types import Message

from lls_openai import body as body_module
from lls_openai.body import read_body
from lls_openai.errors import InvalidRequestBody
from tests.calls import call, chat
from tests.process import forget_peak, peak, resident
from tests.raw import POST_CHAT, answers, ask, chunked, exchange, request
from tests.scripts import answering
from tests.server import Server
from tests.upstream import Upstream

MEBIBYTE = 1024 * 1024
LIMIT = 64 * MEBIBYTE
CHUNKED = b"Transfer-Encoding: chunked"
MODEL = b'{"model":"openai/m-1",'

# Bodies that are small on the wire and would be large, or slow, once they are parsed.
REFUSED_BOMBS = {
    "brackets": b"[" * MEBIBYTE,
    "brackets in a field": MODEL + b'"a":' + b"[" * MEBIBYTE,
    "closed brackets in a field": MODEL + b'"a":' + b"[" * 9**5 + b"]" * 9**5 + b"}",
    "braces in a field": MODEL + b'"a":' + b'{"a":' * 200_000,
    "a million fields": MODEL
    + b",".join(b'"%d":1' % n for n in range(1_000_000))
    + b"}",
    "a number that never ends": MODEL + b'"a":' + b"9" * MEBIBYTE,
    "a string that never ends": MODEL + b'"a":"' + b"\\u0000" * 200_000,
    "spaces": b" " * 8 * MEBIBYTE,
    "UTF-16": chat().decode().encode("utf-16"),
    "UTF-32": chat().decode().encode("utf-32"),
    "a byte order mark": b"\xef\xbb\xbf" + chat(),
    "compressed": b"\x1f\x8b\x08\x00" + b"\x00" * 1000,
    "NUL bytes": b"\0" * MEBIBYTE,
}
# Bodies that look as bad, and are what a vendor may take.
RELAYED_BOMBS = {
    "digits": b'"a":' + b"9" * MEBIBYTE,
    "an exponent": b'"a":1e999999999',
    "many short texts": b'"a":[' + b",".join([b'""'] * 500_000) + b"]",
    "escapes": b'"a":"' + b"\\u0000" * 200_000 + b'"',
    "spaces between": b" " * 8 * MEBIBYTE + b'"a":1',
    "a long name": b'"' + b"a" * MEBIBYTE + b'":1',
    "many fields": b",".join(b'"%d":1' % n for n in range(100_000)),
    "depth that is allowed": b'"a":' + b"[" * 200 + b"]" * 200,
}


@pytest.fixture
def growth(server: Server, http: httpx.Client) -> Callable[[], int]:
    """Says by how many bytes the server has grown at most since the test began."""
    assert call(http, server.url, chat()).status == 200
    before = resident(server.pid)
    forget_peak(server.pid)
    return lambda: peak(server.pid) - before


@pytest.mark.parametrize("sent", REFUSED_BOMBS.values(), ids=REFUSED_BOMBS)
def test_a_body_that_is_no_request_is_refused_cheaply(
    server: Server, upstream: Upstream, growth: Callable[[], int], sent: bytes
) -> None:
    """400, with a few times the body's own size at most."""
    upstream.reset()
    answer = ask(server.port, request(body=sent))

    assert answer.error_code == (400, "invalid_request_body")
    assert upstream.openai.calls == []
    assert growth() < 8 * len(sent) + 16 * MEBIBYTE


@pytest.mark.parametrize("fields", RELAYED_BOMBS.values(), ids=RELAYED_BOMBS)
def test_a_body_that_may_be_a_request_is_relayed_cheaply(
    server: Server, upstream: Upstream, growth: Callable[[], int], fields: bytes
) -> None:
    """The vendor judges it; here its values are not built."""
    upstream.reset()
    upstream.openai.answer_with(answering())
    sent = MODEL + fields + b"}"

    assert ask(server.port, request(body=sent)).status == 200

    assert len(upstream.openai.calls) == 1
    assert growth() < 24 * len(sent) + 16 * MEBIBYTE


@pytest.mark.parametrize("length", [LIMIT + 1, 10 * LIMIT, 10**18])
def test_a_body_that_is_announced_too_large_is_not_held(
    server: Server, growth: Callable[[], int], length: int
) -> None:
    """413 at once, though the caller goes on sending."""
    head = request(POST_CHAT, b"Content-Length: %d" % length)
    pieces = [b"x" * MEBIBYTE] * 80

    answer = ask(server.port, head, *pieces)

    assert answer.error_code == (413, "request_too_large")
    assert growth() < 8 * MEBIBYTE


def test_a_body_that_turns_out_too_large_is_held_up_to_the_limit(
    server: Server, growth: Callable[[], int]
) -> None:
    """413 when the limit is reached, and the rest is not read."""
    head = request(POST_CHAT, CHUNKED)
    pieces = [chunked(b"x" * MEBIBYTE, end=b"")] * 200

    answer = ask(server.port, head, *pieces)

    assert answer.error_code == (413, "request_too_large")
    assert growth() < 1.5 * LIMIT


def test_a_body_in_the_smallest_chunks_arrives(
    server: Server, upstream: Upstream, growth: Callable[[], int]
) -> None:
    """Six bytes over the wire for each that is meant; the others are not held."""
    upstream.reset()
    body = chat(user="x" * 50_000)
    sent = chunked(*(bytes([byte]) for byte in body))

    assert ask(server.port, request(POST_CHAT, CHUNKED) + sent).status == 200

    (arrived,) = upstream.openai.calls
    assert len(chat("gpt-4o", user="x" * 50_000)) == len(arrived.body)
    assert growth() < 16 * MEBIBYTE


def test_a_body_may_come_slowly(server: Server, upstream: Upstream) -> None:
    """In pieces with pauses, after a head that came in pieces too."""
    sent = request(body=chat())

    def slowly() -> Iterator[bytes]:
        for start in range(0, len(sent), 40):
            yield sent[start : start + 40]
            # The time that passes is what is tested.
            time.sleep(0.03)

    (answer,) = answers(exchange(server.port, *slowly()))

    assert (answer.status, len(upstream.openai.calls)) == (200, 1)


def test_a_body_that_stops_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """After `BODY_PAUSE` the caller is told so, and what came of it is dropped."""
    monkeypatch.setattr(body_module, "BODY_PAUSE", 0.05)
    messages: list[Message] = [
        {"type": "http.request", "body": b"{", "more_body": True}
    ]

    async def receive() -> Message:
        if not messages:
            await asyncio.Event().wait()
        return messages.pop()

    with pytest.raises(InvalidRequestBody, match="No more of the body"):
        asyncio.run(read_body(receive, [], LIMIT))


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/json; charset=utf-16",
        "application/json; charset=nonsense; =;",
        "/",
    ],
)
def test_the_body_says_what_it_is(
    server: Server, upstream: Upstream, content_type: str | None
) -> None:
    """JSON is taken under any name, and goes on under its own."""
    headers = [f"Content-Type: {content_type}".encode()] if content_type else []

    answer = ask(server.port, request(POST_CHAT, *headers, body=chat()))

    (arrived,) = upstream.openai.calls
    assert (
        answer.status,
        arrived.header_values("content-type"),
    ) == (200, ["application/json"])


def test_of_two_models_one_counts(
    server: Server, upstream: Upstream, http: httpx.Client
) -> None:
    """The one by which it is routed is the one that is sent, alone."""
    upstream.openai.answer_with(answering())

    call(http, server.url, b'{"model":"gemini/x","a":1,"model":"openai/m-1"}')

    (arrived,) = upstream.openai.calls
    assert (
        arrived.json,
        arrived.body.count(b"model"),
    ) == ({"model": "m-1", "a": 1}, 1)
    assert upstream.gemini.calls == []
