"""The caller's key: where it may stand, which one counts, and where it goes."""

import pytest

from tests.support import http
from tests.support.http import (
    CHAT,
    MESSAGES,
    ROUTES,
    Response,
    exchange,
    request,
    to_json,
)
from tests.support.run_yaml import WITH_AUTH
from tests.support.server import Server
from tests.support.upstream import Upstream
from tests.support.wire import chunk

FORWARDING = {"forward_headers": {"vendor_key": "X-Vendor-Key"}}
# What is forwarded and the key take the place of the first two, the last the caller's.
HEADERS = {"X-Vendor-Key": "no", "Authorization": "no", "openai-project": "ours"}
pytestmark = pytest.mark.providers(
    {
        "keyed": {"api_key": "sk-op"},
        "forwards": FORWARDING,
        "all": {"api_key": "sk-op", "network": {"headers": HEADERS}} | FORWARDING,
        "beta-path": {"base_url": "${env.OPENAI_UPSTREAM_URL}/v1beta/x/"},
        "other-path": {"base_url": "${env.OPENAI_UPSTREAM_URL}/x"},
    }
)
KEY, URL = "passthrough_api_key", "passthrough_url"
MINE, OTHER = f'{{"{KEY}":"sk-mine"}}', f'{{"{KEY}":"sk-no"}}'
NULL = f'{{"{KEY}":null,"{URL}":null,"openai_api_key":"sk-no"}}'
LLAMA, OGX = "X-LlamaStack-Provider-Data: ", "X-OGX-Provider-Data: "
BEARER, X_API_KEY = "Authorization: Bearer sk-mine", "x-api-key: sk-mine"
OTHERS = "Authorization: Bearer sk-no"
CARRIERS = [LLAMA + MINE, OGX + MINE, X_API_KEY, BEARER]
TOKEN, PLAIN = {"authorization": "Bearer sk-mine"}, {"x-api-key": "sk-mine"}
OWN = http.DEFAULT_HEADERS[:2]


def call(
    server: Server, lines: str, path: str = CHAT, name: str = "openai"
) -> Response:
    """Call a model of a provider with header lines that stand between bars."""
    body = to_json({"model": f"{name}/m-1"})
    further = lines.encode("latin-1").split(b" | ") if lines else []
    return exchange(
        server.port, request(b"POST", path, *further, body=body, headers=OWN)
    )


def sent_keys(upstream: Upstream) -> dict[str, str]:
    names = ("authorization", "x-api-key", "x-vendor-key", "openai-project")
    found = ((name, upstream.openai.request.header(name)) for name in names)
    return {name: value for name, value in found if value}


@pytest.mark.parametrize(
    "lines",
    [
        "authorization: bEARER   sk-mine  ",
        f"{OTHERS} | {X_API_KEY}",
        f"{OTHERS} | x-api-key: sk-no | {OGX}{MINE}",
        f"{OGX}{OTHER} | {LLAMA}{MINE}",
        f"{LLAMA}{{}} | {OGX}{MINE}",
        f"{LLAMA} | {OGX}{MINE}",
        f"{LLAMA}{NULL} | {BEARER}",
        f'{OGX}{{"{KEY}":""}} | x-api-key: | {BEARER}',
        f"Authorization: Basic \xe9 | {X_API_KEY}",
    ],
)
def test_one_key_counts(server: Server, upstream: Upstream, lines: str) -> None:
    """Provider data goes before x-api-key, and that before what every client has."""
    call(server, lines)

    assert sent_keys(upstream) == TOKEN


@pytest.mark.parametrize("line", CARRIERS)
@pytest.mark.parametrize("path", ROUTES)
def test_a_key_travels_in_the_form_of_its_route(
    server: Server, upstream: Upstream, path: str, line: str
) -> None:
    """As a bearer; where Messages are spoken as x-api-key, unless it came as one."""
    call(server, line, path)

    is_plain = path.startswith(MESSAGES) and line != BEARER
    assert sent_keys(upstream) == (PLAIN if is_plain else TOKEN)


NO_KEY = [
    "Authorization: Basic c2stbWluZQ==",
    "Authorization: sk-mine",
    "x-goog-api-key: sk-mine | api-key: sk-mine",
    f"Authorization: Bearer | x-api-key: | {LLAMA} | {OGX}{{}}",
    LLAMA + NULL,
    f'{LLAMA}{{"{KEY}":"  "}}',
]
NO_OBJECT = ["null", "[]", "sk-mine", "{}{}", "[" * 10_000, '{"a":"\xff"}']
NO_TEXT = ["7", '["sk-mine"]', r'"sk-mine\n"', r'"sk\u0000"', r'"sk-\u00e9"']
MISSING, INVALID = (401, "missing_api_key"), (400, "invalid_provider_data")


@pytest.mark.parametrize(
    ("error_code", "param", "lines"),
    [
        *((MISSING, None, lines) for lines in NO_KEY),
        *((INVALID, None, name + data) for name in (LLAMA, OGX) for data in NO_OBJECT),
        *((INVALID, KEY, f'{LLAMA}{{"{KEY}":{x}}} | {BEARER}') for x in NO_TEXT),
        *((INVALID, KEY, f"{line}\xe9") for line in (BEARER, X_API_KEY)),
        (INVALID, URL, f'{LLAMA}{{"{URL}":7}} | {BEARER}'),
        # The proxies on the way would not agree on which of the two counts.
        *((INVALID, None, f"{line} | {line}") for line in CARRIERS),
    ],
)
def test_without_one_key_nothing_is_sent(
    server: Server, upstream: Upstream, error_code: object, param: object, lines: str
) -> None:
    """Nor where run.yaml could forward something else; the answer shows no key."""
    for name in ("openai", "forwards"):
        got = call(server, lines, name=name)
        assert (got.status_and_code, got.json["error"]["param"]) == (error_code, param)
        assert b"sk-mine" not in got.body
    assert upstream.openai.requests == []


PINNED = "openai openai/v1/ beta-path/ beta-path/v1beta/x other-path/x other-path/x/v1"


@pytest.mark.parametrize("pinned", PINNED.split())
def test_the_pinned_upstream_may_be_named(
    server: Server, upstream: Upstream, pinned: str
) -> None:
    """As it is configured, with its version, or as scheme and host alone."""
    name, slash, path = pinned.partition("/")
    data = to_json({KEY: "sk-mine", URL: upstream.openai.url + slash + path})

    call(server, LLAMA + data.decode(), name=name)

    assert sent_keys(upstream) == TOKEN


@pytest.mark.parametrize(
    "url",
    [
        "",
        "https://{host}",
        "http://me@{host}",
        "http://{host}/v2",
        "http://127.0.0.1:{other}",
    ],
)
def test_a_call_cannot_be_moved(server: Server, upstream: Upstream, url: str) -> None:
    """400, with the upstream that may be named; another provider's is none."""
    host = upstream.openai.url.removeprefix("http://")
    url = url.format(host=host, other=upstream.gemini.port)

    got = call(server, LLAMA + to_json({KEY: "sk-mine", URL: url}).decode())

    assert got.status_and_code == (400, "upstream_not_allowed")
    assert f"which is {upstream.openai.url}:" in got.json["error"]["message"]
    assert [vendor.requests for vendor in upstream.vendors] == [[], [], []]


FORWARD, FORWARDED = f'{LLAMA}{{"vendor_key":"v","other":"o"}}', {"x-vendor-key": "v"}
KEYED, OURS = {"authorization": "Bearer sk-op"}, {"openai-project": "ours"}


@pytest.mark.parametrize(
    ("called", "expected"),
    [
        (("", CHAT, "keyed"), KEYED),
        ((LLAMA + MINE, CHAT, "keyed"), KEYED),
        ((BEARER, MESSAGES, "keyed"), {"x-api-key": "sk-op"}),
        ((FORWARD, CHAT, "forwards"), FORWARDED),
        ((f"{FORWARD} | {X_API_KEY}", MESSAGES, "forwards"), FORWARDED | PLAIN),
        ((f"{FORWARD} | OpenAI-Project: mine", CHAT, "all"), FORWARDED | KEYED | OURS),
    ],
)
def test_a_key_of_run_yaml_goes_before_the_callers(
    server: Server, upstream: Upstream, called: tuple[str, str, str], expected: object
) -> None:
    """And what `forward_headers` names of the provider data may do without a key."""
    call(server, *called)

    assert sent_keys(upstream) == expected


ALICE = "Authorization: Bearer token-of-alice"


@WITH_AUTH
def test_with_auth_a_bearer_is_the_servers(server: Server, upstream: Upstream) -> None:
    assert call(server, X_API_KEY).status == 401
    keyless, _ = call(server, ALICE), call(server, f"{ALICE} | {X_API_KEY}")

    assert keyless.status_and_code == (401, "missing_api_key")
    assert sent_keys(upstream) == TOKEN


def test_a_key_in_a_trailer_reaches_nobody(server: Server, upstream: Upstream) -> None:
    line, key = b"Transfer-Encoding: chunked", X_API_KEY.encode()
    trailers = f"{LLAMA}{OTHER}\r\n{BEARER}\r\n\r\n".encode()
    end = chunk(b'{"model":"openai/m-1"}') + b"0\r\n" + trailers

    with http.RawConnection(server.port) as raw:
        for lines in ([line], [line, key], [line]):
            raw.send(request(b"POST", CHAT, *lines, headers=OWN) + end)
        statuses = [raw.read_response().status for _ in range(3)]

    assert [statuses[0], statuses[2]] == [401, 401]
    assert sent_keys(upstream) == TOKEN
