"""Gemini's errors come in an array, and callers get them in OpenAI's form."""

import json

import pytest

from tests.support.http import ask, chat, encoded, request
from tests.support.server import Server
from tests.support.upstream import Upstream
from tests.support.wire import EVENTS, JSON, Json, answer

CALL = request(body=encoded(chat("gemini/gemini-2.5-flash-lite")))


def array(**fields: object) -> bytes:
    error = {"code": 400, "message": 'é\n"', "status": "S"}
    return json.dumps([{"error": error | fields}], indent=2).encode()


@pytest.mark.parametrize(
    ("headers", "fields", "expected"),
    [
        (JSON, {"details": [{"links": []}, {"reason": "REASON"}]}, ["S", "REASON"]),
        (EVENTS, {"details": [7, {}]}, ["S", "S"]),
        ({}, {"details": 5, "status": 5}, ["api_error"] * 2),
        (JSON, {"details": [{"reason": 7}], "status": None}, ["api_error"] * 2),
    ],
)
def test_an_error_is_unwrapped(
    server: Server, upstream: Upstream, headers: Json, fields: Json, expected: list[str]
) -> None:
    upstream.openai.script(answer(array(**fields), 404, headers))

    got = ask(server.port, request(body=encoded(chat())))

    error = {"message": 'é\n"', "type": expected[0], "param": None, "code": expected[1]}
    assert (got.status, got.json) == (404, {"error": error})
    assert got.headers.get_list("content-type") == ["application/json"]


ODD = {
    "another vendor's": b'{"error": {"message":"m","type":"t","details":[{}]}}\n',
    "two": b'[{"error":{"message":"1"}},{"error":{"message":"2"}}]',
    "message is no text": b'[{"error":{"message":null}}]',
    "half": b'[{"error":{"message":"m"}}',
    "deep": b'[{"error":{"message":"m","details":' + b"[" * 100_000,
    "no UTF-8": b'[{"error":{"message":"\xff"}}]',
    "an error with the status 399": array(),
}


@pytest.mark.parametrize("kind", ODD)
def test_other_bodies_stay_as_is(server: Server, upstream: Upstream, kind: str) -> None:
    status = 399 if kind.endswith("399") else 400
    upstream.gemini.script(answer(ODD[kind], status, {"content-type": "text/json"}))

    got = ask(server.port, CALL)

    assert (got.status, got.headers["content-type"]) == (status, "text/json")
    assert got.body == ODD[kind]


OBJECT = b'{"error":{"code":429,"details":[7,{"retryDelay":"9.5s"}]}}'


@pytest.mark.parametrize(
    ("error", "given", "expected"),
    [
        ("34.07s", {}, ["35"]),
        ("0s", {}, ["0"]),
        ("1s or so", {}, []),
        ("9999999999s", {}, []),
        (7, {}, []),
        (OBJECT, {}, ["10"]),
        (OBJECT, {"Retry-After": "2"}, ["2"]),
    ],
)
def test_when_to_try_again_becomes_the_header_that_clients_read(
    server: Server, upstream: Upstream, error: object, given: Json, expected: object
) -> None:
    """In whole seconds, in an array and in an object; a header that is there stays."""
    delay = {"@type": "….RetryInfo", "retryDelay": error}
    body = error if isinstance(error, bytes) else array(details=[delay])
    upstream.gemini.script(answer(body, 429, JSON | given))

    got = ask(server.port, CALL)

    assert got.headers.get_list("retry-after") == expected
    assert (got.body == body) == (body == OBJECT)
