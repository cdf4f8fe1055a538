"""What is too much, or of the wrong kind, is refused; what was taken is given back."""

import urllib.error
import urllib.request
from collections.abc import Callable
from itertools import repeat

import httpx
import pytest

from tests.support.http import (
    CHAT,
    MESSAGES,
    OWN,
    Raw,
    ask,
    bearer,
    chat,
    encoded,
    eventually,
    request,
)
from tests.support.server import Server
from tests.support.upstream import Upstream
from tests.support.wire import DONE, RESET, Gate, answer, event, stream

MEBIBYTE = 1024 * 1024
LIMIT = 64 * MEBIBYTE
SMALL = {"limits-small": {"max_request_bytes": 1000}}
NO_TYPE = (OWN[0], OWN[2])
BODY = encoded(chat())
FIRST = event({"n": 1})


@pytest.mark.parametrize("is_announced", [True, False])
def test_a_client_that_sends_all_before_it_looks_reads_its_413(
    server: Server, *, is_announced: bool
) -> None:
    """And no more of it than the limit was held."""
    server.forget_peak()
    before = server.memory()
    headers = bearer() | {"Content-Type": "application/json"}
    if is_announced:
        headers["Content-Length"] = str(200 * MEBIBYTE)
    zeros = repeat(b"0" * MEBIBYTE, 200)
    call = urllib.request.Request(server.url + CHAT, zeros, headers)  # noqa: S310 - ours

    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(call, timeout=20)  # noqa: S310 - as above

    assert refused.value.status == 413
    assert b"over the limit of 67,108,864 bytes" in refused.value.read()
    held = 0 if is_announced else LIMIT
    assert server.memory("VmHWM") - before < held + 16 * MEBIBYTE


def test_an_announced_body_is_not_waited_for(server: Server) -> None:
    """The limit is one a body may reach."""
    over, within = (b"Content-Length: %d" % size for size in (LIMIT + 1, LIMIT))

    got = ask(server.port, request(b"POST", CHAT, over))
    assert got.error_code == (413, "request_too_large")
    with Raw(server.port) as raw:
        raw.send(request(b"POST", CHAT, within))
        assert not raw.closed(0.2)


@pytest.mark.providers(SMALL)
@pytest.mark.parametrize("path", [CHAT, MESSAGES])
def test_a_provider_may_take_less_than_the_others(
    client: httpx.Client, upstream: Upstream, path: str
) -> None:
    """Bodies up to its own limit pass, and the message names that."""
    upstream.openai.script(answer())
    whole = encoded(chat("limits-small/m", user=""))
    sizes = (1000, 1001)
    bodies = [whole.replace(b'""', b'"%b"' % (b"x" * (s - len(whole)))) for s in sizes]
    headers = bearer() | {"content-type": "application/json"}

    fits, over = [client.post(path, content=b, headers=headers) for b in bodies]

    assert (fits.status_code, over.status_code) == (200, 413)
    assert "over the limit of 1,000 bytes" in over.text
    assert len(upstream.openai.requests) == 1


def test_a_head_that_is_too_large_is_told_so(
    server: Server, upstream: Upstream
) -> None:
    """431 in OpenAI's form, though the request is whole."""
    got = ask(server.port, request(b"POST", CHAT, b"X-A: " + b"a" * 10**6, body=BODY))

    error = {
        "message": "The request's head is over the limit of 65,536 bytes",
        "type": "invalid_request_error",
        "param": None,
        "code": "request_too_large",
    }
    assert (got.status, got.json) == (431, {"error": error})
    assert upstream.openai.requests == []


@pytest.mark.parametrize("digits", [b"9" * 5000, b"0" * 5000 + b"2", b"9" * 19])
def test_a_length_of_too_many_digits_is_an_error_of_the_caller(
    server: Server, digits: bytes
) -> None:
    """Python's `int` refuses more than 4,300; none of them are worth a traceback."""
    got = ask(server.port, request(b"POST", CHAT, b"Content-Length: " + digits))

    assert got.status == 400
    assert {"message", "type", "param", "code"} == got.json["error"].keys()
    assert "Traceback" not in server.log


TAKEN: dict[str, tuple[bytes, ...]] = {
    "plain": (b"Content-Type: application/json",),
    "charset": (b"Content-Type: application/json; charset=utf-8",),
    "upper case": (b"CONTENT-TYPE: APPLICATION/JSON",),
    "suffix": (b"Content-Type: application/vnd.x-1.y+json",),
    "identity": (OWN[1], b"Content-Encoding: Identity"),
}
TYPE, CODING = "unsupported_media_type", "unsupported_content_encoding"
NOT_TAKEN: dict[str, tuple[str, tuple[bytes, ...]]] = {
    "no type": (TYPE, ()),
    "empty type": (TYPE, (b"Content-Type:",)),
    # What any page may have a browser send here, unasked (CORS).
    "text": (TYPE, (b"Content-Type: text/plain;application/json",)),
    "form": (TYPE, (b"Content-Type: application/x-www-form-urlencoded",)),
    "parts": (TYPE, (b"Content-Type: multipart/form-data; boundary=a",)),
    "nearly": (TYPE, (b"Content-Type: application/jsonl",)),
    "nearly suffix": (TYPE, (b"Content-Type: application/x-json",)),
    "gzip": (CODING, (OWN[1], b"Content-Encoding: gzip")),
    "two codings": (CODING, (OWN[1], b"Content-Encoding: identity, br")),
}


@pytest.mark.parametrize("lines", TAKEN.values(), ids=TAKEN)
def test_json_is_taken_under_each_of_its_types(
    server: Server, upstream: Upstream, lines: tuple[bytes, ...]
) -> None:
    """And goes on as plain JSON."""
    sent = request(b"POST", CHAT, *lines, body=BODY, own=NO_TYPE)

    assert ask(server.port, sent).status == 200
    assert upstream.openai.request.header("content-type") == "application/json"
    assert upstream.openai.request.header("content-encoding") is None


@pytest.mark.parametrize(("code", "lines"), NOT_TAKEN.values(), ids=NOT_TAKEN)
def test_what_is_not_plain_json_is_refused_unread(
    server: Server, code: str, lines: tuple[bytes, ...]
) -> None:
    """415, before any of the body is there."""
    announced = b"Content-Length: 100"

    got = ask(server.port, request(b"POST", CHAT, announced, *lines, own=NO_TYPE))

    assert got.error_code == (415, code)


# Two bodies of SIZE are too many at a time.
IN_FLIGHT, SIZE = 1_000_000, 600_000
PROVIDERS = ("openai", "openai-mini", "gemini", "anthropic")
BUSY = pytest.mark.server(
    # Not on the server that all variations of providers alone share: it counts there.
    {"server": {"workers": 1}},
    # The largest of the providers' counts.
    providers={name: {"max_bytes_in_flight": IN_FLIGHT} for name in PROVIDERS},
)
LARGE = encoded(chat(user="x" * SIZE))
CALL = request(body=LARGE)


@BUSY
def test_too_many_bytes_in_flight_are_told_to_come_again(
    server: Server, upstream: Upstream
) -> None:
    """503, in the form of the route; those that are under way go on."""
    gate = Gate()
    upstream.openai.script(gate, answer())
    with Raw(server.port) as raw:
        raw.send(CALL)
        gate.wait_reached()
        openais = ask(server.port, CALL)
        anthropics = ask(server.port, request(path=MESSAGES, body=LARGE))
        small = ask(server.port, request(body=BODY))
        gate.open()
        assert raw.answer().status == 200

    assert openais.error_code == (503, "server_busy")
    assert openais.json["error"]["type"] == "server_error"
    assert (anthropics.status, anthropics.json["error"]["type"]) == (
        503,
        "overloaded_error",
    )
    assert openais.headers["retry-after"] == anthropics.headers["retry-after"] == "1"
    assert small.status == 200


def begin(server: Server, upstream: Upstream) -> Raw:
    """Have a large call wait for its answer."""
    gate = Gate()
    upstream.openai.script(gate)
    raw = Raw(server.port)
    raw.send(CALL)
    gate.wait_reached()
    return raw


def leave_while_waiting(server: Server, upstream: Upstream) -> None:
    """Leave before the answer."""
    with begin(server, upstream):
        pass
    (call,) = upstream.openai.wait_requests()
    assert call.disconnected.wait(5)


def leave_inside_the_body(server: Server, _: Upstream) -> None:
    """Leave when most of the body is there, and counts."""
    with Raw(server.port) as raw:
        raw.send(CALL[:-10])
        eventually(lambda: ask(server.port, CALL).status == 503)
    eventually(lambda: ask(server.port, CALL).status == 200)


def answered(body: bytes, status: int, path: str = CHAT) -> Callable[..., None]:
    """Get an error of this server's own."""

    def end(server: Server, _: Upstream) -> None:
        assert ask(server.port, request(path=path, body=body)).status == status

    return end


def break_off(server: Server, upstream: Upstream) -> None:
    """Have the upstream break off."""
    upstream.openai.script(RESET)
    assert ask(server.port, CALL).error_code == (502, "upstream_unreachable")


def reach_the_limit(server: Server, _: Upstream) -> None:
    """Send more than may be in flight at all."""
    body = encoded(chat(user="x" * IN_FLIGHT))
    assert ask(server.port, request(body=body)).error_code == (503, "server_busy")


ENDINGS: dict[str, Callable[[Server, Upstream], None]] = {
    "answer": answered(LARGE, 200),
    "error of the vendor": answered(encoded(chat("openai/none", a="x" * SIZE)), 404),
    "no JSON": answered(b"x" * SIZE, 400),
    "no model": answered(encoded(chat("none/none", user="x" * SIZE)), 404),
    "upstream breaks off": break_off,
    "over the limit": reach_the_limit,
    "caller leaves": leave_while_waiting,
    "caller leaves inside the body": leave_inside_the_body,
}


@BUSY
@pytest.mark.parametrize("end", ENDINGS.values(), ids=ENDINGS)
def test_a_share_is_given_back(
    server: Server, upstream: Upstream, end: Callable[[Server, Upstream], None]
) -> None:
    """However a call ends, another has room after it."""
    end(server, upstream)

    assert ask(server.port, CALL).status == 200


@BUSY
def test_a_running_answer_holds_no_share(server: Server, upstream: Upstream) -> None:
    """A stream may last for minutes; its request has long been sent."""
    gate = Gate()
    upstream.openai.script(*stream(FIRST, gate, DONE))
    with Raw(server.port) as raw:
        raw.send(CALL)
        raw.read_until(FIRST)
        assert ask(server.port, CALL).status == 200
        gate.open()
        raw.read_until(DONE)
