"""The errors that this server answers by itself to a request, row by row."""

import asyncio
import gzip
import socket
from collections.abc import Iterator

import httpx
import pytest
from starlette.types import Message

from lls_openai.body import CallerLeft, read_body
from lls_openai.errors import RequestTooLarge
from tests.calls import BEARER, CHAT, EMBEDDINGS, KEY, ROUTES, call, chat
from tests.server import Server
from tests.upstream import Upstream

pytest_plugins = ["tests.variants"]

MEBIBYTE = 1024 * 1024
FIVE_MODELS = (
    "anthropic/claude-haiku-4-5-20251001, gemini/gemini-2.5-flash-lite, "
    "openai-mini/gpt-4.1-nano, openai-mini/gpt-4o-mini, openai/gpt-4o"
)
NOT_AN_OBJECT = "The body is not a JSON object in UTF-8"
NO_MODEL = "The body names no model: give `model` as a string"
BAD_BODIES = {
    "nothing": b"",
    "spaces": b" \n",
    "null": b"null",
    "array": b'[{"model":"openai/gpt-4o"}]',
    "text": b'"openai/gpt-4o"',
    "number": b"1",
    "cut off": b'{"model":"openai/gpt-4o"',
    "something behind": b'{"model":"openai/gpt-4o"}{}',
    "comma too many": b'{"model":"openai/gpt-4o",}',
    "single quotes": b"{'model':'openai/gpt-4o'}",
    "not a number": b'{"model":"openai/gpt-4o","top_p":NaN}',
    "broken inside": b'{"model":"openai/gpt-4o","a":{"b":[1,}}',
    "a form": b"model=openai%2Fgpt-4o",
    "compressed": gzip.compress(chat()),
    "byte order mark": b"\xef\xbb\xbf" + chat(),
    "no UTF-8": b'{"model":"openai/gpt-4o","user":"\xff"}',
    "UTF-16": chat().decode().encode("utf-16"),
    # It stands for no character, so no UTF-8 can carry it on.
    "half of a surrogate pair": rb'{"model":"openai/gpt-4o","user":"\ud83d"}',
}
BODIES_WITHOUT_MODEL = {
    "none": b"{}",
    "null": b'{"model":null}',
    "number": b'{"model":4}',
    "list": b'{"model":["openai/gpt-4o"]}',
    "object": b'{"model":{"id":"openai/gpt-4o"}}',
    "other name": b'{"Model":"openai/gpt-4o"}',
    "further in": b'{"body":{"model":"openai/gpt-4o"}}',
}


def _invalid(message: str, param: str | None, code: str) -> dict[str, str | None]:
    kind = "invalid_request_error"
    return {"message": message, "type": kind, "param": param, "code": code}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("stream", [False, True])
def test_a_call_without_a_key_is_told_how_to_send_one(
    server: Server, upstream: Upstream, http: httpx.Client, route: str, *, stream: bool
) -> None:
    """401, with the header to send, and the scheme that RFC 9110 wants named."""
    answer = call(http, server.url, chat(stream=stream), route=route, headers={})

    expected = {
        "message": "No API key. Send yours with each request: "
        'X-LlamaStack-Provider-Data: {"passthrough_api_key": "<your key>"} '
        "or, where the server wants no token of its own there, "
        "Authorization: Bearer <your key>",
        "type": "authentication_error",
        "param": None,
        "code": "missing_api_key",
    }
    assert (401, expected, "Bearer", "application/json") == (
        answer.status,
        answer.error,
        answer.headers["www-authenticate"],
        answer.headers["content-type"],
    )
    assert upstream.openai.calls == []


@pytest.mark.parametrize("body", BAD_BODIES.values(), ids=BAD_BODIES)
@pytest.mark.parametrize("route", [CHAT, EMBEDDINGS])
def test_a_body_that_is_no_json_object_is_refused(
    server: Server, upstream: Upstream, http: httpx.Client, route: str, body: bytes
) -> None:
    """400, before anything is sent."""
    answer = call(http, server.url, body, route=route)

    expected = _invalid(NOT_AN_OBJECT, None, "invalid_request_body")
    assert (400, expected) == (answer.status, answer.error)
    assert upstream.openai.calls == []


@pytest.mark.parametrize(
    "body", BODIES_WITHOUT_MODEL.values(), ids=BODIES_WITHOUT_MODEL
)
def test_a_body_that_names_no_model_is_refused(
    server: Server, http: httpx.Client, body: bytes
) -> None:
    """400; the field at fault is `model`."""
    answer = call(http, server.url, body)

    expected = _invalid(NO_MODEL, "model", "invalid_request_body")
    assert (400, expected) == (answer.status, answer.error)


@pytest.mark.parametrize("model", ["gpt-4o", "", "/", "openai", "nobody/gpt-4o", "é\n"])
@pytest.mark.parametrize("route", [CHAT, EMBEDDINGS])
def test_a_model_of_no_provider_is_not_found(
    server: Server, upstream: Upstream, http: httpx.Client, model: str, route: str
) -> None:
    """404, with the models that are registered and the way to others."""
    answer = call(http, server.url, chat(model), route=route)

    message = (
        f"'{model}' is no model of a provider here. Registered: {FIVE_MODELS}. "
        "Another is called as <provider>/<the vendor's name for it>"
    )
    expected = _invalid(message, "model", "model_not_found")
    assert (404, expected) == (answer.status, answer.error)
    assert upstream.openai.calls == []


@pytest.mark.parametrize("model", ["nobody/" + "x" * 300, "openai/" + "x" * 300])
def test_a_name_too_long_for_a_model_is_not_repeated(
    server: Server, http: httpx.Client, model: str
) -> None:
    """404, with a message no longer than for any other name."""
    answer = call(http, server.url, chat(model))

    assert answer.error_code == (404, "model_not_found")
    assert answer.error["message"].startswith("That name is no model of a provider")


@pytest.mark.parametrize("provider", ["listed", "none-listed"])
def test_a_model_outside_allowed_models_is_not_found(
    various_server: Server, upstream: Upstream, http: httpx.Client, provider: str
) -> None:
    """404, with the models that the provider allows."""
    answer = call(http, various_server.url, chat(f"{provider}/gpt-4o-mini"))

    names = {"listed": "gpt-4o, m/1", "none-listed": "none"}[provider]
    message = f"This provider allows these models only: {names}"
    expected = _invalid(message, "model", "model_not_found")
    assert (404, expected) == (answer.status, answer.error)
    assert upstream.openai.calls == []


def test_a_model_of_another_type_is_refused(
    server: Server, upstream: Upstream, http: httpx.Client
) -> None:
    """A registered model that talks cannot embed; this is known here."""
    answer = call(http, server.url, chat(), route=EMBEDDINGS)

    message = "This model is not of the type embedding"
    expected = _invalid(message, "model", "invalid_request_body")
    assert (400, expected) == (answer.status, answer.error)
    assert upstream.openai.calls == []


def test_a_body_over_the_providers_limit_is_refused(
    various_server: Server, upstream: Upstream, http: httpx.Client
) -> None:
    """413, and at the limit it is not."""
    spare = 1000 - len(chat("small/gpt-4o", user=""))

    answers = [
        call(http, various_server.url, chat("small/gpt-4o", user="x" * size))
        for size in (spare, spare + 1)
    ]

    message = "The body is over the limit of 1,000 bytes"
    expected = _invalid(message, None, "request_too_large")
    assert [answer.status for answer in answers] == [200, 413]
    assert (expected, 1) == (answers[1].error, len(upstream.openai.calls))


def test_a_body_that_is_announced_too_large_is_not_waited_for(server: Server) -> None:
    """413 at once: the default limit is 64 MiB, and none of them has been sent."""
    head = (
        f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n"
        f"Content-Length: {64 * MEBIBYTE + 1}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as caller:
        caller.sendall(head.encode())
        answer = b""
        while not answer.endswith(b"}}") and (part := caller.recv(65536)):
            answer += part

    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"The body is over the limit of 67,108,864 bytes" in answer


def _read(chunks: Iterator[bytes], limit: int) -> bytes:
    """Read a body that comes in chunks, each taken when it is asked for."""

    async def receive() -> Message:
        chunk = next(chunks, None)
        if chunk is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": chunk, "more_body": bool(chunk)}

    return asyncio.run(read_body(receive, [], limit))


def test_a_body_that_turns_out_too_large_is_not_read_on() -> None:
    """What is over the limit is never held, and what is behind it never asked for."""
    chunks = iter([b"12345", b"67890", b"1", b"2", b"3", b""])

    with pytest.raises(RequestTooLarge):
        _read(chunks, 10)

    assert list(chunks) == [b"2", b"3", b""]
    assert _read(iter([b"12345", b"67890", b""]), 10) == b"1234567890"


def test_a_body_whose_caller_leaves_is_no_body() -> None:
    """There is nobody left to answer."""
    with pytest.raises(CallerLeft):
        _read(iter([b"12345"]), 10)


def test_an_error_leaves_the_connection_usable(
    server: Server, upstream: Upstream, http: httpx.Client
) -> None:
    """The next call on it is answered, though a body was not read before."""
    statuses = [
        call(http, server.url, chat(user="x" * size), headers=headers).status
        for size in (0, 100_000)
        for headers in ({}, BEARER)
    ]

    assert statuses == [401, 200, 401, 200]
    assert len(upstream.openai.calls) == 2
