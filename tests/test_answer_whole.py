"""What the caller gets is what the upstream answered: status, body and headers."""

import httpx
import pytest

from tests.calls import ROUTES, Answer, call, chat
from tests.scripts import JSON, answering
from tests.server import Server
from tests.upstream import Connection, Handler, Request, Upstream

MEBIBYTE = 1024 * 1024
RELAYED = {
    "x-request-id": "req_1",
    "request-id": "req_2",
    "retry-after": "Wed, 21 Oct 2026 07:28:00 GMT",
    "retry-after-ms": "1500",
    "x-should-retry": "false",
    "x-ratelimit-limit-requests": "10000",
    "x-ratelimit-reset-tokens": "6m0s",
    "anthropic-ratelimit-tokens-remaining": "1",
    "openai-processing-ms": "12",
    "openai-version": "2020-10-01",
    "openai-organization": "org-1",
    "x-gemini-service-tier": "standard",
    "content-type": "application/json; charset=UTF-8",
}
NOT_RELAYED = {
    "access-control-allow-origin": "https://elsewhere.example",
    "alt-svc": 'h3=":443"',
    "cf-ray": "1-FRA",
    "connection": "keep-alive, x-hop",
    "etag": '"1"',
    "keep-alive": "timeout=1",
    "link": "<https://elsewhere.example>; rel=preload",
    "location": "https://elsewhere.example/",
    "proxy-authenticate": "Basic",
    "server": "cloudflare",
    "set-cookie": "a=b",
    "strict-transport-security": "max-age=1",
    "vary": "Origin",
    "via": "1.1 google",
    "x-hop": "1",
}
BODIES = {
    "as laid out": b'{\n  "id": "1",\t"usage": {"a": 1.0, "b": 1e-7}\n}\n',
    "numbers": b'{"created":12345678901234567890123,"x":-0.0}',
    "letters": '{"a":"é 😀 \\u00e9 \u2028"}'.encode(),
    "another model's name": b'{"model":"gpt-4o-2024-08-06","choices":[]}',
    "no JSON": b"<!doctype html><title>502 Bad Gateway</title>",
    "no UTF-8": bytes(range(256)),
    "an array": b'[{"error":{"message":"not an error: the status is 200"}}]',
    "nothing": b"",
}
STATUSES = [200, 201, 202, 206, 300, 301, 302, 307, 308]
STATUSES += [400, 401, 402, 403, 404, 405, 408, 409, 413, 415, 418, 422, 424, 429]
STATUSES += [451, 498, 499, 500, 501, 502, 503, 504, 520, 529, 599]


def _answer(
    server: Server,
    upstream: Upstream,
    http: httpx.Client,
    script: Handler,
) -> Answer:
    """Let a script answer, and give what the caller gets."""
    upstream.openai.answer_with(script)
    return call(http, server.url, chat())


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("route", ROUTES)
def test_a_body_arrives_byte_for_byte(
    server: Server, upstream: Upstream, http: httpx.Client, route: str, body: bytes
) -> None:
    """Whatever is in it; its length is told."""
    upstream.openai.answer_with(answering(body))

    answer = call(http, server.url, chat("openai/m-1"), route=route)

    expected = (200, body, "application/json", str(len(body)))
    assert expected == (
        answer.status,
        answer.body,
        answer.headers["content-type"],
        answer.headers["content-length"],
    )


@pytest.mark.parametrize("status", STATUSES)
def test_a_status_arrives_with_its_body(
    server: Server, upstream: Upstream, http: httpx.Client, status: int
) -> None:
    """Success or error, common or not; of a redirect no more than its status."""
    body = b'{"error":{"message":"m","type":"t","param":"p","code":"c","more":[1]}}'
    headers = JSON | {"location": "http://127.0.0.1:1/"}

    answer = _answer(
        server, upstream, http, answering(body, status=status, headers=headers)
    )

    assert (status, body, None, 1) == (
        answer.status,
        answer.body,
        answer.headers.get("location"),
        len(upstream.openai.calls),
    )


@pytest.mark.parametrize("status", [204, 304])
def test_a_status_without_a_body_arrives_without_one(
    server: Server, upstream: Upstream, http: httpx.Client, status: int
) -> None:
    """Nor with a length, which would belong to a body; the connection lives on."""

    async def script(_request: Request, connection: Connection) -> None:
        head = f"HTTP/1.1 {status} None\r\nx-request-id: req_1\r\n\r\n"
        await connection.write(head.encode())

    upstream.openai.answer_with(script, times=1)
    answer = call(http, server.url, chat())
    after = call(http, server.url, chat())

    assert (status, b"", "req_1", None, 200) == (
        answer.status,
        answer.body,
        answer.headers["x-request-id"],
        answer.headers.get("content-length"),
        after.status,
    )


@pytest.mark.parametrize("status", [200, 429, 500])
def test_the_headers_of_design_are_relayed(
    server: Server, upstream: Upstream, http: httpx.Client, status: int
) -> None:
    """On answers and on errors, with their values."""
    answer = _answer(server, upstream, http, answering(status=status, headers=RELAYED))

    assert {name: answer.headers[name] for name in RELAYED} == RELAYED


@pytest.mark.parametrize("status", [200, 429])
def test_no_other_header_is_relayed(
    server: Server, upstream: Upstream, http: httpx.Client, status: int
) -> None:
    """No cookie, no policy for a browser, nothing of the connection behind."""
    answer = _answer(
        server,
        upstream,
        http,
        answering(status=status, headers=JSON | NOT_RELAYED),
    )

    own = {"content-type", "content-length", "date", "server"}
    assert (own, "uvicorn") == (set(answer.headers), answer.headers["server"])


def test_a_header_that_comes_twice_arrives_twice(
    server: Server, upstream: Upstream, http: httpx.Client
) -> None:
    """Its values are not put together."""
    twice = [*JSON.items(), ("X-Request-Id", "a"), ("x-request-id", "b, c")]

    answer = _answer(server, upstream, http, answering(headers=twice))

    assert answer.headers.get_list("x-request-id") == ["a", "b, c"]


@pytest.mark.parametrize("size", [MEBIBYTE - 1, MEBIBYTE, MEBIBYTE + 1, 9 * MEBIBYTE])
@pytest.mark.parametrize("status", [200, 500])
def test_a_large_answer_arrives_whole(
    server: Server, upstream: Upstream, http: httpx.Client, size: int, status: int
) -> None:
    """Below and above what is held back, no two parts alike."""
    body = b"".join(b"%08x" % number for number in range(size // 8 + 1))[:size]

    answer = _answer(
        server, upstream, http, answering(body, status=status, headers=RELAYED)
    )

    assert (status, "req_1") == (answer.status, answer.headers["x-request-id"])
    assert body == answer.body


def test_a_large_answer_in_chunks_arrives_whole(
    server: Server, upstream: Upstream, http: httpx.Client
) -> None:
    """An upstream need not say the length."""
    parts = [b"%d" % number * 10_000 for number in range(200)]

    async def script(_request: Request, connection: Connection) -> None:
        await connection.head(200, JSON)
        for part in parts:
            await connection.chunk(part)
        await connection.end()

    answer = _answer(server, upstream, http, script)

    assert b"".join(parts) == answer.body


def test_an_answer_that_ends_with_its_connection_arrives_whole(
    server: Server, upstream: Upstream, http: httpx.Client
) -> None:
    """As servers of HTTP/1.0 do it."""

    async def script(_request: Request, connection: Connection) -> None:
        await connection.write(b"HTTP/1.0 200 OK\r\ncontent-type: text/html\r\n\r\n")
        await connection.write(b"<p>to the end")
        connection.close()

    answer = _answer(server, upstream, http, script)

    assert (answer.status, answer.body) == (200, b"<p>to the end")


@pytest.mark.parametrize("code", [100, 102, 103])
def test_an_interim_answer_is_not_the_answer(
    server: Server, upstream: Upstream, http: httpx.Client, code: int
) -> None:
    """What comes before the answer, such as 103 with hints, is passed over."""

    async def script(_request: Request, connection: Connection) -> None:
        await connection.write(f"HTTP/1.1 {code} Wait\r\nx-hint: 1\r\n\r\n".encode())
        await connection.answer(201, JSON, b"{}")

    answer = _answer(server, upstream, http, script)

    assert (answer.status, answer.body) == (201, b"{}")


@pytest.mark.parametrize(
    "usage",
    [
        b'{"completion_tokens":null}',
        b'{"completion_tokens":"12"}',
        b'{"completion_tokens":-1}',
        b'{"completion_tokens":99999999999999999999999999}',
        b'["completion_tokens"]',
        b'{"completion_tokens":0}',
    ],
)
def test_what_is_measured_changes_nothing(
    server: Server, upstream: Upstream, http: httpx.Client, usage: bytes
) -> None:
    """Token counts are read for the metrics, and may be of any form."""
    body = b'{"usage":' + usage + b"}"

    answer = _answer(server, upstream, http, answering(body))

    assert (200, body) == (answer.status, answer.body)
