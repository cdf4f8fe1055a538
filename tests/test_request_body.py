"""Request bodies that are rejected before a provider is chosen."""

import pytest

from tests.support.http import MEBIBYTE, exchange, request
from tests.support.server import Server
from tests.support.upstream import Upstream

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
