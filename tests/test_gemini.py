"""Gemini's errors come in an array, and callers get them in OpenAI's form."""

import json
from typing import Any

import pytest

from tests.support.http import ask, chat, encoded, request
from tests.support.server import Server
from tests.support.upstream import Upstream
from tests.support.wire import EVENTS, JSON, answer

CALL = request(body=encoded(chat("gemini/gemini-2.5-flash-lite")))
ERROR = {
    "code": 400,
    "message": "API key not valid.",
    "status": "INVALID_ARGUMENT",
    "details": [{"links": []}, {"reason": "API_KEY_INVALID"}],
}


def array(**fields: object) -> bytes:
    """An error as Gemini sends it."""
    return json.dumps([{"error": ERROR | fields}], indent=2).encode()


def unwrapped(message: str, kind: str, code: str) -> dict[str, object]:
    """The same as OpenAI's clients read it."""
    error = {"message": message, "type": kind, "param": None, "code": code}
    return {"error": error}


UNWRAPPED = unwrapped("API key not valid.", "INVALID_ARGUMENT", "API_KEY_INVALID")


@pytest.mark.parametrize("headers", [JSON, EVENTS, {}])
def test_an_error_is_unwrapped(
    server: Server, upstream: Upstream, headers: dict[str, str]
) -> None:
    """Status unchanged, and JSON whatever its type said; the reason is the code."""
    upstream.gemini.script(answer(array(), 400, headers))

    got = ask(server.port, CALL)

    assert (got.status, got.json) == (400, UNWRAPPED)
    assert got.headers.get_list("content-type") == ["application/json"]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ({"message": 'é\n"', "status": "S"}, ('é\n"', "S", "S")),
        ({"message": "m", "status": 5, "details": 5}, ("m", "api_error", "api_error")),
        ({"message": "m", "status": "S", "details": [7, {}]}, ("m", "S", "S")),
        ({"message": "m", "details": [{"reason": 7}]}, ("m", "api_error", "api_error")),
    ],
)
def test_an_error_with_less_in_it_is_unwrapped(
    server: Server, upstream: Upstream, error: dict[str, Any], expected: tuple[str, ...]
) -> None:
    """The four fields are there whatever Google leaves out."""
    upstream.gemini.script(answer(json.dumps([{"error": error}]).encode(), 404))

    got = ask(server.port, CALL)

    assert (got.status, got.json) == (404, unwrapped(*expected))


ODD = {
    "another vendor's": b'{"error": {"message":"m","type":"t","details":[{}]}}\n',
    "two": b'[{"error":{"message":"1"}},{"error":{"message":"2"}}]',
    "a text": b'[{"error":"m"}]',
    "message is no text": b'[{"error":{"message":null}}]',
    "half": b'[{"error":{"message":"m"}}',
    "deep": b'[{"error":{"message":"m","details":' + b"[" * 100_000,
    "huge": b"[" + b" " * 1_100_000 + b'{"error":{"message":"m"}}]',
    "no UTF-8": b'[{"error":{"message":"\xff"}}]',
    "nothing": b"",
}


@pytest.mark.parametrize("body", ODD.values(), ids=ODD)
def test_what_is_no_such_array_is_left_as_it_is(
    server: Server, upstream: Upstream, body: bytes
) -> None:
    """Byte for byte."""
    upstream.gemini.script(answer(body, 400, {"content-type": "text/json"}))

    got = ask(server.port, CALL)

    assert (got.status, got.headers["content-type"]) == (400, "text/json")
    assert got.body == body


def test_the_status_decides_and_not_the_vendor(
    server: Server, upstream: Upstream
) -> None:
    """A gateway in front of Gemini may stand behind any provider."""
    for status in (399, 403):
        upstream.openai.script(answer(array(), status))

    got = [ask(server.port, request(body=encoded(chat()))) for _ in range(2)]

    assert (got[0].body, got[1].json) == (array(), UNWRAPPED)


def retry_info(delay: object) -> bytes:
    """An error that says when to try again."""
    return array(details=[{"@type": "….RetryInfo", "retryDelay": delay}])


OBJECT = b'{"error":{"code":429,"details":[7,{"retryDelay":"9.5s"}]}}'


@pytest.mark.parametrize(
    ("body", "given", "expected"),
    [
        (retry_info("34.07s"), {}, ["35"]),
        (retry_info("0s"), {}, ["0"]),
        (retry_info("1s or so"), {}, []),
        (retry_info("9999999999s"), {}, []),
        (retry_info(7), {}, []),
        (OBJECT, {}, ["10"]),
        (OBJECT, {"Retry-After": "2"}, ["2"]),
    ],
)
def test_when_to_try_again_becomes_the_header_that_clients_read(
    server: Server,
    upstream: Upstream,
    body: bytes,
    given: dict[str, str],
    expected: object,
) -> None:
    """In whole seconds, in an array and in an object; a header that is there stays."""
    upstream.gemini.script(answer(body, 429, JSON | given))

    got = ask(server.port, CALL)

    assert got.headers.get_list("retry-after") == expected
    assert (got.body == body) == (body == OBJECT)
