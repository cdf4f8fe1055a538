"""What the caller gets is what the upstream answered: status, body and headers."""

import gzip
import re
from contextlib import nullcontext

import httpx
import pytest

from tests.support import http, wire
from tests.support.http import (
    CHAT,
    ROUTES,
    RawConnection,
    bearer,
    chat,
    exchange,
    request,
)
from tests.support.server import Server
from tests.support.upstream import Upstream
from tests.support.wire import (
    EVENTS,
    JSON,
    Gate,
    Step,
    chunk,
    respond,
    response_head,
    stream,
)

# Pretty-printed, with numbers, escapes and a byte that no parser would give back.
BODY = b'{\n  "model": "gpt-4o-2024-08-06",\t"n": [1e-7, -0.0], "s": "\\u00e9\xff"}\n'
RELAYED = """x-request-id request-id retry-after retry-after-ms x-should-retry
    x-ratelimit-limit-requests x-ratelimit-reset-tokens cf-ray traceresponse
    anthropic-ratelimit-tokens-remaining anthropic-organization-id server-timing
    openai-processing-ms openai-version openai-organization openai-project
    openai-project x-gemini-service-tier www-authenticate cache-control"""
NOT_RELAYED = """access-control-allow-origin alt-svc keep-alive location
    proxy-authenticate server set-cookie strict-transport-security x-hop"""
STATUSES = [299, 307, 400, 401, 429, 500, 529, 599]
BODIES = {"gzip": gzip.compress(BODY), "identity": BODY, "none": b""}
CASES = [*zip([*ROUTES, *ROUTES[:2]], STATUSES, ["gzip", "identity"] * 4, strict=True)]
# These have no body, and so no length.
CASES += [(CHAT, 204, "none"), (CHAT, 304, "none")]


@pytest.mark.parametrize(("path", "status", "coding"), CASES)
def test_an_answer_passes_as_the_upstream_sent_it(
    server: Server, upstream: Upstream, path: str, status: int, coding: str
) -> None:
    body = BODIES[coding]
    relayed = [(name, f"{n}; {name}") for n, name in enumerate(RELAYED.split())]
    relayed += [("content-type", "application/json; a=b"), ("content-encoding", coding)]
    dropped = [("connection", "x-hop"), *((name, "1") for name in NOT_RELAYED.split())]
    upstream.openai.script(respond(body, status, relayed + dropped))

    got = exchange(server.port, request(path=path, body=b'{"model":"openai/m-1"}'))

    own = {"content-length": str(len(body))} if body else {}
    own |= {"server": "uvicorn", "date": got.headers["date"]}
    assert (got.status, got.body) == (status, body)
    assert sorted(got.headers.multi_items()) == sorted([*relayed, *own.items()])
    assert len(upstream.openai.requests) == 1


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"x-request-id": "req_a", "request-id": "req_b"}, "req_a"),
        ({"request-id": "req_c"}, "req_c"),
        ({}, "req_[0-9a-f]{32}"),
        # RFC 9110, section 5.5: no value of a header; uvicorn would raise.
        ({"x-request-id": "\x1b[31m", "cf-ray": "\x01"}, "req_[0-9a-f]{32}"),
    ],
)
def test_an_answer_and_its_access_line_have_one_request_id(
    server: Server, upstream: Upstream, headers: dict[str, str], expected: str
) -> None:
    upstream.openai.script(respond(headers=JSON | headers))

    got = exchange(server.port, http.CHAT_REQUEST)

    assert re.fullmatch(expected, request_id := got.headers["x-request-id"])
    assert "cf-ray" not in got.headers
    assert len(server.wait_access_log(request_id=request_id)) == 1


BIG = b"x" * 3 * http.MEBIBYTE
ARRIVING = {
    "audio": (200, "audio/mpeg", b"half"),
    "over 1 MiB": (200, "application/json", b"x" * (http.MEBIBYTE + 1)),
    "an error over 1 MiB": (500, "text/html", BIG),
}


CHUNKED = {"transfer-encoding": "chunked"}
LENGTH = {"content-length": ""}
# How the rest is framed, and what it is; a break in it is none.
RESTS: dict[str, tuple[dict[str, str], Step]] = {
    "chunks": (CHUNKED, chunk(b"rest") + wire.LAST_CHUNK),
    "a length": (LENGTH, b"rest"),
    "a break in chunks": (CHUNKED, wire.CLOSE),
    "a break without a length": ({}, wire.RESET),
}


@pytest.mark.parametrize("rest", RESTS)
@pytest.mark.parametrize("kind", ARRIVING)
def test_what_is_not_held_passes_as_it_arrives(
    upstream: Upstream, client: httpx.Client, kind: str, rest: str
) -> None:
    """What is no JSON or too large; when it breaks off, so does the connection."""
    (status, content_type, first), (framing, end) = ARRIVING[kind], RESTS[rest]
    headers = {"content-type": content_type} | framing
    if framing is LENGTH:
        headers["content-length"] = str(len(first) + 4)
    gate, framed = Gate(), chunk(first) if framing is CHUNKED else first
    upstream.openai.script(response_head(status, headers) + framed, gate, end)
    is_whole = isinstance(end, bytes)

    with client.stream("POST", CHAT, json=chat(), headers=bearer()) as got:
        pieces = got.iter_raw(len(first))
        assert next(pieces) == first
        gate.open()
        with nullcontext() if is_whole else pytest.raises(httpx.RemoteProtocolError):
            assert [*pieces] == [b"rest"]

    assert (got.status_code, got.headers["content-type"]) == (status, content_type)
    assert ("content-length" in got.headers) == (framing is LENGTH)


CLOSED = "The upstream closed the connection before its response headers were complete"
RESET = CLOSED.replace("closed", "reset")
AFTER_1 = "The upstream closed the connection after 1 byte of the response body"
AFTER_MIB = AFTER_1.replace("1 byte", "1,048,576 bytes")
RESET_AFTER_2 = "The upstream reset the connection after 2 bytes of the response body"
NOT_HTTP = "The upstream's response is not valid HTTP: "
OK = b"HTTP/1.1 200 OK\r\n"
IN_CHUNKS = response_head(200, JSON | CHUNKED)
PAGE = {"content-type": "text/html", "content-length": "9"}
OTHER_JSON = {"content-type": "Application/LD+JSON;v=1", "content-length": "9"}
# What the upstream writes before it closes, and how that is told.
FAULTS: dict[str, tuple[str, list[Step]]] = {
    "nothing": (CLOSED, []),
    "a reset": (RESET, [wire.RESET]),
    "half a head": (CLOSED, [OK + b"content-type: app"]),
    "only a 1xx": (CLOSED, [response_head(103, {})]),
    "half a body": (AFTER_1, [response_head(200, OTHER_JSON) + b"{"]),
    "half a body of no type": (
        AFTER_1,
        [response_head(200, {"content-length": "9"}) + b"{"],
    ),
    "half an error page": (AFTER_1, [response_head(503, PAGE) + b"<"]),
    "half of 1 MiB": (AFTER_MIB, [IN_CHUNKS, chunk(b" " * http.MEBIBYTE)]),
    # Without a length it would end with its connection, but only in order.
    "all but its end": (RESET_AFTER_2, [response_head(200, JSON) + b"{}", wire.RESET]),
    "another protocol": (
        NOT_HTTP + "its status is 101",
        [response_head(101, {"upgrade": "x"})],
    ),
    "status 600": (
        NOT_HTTP + "its status is 600",
        [response_head(600, {"content-length": "0"})],
    ),
    "no HTTP": (
        NOT_HTTP + "Expected HTTP/, RTSP/ or ICE/",
        [b"\x16\x03\x01\x02\x00hello\r\n\r\n"],
    ),
    "an endless header": (
        NOT_HTTP + "its headers are over 262,144 bytes",
        [OK + b"x: " + b"x" * 300_000],
    ),
    "no chunk": (
        NOT_HTTP + "Invalid character in chunk size",
        [IN_CHUNKS + b"none\r\n"],
    ),
}


@pytest.mark.parametrize(("message", "steps"), FAULTS.values(), ids=FAULTS)
def test_no_whole_answer_is_an_error(
    server: Server, upstream: Upstream, message: str, steps: list[Step]
) -> None:
    """502; nothing of it is relayed or retried, on a connection that was sound."""
    exchange(server.port, http.CHAT_REQUEST)
    upstream.openai.script(*steps, wire.CLOSE, times=None)

    got = exchange(server.port, http.CHAT_REQUEST)

    error = {"message": message, "type": "server_error", "param": None}
    error["code"] = "upstream_unreachable"
    assert (got.status, got.json) == (502, {"error": error})
    assert len(upstream.openai.requests) == 2


@pytest.mark.parametrize("body", [b"{}", BIG], ids=["small", "large"])
@pytest.mark.parametrize("kind", [JSON, EVENTS], ids=str)
def test_a_caller_of_http_1_0_gets_no_chunks(
    server: Server, upstream: Upstream, kind: dict[str, str], body: bytes
) -> None:
    """It knows none: the end of the connection is the end of the answer."""
    half = len(body) // 2
    upstream.openai.script(*stream(body[:half], body[half:], headers=kind))

    with RawConnection(server.port) as raw:
        raw.send(http.CHAT_REQUEST.replace(b"HTTP/1.1", b"HTTP/1.0", 1))
        start, _, got = raw.read_to_end().partition(b"\r\n\r\n")

    assert got == body
    assert b"transfer-encoding" not in start.lower()
