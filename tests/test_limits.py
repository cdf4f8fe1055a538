"""What is too much, or of the wrong kind, is refused; what was taken is given back."""

import asyncio
import urllib.error
import urllib.request
from collections.abc import Callable
from itertools import repeat
from types import SimpleNamespace
from typing import Any

import pytest
from llama_stack_api import Api

from lls_openai.relay.routes import ROUTES as TABLE
from lls_openai.relay.routing import Routing
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
from tests.support.wire import (
    DONE,
    LAST_CHUNK,
    RESET,
    Gate,
    answer,
    chunk,
    event,
    stream,
)

MEBIBYTE = 1024 * 1024
LIMIT = 64 * MEBIBYTE
NO_TYPE = (OWN[0], OWN[2])
BODY = encoded(chat())
# What uvicorn logs of an exception that nobody has caught.
UNEXPECTED = "Exception in ASGI application"


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

    with pytest.raises(urllib.error.HTTPError, match="413") as refused:
        urllib.request.urlopen(call, timeout=20)  # noqa: S310 - as above

    assert b"over the limit of 67,108,864 bytes" in refused.value.read()
    held = 0 if is_announced else LIMIT
    assert server.memory("VmHWM") - before < held + 16 * MEBIBYTE


@pytest.mark.parametrize(
    ("size", "expected"),
    [(LIMIT, b"HTTP/1.1 100 Continue\r\n"), (LIMIT + 1, b"HTTP/1.1 413 ")],
)
def test_an_announced_body_is_judged_before_it_is_sent(
    server: Server, size: int, expected: bytes
) -> None:
    """By curl, which asks before it sends a large one."""
    asking = b"Content-Length: %d" % size, b"Expect: 100-continue"
    with Raw(server.port) as raw:
        raw.send(request(b"POST", CHAT, *asking))
        assert raw.read(len(expected)) == expected


def test_a_body_of_exactly_the_limit_is_taken(server: Server) -> None:
    """In chunks, of which none says how many follow."""
    head = request(b"POST", CHAT, b"Transfer-Encoding: chunked")

    got = ask(server.port, head, chunk(BODY.ljust(LIMIT)) + LAST_CHUNK)

    assert got.status == 200


@pytest.mark.providers({"limits-small": {"max_request_bytes": 1000}})
@pytest.mark.parametrize(
    ("provider", "size", "status"),
    [("limits-small", 1000, 200), ("limits-small", 1001, 413), ("openai", 1001, 200)],
)
def test_a_provider_may_have_a_limit_of_its_own(
    server: Server, upstream: Upstream, provider: str, size: int, status: int
) -> None:
    """It is not that of the others, and nothing over it is sent."""
    body = encoded(chat(f"{provider}/gpt-4o")).ljust(size)

    assert ask(server.port, request(body=body)).status == status
    assert len(upstream.openai.requests) == (status == 200)


def test_a_body_that_breaks_off_is_not_relayed(server: Server) -> None:
    """Not even where so much of it is there that it looks whole."""
    length = b"Content-Length: %d" % (len(BODY) + 1)
    before = len(server.access())

    with Raw(server.port) as raw:
        raw.send(request(b"POST", CHAT, length) + BODY)

    (line,) = eventually(lambda: server.access()[before:])
    assert (line["status"], line.get("model")) == (499, None)


@pytest.mark.parametrize(
    ("digits", "code"),
    [
        (b"9" * 5000, "invalid_http_request"),
        (b"0" * 5000 + b"2", "invalid_request_body"),
        (b"9" * 19, "invalid_request_body"),
    ],
)
def test_a_length_of_too_many_digits_is_an_error_of_the_caller(
    server: Server, digits: bytes, code: str
) -> None:
    """Python's `int` raises for more than 4,300; none of it is worth a traceback."""
    got = ask(server.port, request(b"POST", CHAT, b"Content-Length: " + digits))

    assert got.error_code == (400, code)
    assert UNEXPECTED not in server.log


@pytest.mark.parametrize(
    "lines",
    [
        (b"Content-Type: application/json; charset=utf-8",),
        (b"CONTENT-TYPE: APPLICATION/JSON",),
        (b"Content-Type: application/vnd.x-1.y+json",),
        (OWN[1], b"Content-Encoding: Identity"),
    ],
)
def test_json_is_taken_under_each_of_its_types(
    server: Server, upstream: Upstream, lines: tuple[bytes, ...]
) -> None:
    """And goes on as plain JSON."""
    sent = request(b"POST", CHAT, *lines, body=BODY, own=NO_TYPE)

    assert ask(server.port, sent).status == 200
    assert upstream.openai.request.header("content-type") == "application/json"
    assert upstream.openai.request.header("content-encoding") is None


TYPE, CODING = "unsupported_media_type", "unsupported_content_encoding"


@pytest.mark.parametrize(
    ("code", "lines"),
    [
        (TYPE, ()),
        # What any page may have a browser send here, unasked (CORS).
        (TYPE, (b"Content-Type: text/plain;application/json",)),
        (TYPE, (b"Content-Type: application/x-www-form-urlencoded",)),
        (TYPE, (b"Content-Type: application/jsonl",)),
        (TYPE, (b"Content-Type: application/x-json",)),
        (CODING, (OWN[1], b"Content-Encoding: gzip")),
        (CODING, (OWN[1], b"Content-Encoding: identity, br")),
    ],
)
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
    providers={
        name: {"max_bytes_in_flight": IN_FLIGHT if name == "openai" else 1}
        for name in PROVIDERS
    },
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
        assert ask(server.port, request(body=BODY)).status == 200
        gate.open()
        assert raw.answer().status == 200

    assert openais.error_code == (503, "server_busy")
    assert openais.json["error"]["type"] == "server_error"
    assert anthropics.status == 503
    assert anthropics.json["error"]["type"] == "overloaded_error"
    assert openais.headers["retry-after"] == anthropics.headers["retry-after"] == "1"


def answered(status: int, body: bytes) -> Callable[[Server, Upstream], None]:
    """Get an answer."""

    def end(server: Server, _: Upstream) -> None:
        assert ask(server.port, request(body=body)).status == status

    return end


def broken_off(server: Server, upstream: Upstream) -> None:
    """Have the upstream break off."""
    upstream.openai.script(RESET)
    assert ask(server.port, CALL).status == 502


def left(server: Server, upstream: Upstream) -> None:
    """Leave before the answer."""
    gate = Gate()
    upstream.openai.script(gate)
    with Raw(server.port) as raw:
        raw.send(CALL)
        gate.wait_reached()


def left_inside_the_body(server: Server, _: Upstream) -> None:
    """Leave when most of the body is there, and counts."""
    with Raw(server.port) as raw:
        raw.send(CALL[:-10])
        eventually(lambda: ask(server.port, CALL).status == 503)


ENDINGS: dict[str, Callable[[Server, Upstream], None]] = {
    "answer": answered(200, LARGE),
    "error of the vendor": answered(404, encoded(chat("openai/none", user="x" * SIZE))),
    "error of this server": answered(400, b"x" * SIZE),
    "over the limit": answered(503, encoded(chat(user="x" * IN_FLIGHT))),
    "upstream breaks off": broken_off,
    "caller leaves": left,
    "caller leaves inside the body": left_inside_the_body,
}


@BUSY
@pytest.mark.parametrize("end", ENDINGS.values(), ids=ENDINGS)
def test_a_share_is_given_back(
    server: Server, upstream: Upstream, end: Callable[[Server, Upstream], None]
) -> None:
    """However a call ends, another has room after it."""
    end(server, upstream)

    assert eventually(lambda: ask(server.port, CALL).status == 200)
    assert UNEXPECTED not in server.log


@BUSY
def test_a_running_answer_holds_no_share(server: Server, upstream: Upstream) -> None:
    """A stream may last for minutes; its request has long been sent."""
    gate, first = Gate(), event({"n": 1})
    upstream.openai.script(*stream(first, gate, DONE))
    with Raw(server.port) as raw:
        raw.send(CALL)
        raw.read_until(first)
        assert ask(server.port, CALL).status == 200
        gate.open()
        assert raw.read_until(DONE)


def test_a_made_up_name_of_a_model_is_not_remembered() -> None:
    """Callers invent any number of them; of a listed one the provider is known."""
    listed = SimpleNamespace(identifier="a/listed", provider_resource_id="listed")
    asked = []

    async def models(_: str) -> list[object]:
        return [listed]

    async def provider_of(name: str, _: object) -> tuple[object, str]:
        asked.append(name)
        return object(), name

    table = SimpleNamespace(get_all_with_type=models, impls_by_provider_id={"a": 0})
    router = SimpleNamespace(routing_table=table, _get_model_provider=provider_of)
    server = SimpleNamespace(auth=None)
    stack: Any = SimpleNamespace(
        impls={Api.inference: router}, run_config=SimpleNamespace(server=server)
    )

    async def find_each_twice() -> None:
        routing = Routing(stack)
        for name in ("a/listed", "a/made-up") * 2:
            await routing.find(name, TABLE[CHAT], {})

    asyncio.run(find_each_twice())

    assert asked == ["a/listed", "a/made-up", "a/made-up"]
