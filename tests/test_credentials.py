"""The caller's key: where it may stand, which one counts, and where it goes."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from lls_openai.relay.credentials import Credentials
from tests.support import http
from tests.support.http import CHAT, MESSAGES, ROUTES, Answer, ask, encoded, request
from tests.support.server import Server
from tests.support.upstream import Upstream
from tests.support.wire import answer, chunk

FORWARDING = {"forward_headers": {"vendor_key": "X-Vendor-Key"}}
FURTHER = {"keyed": {"api_key": "sk-op"}, "forwards": FORWARDING}
FURTHER |= {"keyed-forwards": {"api_key": "sk-op"} | FORWARDING}
FURTHER |= {"beta-path": {"base_url": "${env.OPENAI_UPSTREAM_URL}/v1beta/x/"}}
FURTHER |= {"other-path": {"base_url": "${env.OPENAI_UPSTREAM_URL}/x"}}
pytestmark = pytest.mark.providers(FURTHER)
KEY, URL = "passthrough_api_key", "passthrough_url"
MINE, OTHER = f'{{"{KEY}":"sk-mine"}}', f'{{"{KEY}":"sk-no"}}'
NULL = f'{{"{KEY}":null,"{URL}":null,"openai_api_key":"sk-no"}}'
LLAMA, OGX = "X-LlamaStack-Provider-Data: ", "X-OGX-Provider-Data: "
BEARER, X_API_KEY = "Authorization: Bearer sk-mine", "x-api-key: sk-mine"
OTHERS = "Authorization: Bearer sk-no"
CARRIERS = [LLAMA + MINE, OGX + MINE, X_API_KEY, BEARER]
TOKEN, PLAIN = {"authorization": "Bearer sk-mine"}, {"x-api-key": "sk-mine"}
OWN = http.OWN[:2]


def call(server: Server, lines: str, path: str = CHAT, name: str = "openai") -> Answer:
    """Call a model of a provider with these header lines."""
    body = encoded({"model": f"{name}/m-1"})
    further = lines.encode("latin-1").split(b" | ") if lines else []
    return ask(server.port, request(b"POST", path, *further, body=body, own=OWN))


def sent_keys(upstream: Upstream) -> dict[str, str | None]:
    """What carries a key in the one request that has arrived."""
    names, arrived = (
        ("authorization", "x-api-key", "x-vendor-key"),
        upstream.openai.request,
    )
    return {name: arrived.header(name) for name in names if arrived.header(name)}


ONE_COUNTS = ["authorization: bEARER sk-mine", "Authorization: Bearer   sk-mine  "]
ONE_COUNTS += [rf'{LLAMA}{{ "{KEY}" : " \u0073k-mine " }}', f"{OTHERS} | {X_API_KEY}"]
ONE_COUNTS += [f"{OGX}{OTHER} | {LLAMA}{MINE}", f"{LLAMA}{{}} | {OGX}{MINE}"]
ONE_COUNTS += [f"{OTHERS} | x-api-key: sk-no | {OGX}{MINE}", f"{LLAMA} | {OGX}{MINE}"]
ONE_COUNTS += [f"Authorization: Basic \xe9 | {X_API_KEY}", f"{LLAMA}{NULL} | {BEARER}"]
ONE_COUNTS += [f'{OGX}{{"{KEY}":""}} | x-api-key: | {BEARER}']


@pytest.mark.parametrize("lines", ONE_COUNTS)
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


NO_KEY = ["Authorization: Basic c2stbWluZQ==", "Authorization: sk-mine", LLAMA + NULL]
NO_KEY += ["x-goog-api-key: sk-mine | api-key: sk-mine", f'{LLAMA}{{"{KEY}":"  "}}']
NO_KEY += [f"Authorization: Bearer | x-api-key: | {LLAMA} | {OGX}{{}}"]


@pytest.mark.parametrize("name", ["openai", "forwards"])
@pytest.mark.parametrize("lines", NO_KEY)
def test_without_a_key_nothing_is_sent(
    server: Server, upstream: Upstream, lines: str, name: str
) -> None:
    """401, also where run.yaml could forward something else in its place."""
    assert call(server, lines, name=name).error_code == (401, "missing_api_key")
    assert upstream.openai.requests == []


NO_OBJECT = ["null", "[]", '"sk-mine"', "7", "{", "sk-mine", "{'a': 1}", "{}{}"]
NO_OBJECT += ["[" * 10_000, '{"a":' * 5000, '{"a":"\xff"}']
VALUES = ["7", "false", '["sk"]', '{"a":"sk"}', r'"sk\r\nx-evil: 1"', r'"sk-mine\n"']
VALUES += [r'"sk\u0000"', r'"sk\t1"', r'"\u007f"', r'"sk-\u00e9"', r'"\ud83d\ude00"']
INVALID: list[tuple[str | None, str]] = [
    *((None, name + data) for name in (LLAMA, OGX) for data in NO_OBJECT),
    *((KEY, f'{LLAMA}{{"{KEY}":{value}}} | {BEARER}') for value in VALUES),
    *((URL, f'{LLAMA}{{"{URL}":{value}}} | {BEARER}') for value in ("7", "[]", "{}")),
    *((KEY, line) for line in (f"{BEARER}\xe9", f"{X_API_KEY}\xe9", f"{X_API_KEY}\t1")),
    # The proxies on the way would not agree on which of the two counts.
    *((None, f"{line} | {line}") for line in CARRIERS),
]


@pytest.mark.parametrize(("param", "lines"), INVALID)
def test_what_is_no_key_is_refused(
    server: Server, upstream: Upstream, param: str | None, lines: str
) -> None:
    """400, though another header has one; the answer does not show what was sent."""
    got = call(server, lines)
    assert got.error_code == (400, "invalid_provider_data")
    assert got.json["error"]["param"] == param
    assert b"sk-mine" not in got.body
    assert upstream.openai.requests == []


NAMED = [
    ("openai", ""),
    ("openai", "/v1"),
    ("beta-path", ""),
    ("beta-path", "/v1beta/x"),
]
NAMED += [("other-path", path) for path in ("", "/x", "/x/v1")]


@pytest.mark.parametrize("end", ["", "/"])
@pytest.mark.parametrize(("name", "path"), NAMED)
def test_the_pinned_upstream_may_be_named(
    server: Server, upstream: Upstream, name: str, path: str, *, end: str
) -> None:
    """As it is configured, with its version, or as scheme and host alone."""
    data = encoded({KEY: "sk-mine", URL: upstream.openai.url + path + end})

    call(server, LLAMA + data.decode(), name=name)

    assert sent_keys(upstream) == TOKEN


ELSEWHERE = """{host} //{host} https://{host} http://me@{host} http://{host}/v2
    http://{host}. http://{host}0 http://{host}?x=1 http://{host}/v1?x=1 http://{host}#x
    http://{host}@evil.example http://evil.example#http://{host} file:///etc/passwd
    http://{host}/v1/v1 http://127.0.0.1 http://127.0.0.1:{other}"""


@pytest.mark.parametrize("url", [*ELSEWHERE.split(), "", " "])
def test_a_caller_moves_no_call_elsewhere(
    server: Server, upstream: Upstream, url: str
) -> None:
    """400, with the upstream that may be named; another provider's is none."""
    host = upstream.openai.url.removeprefix("http://")
    url = url.format(host=host, other=upstream.gemini.port)

    got = call(server, LLAMA + encoded({KEY: "sk-mine", URL: url}).decode())

    assert got.error_code == (400, "upstream_not_allowed")
    assert f"which is {upstream.openai.url}:" in got.json["error"]["message"]
    assert [vendor.requests for vendor in upstream.vendors] == [[], [], []]


FORWARD, FORWARDED = f'{LLAMA}{{"vendor_key":"v","other":"o"}}', {"x-vendor-key": "v"}
KEYED = {"authorization": "Bearer sk-op"}
CONFIGURED = [
    ("keyed", CHAT, "", KEYED),
    ("keyed", CHAT, LLAMA + MINE, KEYED),
    ("keyed", MESSAGES, BEARER, {"x-api-key": "sk-op"}),
    ("forwards", CHAT, FORWARD, FORWARDED),
    ("forwards", MESSAGES, f"{FORWARD} | {X_API_KEY}", FORWARDED | PLAIN),
    ("keyed-forwards", CHAT, f"{FORWARD} | {X_API_KEY}", FORWARDED | KEYED),
]


@pytest.mark.parametrize("row", CONFIGURED)
def test_a_key_of_run_yaml_goes_before_the_callers(
    server: Server, upstream: Upstream, row: tuple[str, str, str, dict[str, str]]
) -> None:
    """And what `forward_headers` names of the provider data may do without a key."""
    name, path, lines, expected = row
    call(server, lines, path, name)

    assert sent_keys(upstream) == expected


AUTH = {"provider_config": {"type": "custom", "endpoint": "${env.GATEKEEPER_URL}"}}
ALICE = "Authorization: Bearer token-of-alice"


@pytest.mark.server({"server": {"auth": AUTH}})
def test_with_authentication_a_bearer_is_the_servers(
    server: Server, upstream: Upstream
) -> None:
    """It says who calls, is no key, and does not go on beside one."""
    assert call(server, X_API_KEY).status == 401
    keyless, _ = call(server, ALICE), call(server, f"{ALICE} | {X_API_KEY}")

    assert keyless.error_code == (401, "missing_api_key")
    assert sent_keys(upstream) == TOKEN


@pytest.mark.parametrize("trailer", [LLAMA + OTHER, "x-api-key: sk-no", BEARER])
def test_a_key_in_a_trailer_reaches_nobody(
    server: Server, upstream: Upstream, trailer: str
) -> None:
    """Neither this call nor the next one on the connection."""
    line, key = b"Transfer-Encoding: chunked", X_API_KEY.encode()
    end = chunk(b'{"model":"openai/m-1"}') + b"0\r\n%b\r\n\r\n" % trailer.encode()

    with http.Raw(server.port) as raw:
        for lines in ([line], [line, key], [line]):
            raw.send(request(b"POST", CHAT, *lines, own=OWN) + end)
        statuses = [raw.answer().status for _ in range(3)]

    assert [statuses[0], statuses[2]] == [401, 401]
    assert sent_keys(upstream) == TOKEN


def test_keys_of_callers_do_not_cross(server: Server, upstream: Upstream) -> None:
    """Many at a time, over few connections: each call has its own caller's key."""
    upstream.openai.script(answer(), times=None)
    lines = [f"x-api-key: sk-{n} | idempotency-key: sk-{n}" for n in range(64)]

    with ThreadPoolExecutor(8) as callers:
        answers = [*callers.map(lambda line: call(server, line), lines)]

    arrived = [(e.header("idempotency-key"), e.key) for e in upstream.openai.requests]
    assert {each.status for each in answers} == {200}
    assert {key: key for key, _ in arrived} == dict(arrived)
    assert len(arrived) == 64 > upstream.openai.connections


def test_credentials_do_not_show_themselves() -> None:
    """What is printed of them by mistake holds no key."""
    credentials = Credentials("sk-mine", is_bearer=True, provider_data={KEY: "sk-mine"})

    assert "sk-mine" not in f"{credentials!r} {credentials}"
