"""The caller's key: where it may stand, which one counts, and what is no key."""

import json

import httpx
import pytest

from lls_openai.credentials import Credentials
from tests.calls import BEARER, CHAT, KEY, ROUTES, Answer, call, chat
from tests.server import Server
from tests.upstream import Upstream

DATA = json.dumps({"passthrough_api_key": KEY})
NO_DATA = json.dumps({"passthrough_api_key": None})
LLAMA = "X-LlamaStack-Provider-Data"
OGX = "X-OGX-Provider-Data"
OTHER = "sk-of-another"
OTHER_DATA = json.dumps({"passthrough_api_key": OTHER})

type Pairs = list[tuple[str, str]]


def _sent_key(
    server: Server, upstream: Upstream, http: httpx.Client, headers: Pairs
) -> list[str]:
    """Send a call with these headers, and give the `Authorization` that arrives."""
    call(http, server.url, chat(), headers=headers)
    (arrived,) = upstream.openai.calls
    return arrived.header_values("authorization")


def _refused(
    server: Server, upstream: Upstream, http: httpx.Client, headers: Pairs
) -> Answer:
    """Send a call with these headers, which must not reach the upstream."""
    answer = call(http, server.url, chat(), headers=headers)
    assert upstream.openai.calls == []
    return answer


CARRIERS: dict[str, Pairs] = {
    "bearer": [("Authorization", f"Bearer {KEY}")],
    "bearer in small letters": [("authorization", f"bearer {KEY}")],
    "bearer with spaces": [("Authorization", f"Bearer   {KEY}")],
    "Llama Stack's header": [(LLAMA, DATA)],
    "OGX's header": [(OGX, DATA)],
    "header in small letters": [(LLAMA.lower(), DATA)],
    "spaces in the header": [(LLAMA, '{ "passthrough_api_key" : "sk-of-a-caller" }')],
    "escapes in the header": [
        (LLAMA, r'{"passthrough_api_key":"\u0073k-of-a-caller"}')
    ],
    "spaces around the key": [(LLAMA, '{"passthrough_api_key":" sk-of-a-caller "}')],
    "other provider data beside": [(LLAMA, DATA[:-1] + ', "openai_api_key": "sk-2"}')],
    "the same key twice": [(LLAMA, DATA), ("Authorization", f"Bearer {KEY}")],
}


@pytest.mark.parametrize("headers", CARRIERS.values(), ids=CARRIERS)
def test_a_key_may_stand_in_a_header(
    server: Server, upstream: Upstream, http: httpx.Client, headers: Pairs
) -> None:
    """It arrives as a bearer token, and once."""
    assert [f"Bearer {KEY}"] == _sent_key(server, upstream, http, headers)


PRECEDENCE: dict[str, Pairs] = {
    "provider data before bearer": [
        ("Authorization", f"Bearer {OTHER}"),
        (LLAMA, DATA),
    ],
    "OGX's before bearer": [("Authorization", f"Bearer {OTHER}"), (OGX, DATA)],
    "Llama Stack's before OGX's": [(OGX, OTHER_DATA), (LLAMA, DATA)],
    "bearer when provider data has none": [
        ("Authorization", f"Bearer {KEY}"),
        (LLAMA, NO_DATA),
    ],
    "bearer when the key is empty": [
        ("Authorization", f"Bearer {KEY}"),
        (LLAMA, '{"passthrough_api_key":""}'),
    ],
    "bearer beside another provider's key": [
        ("Authorization", f"Bearer {KEY}"),
        (LLAMA, '{"openai_api_key":"sk-2"}'),
    ],
    "OGX's when Llama Stack's is empty": [(LLAMA, "{}"), (OGX, DATA)],
    "bearer when the header is empty": [
        ("Authorization", f"Bearer {KEY}"),
        (LLAMA, ""),
    ],
}


@pytest.mark.parametrize("headers", PRECEDENCE.values(), ids=PRECEDENCE)
def test_of_two_keys_one_counts(
    server: Server, upstream: Upstream, http: httpx.Client, headers: Pairs
) -> None:
    """The header that was made for it goes before the one that every client has."""
    assert [f"Bearer {KEY}"] == _sent_key(server, upstream, http, headers)


@pytest.mark.parametrize("route", ROUTES)
def test_every_route_takes_every_carrier(
    server: Server, upstream: Upstream, http: httpx.Client, route: str
) -> None:
    """Whatever is called."""
    for headers in CARRIERS.values():
        call(http, server.url, chat("openai/m-1"), route=route, headers=headers)

    keys = {arrived.key for arrived in upstream.openai.calls}
    assert ({KEY}, len(CARRIERS)) == (keys, len(upstream.openai.calls))


NO_KEY: dict[str, Pairs] = {
    "nothing": [],
    "another scheme": [("Authorization", "Basic dXNlcjpwYXNz")],
    "no scheme": [("Authorization", KEY)],
    "scheme alone": [("Authorization", "Bearer")],
    "nothing in Authorization": [("Authorization", "")],
    "empty provider data": [(LLAMA, "{}")],
    "empty header": [(LLAMA, "")],
    "null": [(LLAMA, NO_DATA)],
    "empty key": [(LLAMA, '{"passthrough_api_key":""}')],
    "spaces for a key": [(LLAMA, '{"passthrough_api_key":"  "}')],
    "another provider's key": [(LLAMA, '{"openai_api_key":"sk-2"}')],
    "another vendor's header": [("x-api-key", KEY)],
}


@pytest.mark.parametrize("headers", NO_KEY.values(), ids=NO_KEY)
def test_without_a_key_nothing_is_sent(
    server: Server, upstream: Upstream, http: httpx.Client, headers: Pairs
) -> None:
    """401."""
    answer = _refused(server, upstream, http, headers)

    assert answer.error_code == (401, "missing_api_key")


NO_OBJECT = [
    "null",
    "[]",
    '"sk-of-a-caller"',
    "7",
    "{",
    KEY,
    "{'passthrough_api_key': 'sk'}",
    DATA + DATA,
    "[" * 100_00,
]


@pytest.mark.parametrize("data", NO_OBJECT, ids=lambda data: data[:20])
@pytest.mark.parametrize("name", [LLAMA, OGX])
def test_provider_data_that_is_no_object_is_refused(
    server: Server, upstream: Upstream, http: httpx.Client, name: str, data: str
) -> None:
    """400, with the form that is wanted, though there is a key as well."""
    headers = [*BEARER.items(), (name, data)]

    answer = _refused(server, upstream, http, headers)

    expected = {
        "message": "The provider data is not a JSON object. Send "
        'X-LlamaStack-Provider-Data: {"passthrough_api_key": "<your key>"} '
        "or, where the server wants no token of its own there, "
        "Authorization: Bearer <your key>",
        "type": "invalid_request_error",
        "param": None,
        "code": "invalid_provider_data",
    }
    assert (400, expected) == (answer.status, answer.error)


@pytest.mark.parametrize("field", ["passthrough_api_key", "passthrough_url"])
@pytest.mark.parametrize("value", [7, True, ["sk"], {"key": "sk"}], ids=str)
def test_a_field_that_is_no_string_is_refused(
    server: Server, upstream: Upstream, http: httpx.Client, field: str, value: object
) -> None:
    """400, and the field is named."""
    data = json.dumps({"passthrough_api_key": KEY, field: value})

    answer = _refused(server, upstream, http, [(LLAMA, data)])

    expected = {
        "message": f"{field} in the provider data is not a string",
        "type": "invalid_request_error",
        "param": field,
        "code": "invalid_provider_data",
    }
    assert (400, expected) == (answer.status, answer.error)


@pytest.mark.parametrize(
    "key",
    ["sk\n", "sk\r\nx-evil: 1", "sk\0", "sk\t1", "\x7f", "clé", "sk\u2028", "😀"],
    ids=ascii,
)
def test_a_key_that_cannot_stand_in_a_header_is_refused(
    server: Server, upstream: Upstream, http: httpx.Client, key: str
) -> None:
    """400: it could end the header and begin another; nor is it shown."""
    data = json.dumps({"passthrough_api_key": key})

    answer = _refused(server, upstream, http, [(LLAMA, data)])

    expected = {
        "message": "The key is not a printable ASCII string",
        "type": "invalid_request_error",
        "param": "passthrough_api_key",
        "code": "invalid_provider_data",
    }
    assert (400, expected) == (answer.status, answer.error)


def test_a_bearer_token_in_other_letters_is_refused(
    server: Server, upstream: Upstream, http: httpx.Client
) -> None:
    """Likewise, in the bytes that come over the wire."""
    request = httpx.Request(
        "POST",
        server.url + CHAT,
        content=chat(),
        headers=[(b"authorization", b"Bearer cl\xe9")],
    )

    response = http.send(request)

    assert (response.status_code, upstream.openai.calls) == (400, [])
    assert response.json()["error"]["code"] == "invalid_provider_data"


@pytest.mark.parametrize(
    ("name", "value"),
    [("Authorization", f"Bearer {KEY}"), (LLAMA, DATA), (OGX, DATA)],
)
def test_a_header_that_comes_twice_is_refused(
    server: Server, upstream: Upstream, http: httpx.Client, name: str, value: str
) -> None:
    """400: proxies on the way would disagree on which of the two is meant."""
    answer = _refused(server, upstream, http, [(name, value), (name, value)])

    expected = {
        "message": f"The header {name.lower()} is there more than once: send one",
        "type": "invalid_request_error",
        "param": None,
        "code": "invalid_provider_data",
    }
    assert (400, expected) == (answer.status, answer.error)


def test_credentials_do_not_show_themselves() -> None:
    """What is printed of them by mistake holds no key."""
    credentials = Credentials(KEY, {"passthrough_api_key": KEY})

    assert KEY not in f"{credentials!r} {credentials}"
