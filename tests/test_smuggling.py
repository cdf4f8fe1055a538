"""A caller sends its own request, and nothing else: no second one, no other header."""

import httpx
import pytest

from tests.calls import CHAT, KEY, call, chat
from tests.raw import BEARER, HOST, POST_CHAT, answers, ask, chunked, exchange, request
from tests.scripts import JSON, answering
from tests.server import Server
from tests.upstream import Upstream

CHUNKED = b"Transfer-Encoding: chunked"
# A request that another one could be made to carry along.
HIDDEN = request(body=chat("openai/hidden"))


def _keyed(key: str, body: bytes, *, last: bool) -> bytes:
    """A request with a key of its own; the last of a connection closes it."""
    written = request(own=(HOST, f"Authorization: Bearer {key}".encode()), body=body)
    return written if last else written.replace(b"Connection: close\r\n", b"")


# Lengths on which two readers of HTTP might disagree (RFC 9112, section 6.3).
FRAMES = {
    "length and chunks": request(POST_CHAT, CHUNKED, body=chat()),
    "chunks and length": request(POST_CHAT, b"Content-Length: 4", CHUNKED)
    + chunked(chat()),
    "two lengths": request(POST_CHAT, b"Content-Length: 4", body=chat()),
    "two equal lengths": request(
        POST_CHAT, b"Content-Length: %d" % len(chat()), body=chat()
    ),
    "a list of lengths": request(POST_CHAT, b"Content-Length: 4, 4") + chat(),
    "a length with a sign": request(POST_CHAT, b"Content-Length: +4") + chat(),
    "a length below zero": request(POST_CHAT, b"Content-Length: -4") + chat(),
    "a length in hexadecimal": request(POST_CHAT, b"Content-Length: 0x10") + chat(),
    "a length with a space in it": request(POST_CHAT, b"Content-Length: 1 0") + chat(),
    "a length without digits": request(POST_CHAT, b"Content-Length:") + chat(),
    "a length beyond 64 bits": request(POST_CHAT, b"Content-Length: " + b"9" * 30),
    "chunks twice": request(POST_CHAT, CHUNKED, CHUNKED) + chunked(chat()),
    "another coding": request(POST_CHAT, b"Transfer-Encoding: gzip") + chat(),
    "chunks that are not last": request(POST_CHAT, CHUNKED + b", gzip") + chat(),
    "nearly chunks": request(POST_CHAT, b"Transfer-Encoding: xchunked") + chat(),
    "chunks behind a tab": request(POST_CHAT, b"Transfer-Encoding:\x0bchunked")
    + chunked(chat()),
    "a space before the colon": request(POST_CHAT, b"Transfer-Encoding : chunked")
    + chunked(chat()),
    "a size that is none": request(POST_CHAT, CHUNKED) + b"zz\r\n",
    "a size below zero": request(POST_CHAT, CHUNKED) + b"-1\r\n",
    "a size beyond 64 bits": request(POST_CHAT, CHUNKED) + b"f" * 17 + b"\r\n",
    "a chunk that is longer": request(POST_CHAT, CHUNKED) + b"1\r\nabc\r\n0\r\n\r\n",
}
# Header lines that another reader might take for two, or for another one.
LINES = {
    "a lone line feed": b"OpenAI-Beta: a\nX-Smuggled: 1",
    "a lone carriage return": b"OpenAI-Beta: a\rX-Smuggled: 1",
    "a folded line": b"OpenAI-Beta: a\r\n X-Smuggled: 1",
    "a NUL": b"OpenAI-Beta: a\0X-Smuggled: 1",
    "a control character": b"OpenAI-Beta: a\x01",
    "a DEL": b"OpenAI-Beta: a\x7f",
    "no colon": b"OpenAI-Beta",
    "no name": b": a",
    "a name with a space": b"OpenAI Beta: a",
    "a name with other letters": b"OpenAI-B\xc3\xa9ta: a",
    "a name in brackets": b"(OpenAI-Beta): a",
}


@pytest.mark.parametrize("sent", FRAMES.values(), ids=FRAMES)
def test_a_body_of_doubtful_length_is_refused(
    server: Server, upstream: Upstream, sent: bytes
) -> None:
    """400 from uvicorn's own parser, in plain text; the connection is then closed."""
    found = answers(exchange(server.port, sent, HIDDEN))

    assert [each.status for each in found] == [400]
    assert upstream.openai.calls == []


@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
def test_a_header_of_doubtful_meaning_is_refused(
    server: Server, upstream: Upstream, line: bytes
) -> None:
    """Likewise; none of it reaches the upstream."""
    found = answers(exchange(server.port, request(POST_CHAT, line, body=chat())))

    assert [each.status for each in found] == [400]
    assert upstream.openai.calls == []


def test_a_request_inside_a_body_is_a_body(server: Server, upstream: Upstream) -> None:
    """Of which the length is known: it is no JSON, and that is all there is to it."""
    found = answers(exchange(server.port, request(body=HIDDEN)))

    assert [each.error_code for each in found] == [(400, "invalid_request_body")]
    assert upstream.openai.calls == []


def test_requests_in_one_go_keep_their_keys(server: Server, upstream: Upstream) -> None:
    """Pipelined requests are answered in order, each with the key that it came with."""
    keys = [f"sk-{number}" for number in range(8)]
    sent = [_keyed(key, chat(user=key), last=key == keys[-1]) for key in keys]

    found = answers(exchange(server.port, b"".join(sent)))

    assert [200] * len(keys) == [each.status for each in found]
    expected = [(key, key) for key in keys]
    assert expected == [(each.key, each.json["user"]) for each in upstream.openai.calls]


def test_what_stands_before_an_error_is_nobodys(
    server: Server, upstream: Upstream
) -> None:
    """A request whose body was not read does not run into the one behind it."""
    unread = request(POST_CHAT, own=(HOST,), body=HIDDEN * 100)
    unread = unread.replace(b"Connection: close\r\n", b"", 1)

    found = answers(exchange(server.port, unread, request(body=chat(user="next"))))

    assert [each.status for each in found] == [401, 200]
    assert [each.json["user"] for each in upstream.openai.calls] == ["next"]


@pytest.mark.parametrize(
    ("target", "host"),
    [
        (f"http://elsewhere.test{CHAT}", "elsewhere.test"),
        (f"http://user:password@elsewhere.test:80{CHAT}", "elsewhere.test"),
        (CHAT, "elsewhere.test:443"),
        (CHAT, "127.0.0.1:1"),
        (CHAT, ""),
        (f"{CHAT}?base_url=http://elsewhere.test&api-version=1", "localhost"),
        (f"{CHAT}#http://elsewhere.test", "localhost"),
        ("/v1%2Fchat/completions", "localhost"),
    ],
)
def test_the_address_of_a_request_does_not_lead_elsewhere(
    server: Server, upstream: Upstream, target: str, host: str
) -> None:
    """Neither target nor Host nor query say where a call goes, or on which path."""
    line = f"POST {target} HTTP/1.1".encode()
    own = (f"Host: {host}".encode(), BEARER)

    answer = ask(server.port, request(line, body=chat(), own=own))

    (arrived,) = upstream.openai.calls
    expected = (200, CHAT, f"127.0.0.1:{upstream.openai.port}")
    assert expected == (answer.status, arrived.target, arrived.header("host"))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(
    server: Server, upstream: Upstream, http: httpx.Client, status: int
) -> None:
    """A key goes to the upstream that run.yaml names, whatever that one says."""
    elsewhere = JSON | {"location": f"{upstream.gemini.url}/chat/completions"}
    upstream.openai.answer_with(answering(status=status, headers=elsewhere))

    answer = call(http, server.url, chat())

    assert (status, 1) == (answer.status, len(upstream.openai.calls))
    assert upstream.gemini.calls == []
    assert "location" not in answer.headers


@pytest.mark.parametrize(
    "model",
    [
        "../../v1/files",
        "m?x=1#y",
        "m\r\nX-Smuggled: 1",
        "m HTTP/1.1",
        "http://elsewhere.test/m",
        "\0",
        "ä/😀",
        " ",
    ],
)
def test_a_models_name_stays_in_the_body(
    server: Server, upstream: Upstream, http: httpx.Client, model: str
) -> None:
    """It is never part of a path or of a header."""
    upstream.openai.answer_with(answering())

    call(http, server.url, chat(f"openai/{model}"))

    (arrived,) = upstream.openai.calls
    assert (CHAT, model) == (arrived.target, arrived.json["model"])
    assert arrived.header_values("x-smuggled") == []


@pytest.mark.parametrize("key", [f"{KEY} x", f"{KEY},{KEY}", f'"{KEY}"', "k" * 16_000])
def test_a_key_stays_one_header(
    server: Server, upstream: Upstream, http: httpx.Client, key: str
) -> None:
    """Whatever printable characters it is made of."""
    call(http, server.url, chat(), headers={"Authorization": f"Bearer {key}"})

    (arrived,) = upstream.openai.calls
    assert [f"Bearer {key}"] == arrived.header_values("authorization")
