"""Gemini's errors come in an array; callers get them in OpenAI's form."""

import gzip
import json
import zlib
from typing import Any

import httpx
import pytest

from tests.calls import BEARER, Answer, call, chat
from tests.scripts import JSON, answering
from tests.server import Server
from tests.upstream import Upstream

MODEL = "gemini/gemini-2.5-flash-lite"
ERROR: dict[str, Any] = {
    "code": 400,
    "message": "API key not valid.",
    "status": "INVALID_ARGUMENT",
    "details": [
        {"@type": "type.googleapis.com/google.rpc.Help", "links": []},
        {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": "API_KEY_INVALID",
        },
    ],
}
UNWRAPPED = {
    "message": "API key not valid.",
    "type": "INVALID_ARGUMENT",
    "param": None,
    "code": "API_KEY_INVALID",
}
ASKED = pytest.mark.parametrize("stream", [False, True])


def _answer(
    server: Server,
    upstream: Upstream,
    http: httpx.Client,
    body: bytes,
    **headers: str,
) -> Answer:
    """Let Gemini answer with 400, and give what the caller gets."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    upstream.gemini.answer_with(answering(body, status=400, headers=JSON | named))
    return call(http, server.url, chat(MODEL))


@ASKED
def test_an_error_is_unwrapped(
    server: Server, upstream: Upstream, http: httpx.Client, *, stream: bool
) -> None:
    """Status unchanged; the reason is the code, and Google's status the type."""
    body = json.dumps([{"error": ERROR}], indent=2).encode()
    upstream.gemini.answer_with(answering(body, status=400))

    answer = call(http, server.url, chat(MODEL, stream=stream))

    assert (400, UNWRAPPED, str(len(answer.body))) == (
        answer.status,
        answer.error,
        answer.headers["content-length"],
    )


@ASKED
@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("gemini-2.5-flash-lite", (400, "API_KEY_INVALID")),
        ("rate-limited", (429, "RESOURCE_EXHAUSTED")),
        ("overloaded", (503, "UNAVAILABLE")),
        ("server-error", (500, "INTERNAL")),
        ("unknown", (404, "NOT_FOUND")),
    ],
)
def test_every_error_of_gemini_has_a_code(
    server: Server,
    http: httpx.Client,
    model: str,
    expected: tuple[int, str],
    *,
    stream: bool,
) -> None:
    """As the mock upstream words them: a good key, but for the model that is known."""
    key = "wrong" if model.startswith("gemini") else "good"
    body = chat(f"gemini/{model}", stream=stream)

    answer = call(http, server.url, body, headers={"Authorization": f"Bearer {key}"})

    assert expected == answer.error_code
    assert {"message", "type", "param", "code"} == set(answer.error)


@pytest.mark.parametrize("coding", ["gzip", "GZip"])
def test_a_compressed_error_is_unwrapped(
    server: Server, upstream: Upstream, http: httpx.Client, coding: str
) -> None:
    """Google compresses errors too; unwrapped, it is not compressed any more."""
    body = gzip.compress(json.dumps([{"error": ERROR}]).encode())

    answer = _answer(
        server, upstream, http, body, content_encoding=coding, retry_after="3"
    )

    assert (
        answer.status,
        answer.error,
        answer.headers.get("content-encoding"),
        answer.headers["retry-after"],
    ) == (400, UNWRAPPED, None, "3")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ({"message": "m"}, ("m", "api_error", None)),
        ({"message": "m", "status": "S"}, ("m", "S", "S")),
        ({"message": "m", "status": "S", "details": []}, ("m", "S", "S")),
        ({"message": "m", "status": "S", "details": [7, {}]}, ("m", "S", "S")),
        ({"message": "m", "status": "S", "details": {"a": 1}}, ("m", "S", "S")),
        ({"message": "m", "status": None, "code": 400}, ("m", "api_error", None)),
        ({"message": "m", "status": 5}, ("m", "api_error", None)),
        ({"message": 'é\n"', "status": "S"}, ('é\n"', "S", "S")),
    ],
)
def test_an_error_with_less_in_it_is_unwrapped(
    server: Server,
    upstream: Upstream,
    http: httpx.Client,
    error: dict[str, Any],
    expected: tuple[str, str, str | None],
) -> None:
    """The four fields are there whatever Google leaves out."""
    answer = _answer(server, upstream, http, json.dumps([{"error": error}]).encode())

    message, kind, code = expected
    assert {
        "message": message,
        "type": kind,
        "param": None,
        "code": code or kind,
    } == answer.error


@pytest.mark.parametrize(
    "body",
    [
        json.dumps({"error": ERROR}).encode(),
        b"[]",
        b'[{"error":{"message":"1"}},{"error":{"message":"2"}}]',
        b'[{"error":"m"}]',
        b'[{"error":{"message":null}}]',
        b'[{"error":{"code":400}}]',
        b'[{"fault":{"message":"m"}}]',
        b"[[",
        b"[" * 100_000,
        b"",
        b"<html>",
    ],
    ids=lambda body: body[:30].decode(),
)
def test_what_is_no_such_array_is_left_as_it_is(
    server: Server, upstream: Upstream, http: httpx.Client, body: bytes
) -> None:
    """Byte for byte."""
    answer = _answer(server, upstream, http, body)

    assert (400, body) == (answer.status, answer.body)


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", b"not gzip"),
        ("gzip", gzip.compress(b"[" + b" " * 10_000_000)),
        ("gzip", gzip.compress(json.dumps([{"error": ERROR}]).encode())[:-20]),
        ("deflate", zlib.compress(json.dumps([{"error": ERROR}]).encode())),
        ("gzip, gzip", gzip.compress(b"[]")),
        ("br", b"[{"),
    ],
)
def test_what_cannot_be_unpacked_is_left_as_it_is(
    server: Server, upstream: Upstream, http: httpx.Client, coding: str, body: bytes
) -> None:
    """Broken, in another coding, or a few bytes that would become megabytes."""
    answer = _answer(server, upstream, http, body, content_encoding=coding)

    assert (400, body, coding) == (
        answer.status,
        answer.body,
        answer.headers["content-encoding"],
    )


def test_an_array_that_is_no_error_is_left_as_it_is(
    server: Server, upstream: Upstream, http: httpx.Client
) -> None:
    """The status decides what is an error."""
    body = json.dumps([{"error": ERROR}]).encode()
    upstream.gemini.answer_with(answering(body))

    assert body == call(http, server.url, chat(MODEL)).body


def test_it_is_the_form_that_is_unwrapped_and_not_the_vendor(
    server: Server, upstream: Upstream, http: httpx.Client
) -> None:
    """A gateway before Gemini may stand behind any provider."""
    body = json.dumps([{"error": ERROR}]).encode()
    upstream.openai.answer_with(answering(body, status=403))

    answer = call(http, server.url, chat(), headers=BEARER)

    assert (answer.status, answer.error) == (403, UNWRAPPED)


@pytest.mark.parametrize(
    ("delay", "expected"),
    [("34.07s", "35"), ("1s", "1"), ("0s", "0"), ("soon", None), (7, None)],
)
def test_when_to_try_again_becomes_the_header_that_sdks_read(
    server: Server, upstream: Upstream, http: httpx.Client, delay: object, expected: str
) -> None:
    """Google says it in the body alone, which is not kept: in whole seconds."""
    detail = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}
    body = json.dumps([{"error": ERROR | {"details": [detail]}}]).encode()

    answer = _answer(server, upstream, http, body)

    assert expected == answer.headers.get("retry-after")


def test_googles_own_header_goes_before_what_the_body_says(
    server: Server, upstream: Upstream, http: httpx.Client
) -> None:
    """One `Retry-After`, the upstream's."""
    body = json.dumps([{"error": ERROR | {"details": [{"retryDelay": "9s"}]}}]).encode()

    answer = _answer(server, upstream, http, body, retry_after="2")

    assert answer.headers.get("retry-after") == "2"
