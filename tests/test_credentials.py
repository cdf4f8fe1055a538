"""The client's key: where it is read, which one is used, and where it is sent."""

import pytest

from tests.support.http import (
    CHAT,
    CHUNKED,
    HEADERS_WITHOUT_KEY,
    MESSAGES,
    ROUTES,
    RawConnection,
    call_model,
    request,
    to_json,
)
from tests.support.server import Server
from tests.support.upstream import Upstream
from tests.support.wire import chunk

pytestmark = pytest.mark.providers(
    {"forwards": {"forward_headers": {"vendor_key": "X-Vendor-Key"}}}
)

PROVIDER_DATA = b'X-LlamaStack-Provider-Data: {"passthrough_api_key":"sk-client"}'
OGX_PROVIDER_DATA = b'X-OGX-Provider-Data: {"passthrough_api_key":"sk-client"}'
X_API_KEY = b"x-api-key: sk-client"
BEARER = b"Authorization: Bearer sk-client"
UNUSED_PROVIDER_DATA = b'X-OGX-Provider-Data: {"passthrough_api_key":"sk-unused"}'
UNUSED_X_API_KEY = b"x-api-key: sk-unused"
UNUSED_BEARER = b"Authorization: Bearer sk-unused"
KEY_HEADERS = [
    pytest.param(PROVIDER_DATA, id="provider-data"),
    pytest.param(OGX_PROVIDER_DATA, id="ogx-provider-data"),
    pytest.param(X_API_KEY, id="x-api-key"),
    pytest.param(BEARER, id="bearer"),
]
SENT_AS_BEARER = {"authorization": "Bearer sk-client"}
SENT_AS_X_API_KEY = {"x-api-key": "sk-client"}


def provider_data(key: object) -> bytes:
    return b"X-LlamaStack-Provider-Data: " + to_json({"passthrough_api_key": key})


def sent_keys(upstream: Upstream) -> dict[str, str]:
    headers = {
        name: upstream.openai.request.header(name)
        for name in ("authorization", "x-api-key")
    }
    return {name: value for name, value in headers.items() if value}


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([b"authorization: bEARER   sk-client  "], id="bearer-any-case"),
        pytest.param([UNUSED_BEARER, X_API_KEY], id="x-api-key-over-bearer"),
        pytest.param(
            [UNUSED_BEARER, UNUSED_X_API_KEY, OGX_PROVIDER_DATA],
            id="provider-data-over-x-api-key-and-bearer",
        ),
        pytest.param(
            [UNUSED_PROVIDER_DATA, PROVIDER_DATA], id="llama-stack-over-ogx-header"
        ),
        pytest.param(
            [b"X-LlamaStack-Provider-Data: {}", OGX_PROVIDER_DATA], id="ogx-over-empty"
        ),
        pytest.param(
            [b"X-LlamaStack-Provider-Data: ", OGX_PROVIDER_DATA], id="ogx-over-blank"
        ),
        pytest.param(
            [b'X-LlamaStack-Provider-Data: {"passthrough_api_key":null}', BEARER],
            id="bearer-over-null-key",
        ),
        pytest.param(
            [
                b'X-OGX-Provider-Data: {"passthrough_api_key":""}',
                b"x-api-key: ",
                BEARER,
            ],
            id="bearer-over-empty-keys",
        ),
        pytest.param(
            [b"Authorization: Basic \xe9", X_API_KEY], id="x-api-key-over-basic"
        ),
    ],
)
def test_key_is_read_by_precedence(
    server: Server, upstream: Upstream, headers: list[bytes]
) -> None:
    call_model(server.port, "openai/m-1", *headers)

    assert sent_keys(upstream) == SENT_AS_BEARER


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("header", KEY_HEADERS)
def test_key_is_sent_as_x_api_key_on_messages_routes_and_as_bearer_elsewhere(
    server: Server, upstream: Upstream, path: str, header: bytes
) -> None:
    """A bearer stays one on the Messages routes, too."""
    call_model(server.port, "openai/m-1", header, path=path)

    is_x_api_key = path.startswith(MESSAGES) and header != BEARER
    expected = SENT_AS_X_API_KEY if is_x_api_key else SENT_AS_BEARER
    assert sent_keys(upstream) == expected


# Where run.yaml could forward another header, a key is still required.
@pytest.mark.parametrize("provider", ["openai", "forwards"])
@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([], id="no-headers"),
        pytest.param([b"Authorization: Basic c2stbWluZQ=="], id="basic"),
        pytest.param([b"Authorization: sk-client"], id="no-scheme"),
        pytest.param(
            [b"x-goog-api-key: sk-client", b"api-key: sk-client"], id="unknown-headers"
        ),
        pytest.param(
            [
                b"Authorization: Bearer",
                b"x-api-key: ",
                b"X-LlamaStack-Provider-Data: ",
                b"X-OGX-Provider-Data: {}",
            ],
            id="empty-headers",
        ),
        pytest.param([provider_data(None)], id="null-key"),
        pytest.param([provider_data("  ")], id="blank-key"),
    ],
)
def test_missing_key_is_rejected_before_calling_upstream(
    server: Server, upstream: Upstream, headers: list[bytes], provider: str
) -> None:
    response = call_model(server.port, f"{provider}/m-1", *headers)

    assert response.status_and_code == (401, "missing_api_key")
    assert upstream.requests == []


@pytest.mark.parametrize(
    "name", [b"X-LlamaStack-Provider-Data", b"X-OGX-Provider-Data"]
)
@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b"null", id="null"),
        pytest.param(b"[]", id="array"),
        pytest.param(b"sk-client", id="plain-key"),
        pytest.param(b"{}{}", id="two-objects"),
        pytest.param(b"[" * 10_000, id="deep-nesting"),
        pytest.param(b'{"a":"\xff"}', id="not-utf-8"),
    ],
)
def test_provider_data_that_is_not_a_json_object_is_rejected(
    server: Server, upstream: Upstream, name: bytes, value: bytes
) -> None:
    response = call_model(server.port, "openai/m-1", name + b": " + value, BEARER)

    assert response.status_and_code == (400, "invalid_provider_data")
    assert response.error["param"] is None
    assert b"sk-client" not in response.body
    assert upstream.requests == []


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(provider_data(7), id="number"),
        pytest.param(provider_data(["sk-client"]), id="array"),
        pytest.param(provider_data("sk-client\n"), id="line-feed"),
        pytest.param(provider_data("sk-client\0"), id="null-byte"),
        pytest.param(provider_data("sk-é"), id="non-ascii"),
        pytest.param(BEARER + b"\xe9", id="non-ascii-bearer"),
        pytest.param(X_API_KEY + b"\xe9", id="non-ascii-x-api-key"),
    ],
)
def test_key_that_is_not_printable_ascii_is_rejected(
    server: Server, upstream: Upstream, header: bytes
) -> None:
    response = call_model(server.port, "openai/m-1", header)

    assert response.status_and_code == (400, "invalid_provider_data")
    assert response.error["param"] == "passthrough_api_key"
    assert b"sk-client" not in response.body
    assert upstream.requests == []


@pytest.mark.parametrize("header", KEY_HEADERS)
def test_repeated_key_header_is_rejected(
    server: Server, upstream: Upstream, header: bytes
) -> None:
    """Proxies on the way would not agree on which of the two is used."""
    response = call_model(server.port, "openai/m-1", header, header)

    assert response.status_and_code == (400, "invalid_provider_data")
    assert b"sk-client" not in response.body
    assert upstream.requests == []


def test_key_in_trailers_is_ignored(server: Server, upstream: Upstream) -> None:
    """Also for the next request on the connection."""
    trailers = UNUSED_PROVIDER_DATA + b"\r\n" + BEARER + b"\r\n\r\n"
    body = chunk(b'{"model":"openai/m-1"}') + b"0\r\n" + trailers
    without_key = request(b"POST", CHAT, CHUNKED, headers=HEADERS_WITHOUT_KEY) + body
    with_key = (
        request(b"POST", CHAT, CHUNKED, X_API_KEY, headers=HEADERS_WITHOUT_KEY) + body
    )

    with RawConnection(server.port) as connection:
        connection.send(without_key, with_key, without_key)
        statuses = [connection.read_response().status for _ in range(3)]

    assert statuses == [401, 200, 401]
    assert sent_keys(upstream) == SENT_AS_BEARER
