"""Gemini's errors come in an array, and callers get them in OpenAI's form."""

import json

import pytest

from tests.support.http import CHAT_REQUEST, exchange
from tests.support.server import Server
from tests.support.upstream import Upstream
from tests.support.wire import EVENTS, JSON, Json, respond

THERE = JSON | {"Retry-After": "2"}


def array(**fields: object) -> bytes:
    error = {"code": 400, "message": 'é\n"', "status": "S"}
    return json.dumps([{"error": error | fields}], indent=2).encode()


@pytest.mark.parametrize(
    ("headers", "fields", "expected"),
    [
        (JSON, {"details": [{"a": 1}, {"reason": "REASON"}]}, ["S", "REASON"]),
        (EVENTS, {"details": [7, {"retryDelay": "34.07s"}]}, ["S", "S", "35"]),
        (JSON, {"details": 5, "status": 5}, ["api_error"] * 2),
        ({}, {"details": [{"reason": 7}], "status": None}, ["api_error"] * 2),
        (THERE, {"details": [{"retryDelay": "9s"}]}, ["S", "S", "2"]),
        (JSON, {"details": [{"retryDelay": "0s"}]}, ["S", "S", "0"]),
        (JSON, {"details": [{"retryDelay": "1s or so"}]}, ["S", "S"]),
        (JSON, {"details": [{"retryDelay": "9999999999s"}]}, ["S", "S"]),
        (JSON, {"details": [{"retryDelay": 7}]}, ["S", "S"]),
    ],
)
def test_an_error_is_unwrapped_and_says_when_to_try_again(
    server: Server, upstream: Upstream, headers: Json, fields: Json, expected: list[str]
) -> None:
    """In the header that clients read and whole seconds; one that is there stays."""
    upstream.openai.script(respond(array(**fields), 404, headers))

    got = exchange(server.port, CHAT_REQUEST)

    error = {"message": 'é\n"', "type": expected[0], "param": None, "code": expected[1]}
    assert (got.status, got.json) == (404, {"error": error})
    assert got.headers.get_list("content-type") == ["application/json"]
    assert got.headers.get_list("retry-after") == expected[2:]


ODD = {
    "an object": b'{"error":{"code":429,"details":[7,{"retryDelay":"9.5s"}]}}\n',
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
    upstream.openai.script(respond(ODD[kind], status, {"content-type": "text/json"}))

    got = exchange(server.port, CHAT_REQUEST)

    assert (got.status, got.headers["content-type"]) == (status, "text/json")
    assert got.body == ODD[kind]
    assert got.headers.get("retry-after") == ("10" if kind == "an object" else None)
