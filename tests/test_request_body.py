"""Request bodies that are rejected before a provider is chosen."""

import pytest

from tests.support.http import (
    CHAT,
    CHAT_REQUEST,
    MEBIBYTE,
    RawConnection,
    exchange,
    request,
)
from tests.support.server import Server
from tests.support.upstream import Upstream
from tests.support.wire import respond

START = b'{"model":"openai/m-1",'


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"model=a", id="form"),
        pytest.param(b"null", id="null"),
        pytest.param(b'["model"]', id="array"),
        pytest.param('{"model":"openai/m-1"}'.encode("utf-16"), id="utf-16"),
        pytest.param(START + b"}}", id="two-closing-braces"),
        pytest.param(START + b'"a":NaN}', id="NaN"),
        pytest.param(START + b'"a":"\xff"}', id="invalid-utf-8-value"),
        pytest.param(START + b'"\xe9":1}', id="invalid-utf-8-name"),
        pytest.param(START + b'"a":"\xed\xa0\x80"}', id="surrogate-in-utf-8"),
        pytest.param(START + b'"a":1}\xf0\x9f', id="truncated-utf-8"),
        # UTF-8 is checked in pieces of 64 KiB.
        pytest.param(
            START + b'"a":"' + b"a" * 65_536 + b'\xff"}',
            id="invalid-utf-8-after-64-kib",
        ),
        pytest.param(b"[" * MEBIBYTE, id="deep-nesting"),
        pytest.param(START + b'"a":' + b"[" * MEBIBYTE, id="deep-nesting-in-field"),
        pytest.param(START + b'"a":"' + b":" * 499_999 + b'"}', id="500001-colons"),
        pytest.param(
            START + b",".join(b'"%d":1' % n for n in range(1_000_000)) + b"}",
            id="1000000-fields",
        ),
        # Under the limit of colons.
        pytest.param(
            START + b",".join(b'"%d":1' % n for n in range(490_000)) + b"}",
            id="490000-fields",
        ),
    ],
)
def test_body_that_is_not_a_json_object_is_rejected_with_little_memory(
    server: Server, upstream: Upstream, body: bytes
) -> None:
    growth = server.measure_growth()

    response = exchange(server.port, request(body=body))

    assert growth() < 4 * len(body) + 8 * MEBIBYTE
    assert response.status_and_code == (400, "invalid_request_body")
    assert response.error["param"] is None
    assert upstream.requests == []


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        pytest.param(b'{"model":', "truncated", id="truncated"),
        pytest.param(b"{'model':1}", "(byte 1)", id="quotes"),
        pytest.param(START + b'"a":"\xff"}', "(byte 27)", id="utf-8"),
        pytest.param(
            START + b'"a":"' + "é".encode() * 50_000 + b'\xff"}',
            "(byte 100027)",
            id="utf-8-in-a-later-chunk",
        ),
        pytest.param(START + b'"a":1}\xf0\x9f', "(byte 28)", id="half-a-character"),
        pytest.param(b'{"a":' * 10_000, "nested too deeply", id="nesting"),
        pytest.param(
            START + b'"a":"' + b":" * 500_000 + b'"}', "500,000 colons", id="colons"
        ),
        pytest.param(b'{"a":[' + b"1," * 2_000_001, "2,000,000 commas", id="commas"),
        pytest.param(
            START + b",".join(b'"%d":1' % n for n in range(60_000)) + b"}",
            "1,000 fields",
            id="fields",
        ),
    ],
)
def test_rejection_says_the_reason_and_the_position(
    server: Server, body: bytes, reason: str
) -> None:
    response = exchange(server.port, request(body=body))

    assert response.status_and_code == (400, "invalid_request_body")
    assert reason in response.error["message"]


def test_body_that_is_not_utf_8_is_rejected_before_the_rest_arrives(
    server: Server,
) -> None:
    start = request(b"POST", CHAT, b"Content-Length: 1000000")

    response = exchange(server.port, start, START, b'"a":"\xff', b"a" * 100)

    assert response.status_and_code == (400, "invalid_request_body")


def test_calls_are_served_while_the_fields_of_a_large_body_are_counted(
    server: Server, upstream: Upstream
) -> None:
    """Small calls that begin after it has arrived are at their upstream first."""
    upstream.openai.script(respond(), times=None)
    fields = b",".join(b'"%d":1' % n for n in range(490_000))
    large = request(body=b'{"model":"openai/large","a":{' + fields + b"}}")

    with RawConnection(server.port) as connection:
        connection.send(large[:-1])
        # Meanwhile the server reads it.
        statuses = [exchange(server.port, CHAT_REQUEST).status for _ in range(20)]
        connection.send(large[-1:])
        statuses += [exchange(server.port, CHAT_REQUEST).status for _ in range(3)]
        statuses.append(connection.read_response().status)

    assert set(statuses) == {200}
    models = [each.json["model"] for each in upstream.openai.requests]
    assert models == ["gpt-4o"] * 23 + ["large"]


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"{}", id="missing"),
        pytest.param(b'{"a":{"model":"a"}}', id="only-in-nested-object"),
        pytest.param(b'{"model":null}', id="null"),
        pytest.param(b'{"model":["a"]}', id="array"),
    ],
)
def test_body_without_model_string_is_rejected(
    server: Server, upstream: Upstream, body: bytes
) -> None:
    response = exchange(server.port, request(body=body))

    assert response.status_and_code == (400, "invalid_request_body")
    assert response.error["param"] == "model"
    assert upstream.requests == []
