"""What the upstream gets is what the caller sent, with the model's name replaced."""

import codecs
from importlib.metadata import version

import pytest

from tests.support.http import (
    CHAT,
    DEFAULT_HEADERS,
    ROUTES,
    Response,
    exchange,
    request,
    to_json,
)
from tests.support.server import Server
from tests.support.upstream import Upstream
from tests.support.wire import LAST_CHUNK, chunk, respond

# What a base_url has behind its origin, and the path that calls go to.
BASES = {"": "/v1", "/": "/v1", "/v1/": "/v1", "/openai": "/openai/v1"}
BASES |= {"/v1x": "/v1x/v1", "/dev1": "/dev1/v1"}
BASES |= {base: base for base in ("/v1", "/a/v10", "/v1beta/openai", "/v1alpha1/x")}
URL = "${env.OPENAI_UPSTREAM_URL}"
FURTHER = {f"base-{n}": {"base_url": URL + base} for n, base in enumerate(BASES)}
pytestmark = pytest.mark.providers(FURTHER)
MEBIBYTE = 1024 * 1024
START = b'{"model":"openai/m-1",'


def call(server: Server, body: bytes, *lines: bytes, path: str = CHAT) -> Response:
    return exchange(server.port, request(b"POST", path, *lines, body=body))


# What a parser, or a model of the API, would drop or write in another way.
FIELDS = ",".join(
    (
        '"made_up":{"nested":[1,{"deeper":true}]},"":1,"top_k":40,"messages":null',
        '"google":{"safety_settings":[]},"extra_body":{"a":{"n":null}},"seed":null',
        '"store":false,"n":0,"metadata":{"a":1,"a":2,"A":3},"logit_bias":{}',
        '"suffix":"","integers":[9007199254740993,-123456789012345678901234567890]',
        '"top_p":0.1000000000000000055511151231257827,"temperature":0.10',
        '"decimals":[1.0,1e-7,1E+2,-0.0,1e400],"spaces":{ "a" :\t[ 1 ,\r\n 2 ] }',
        r'"user":"\u00e9\ud83d\ude00\u0000\/\b\t\n\"\\","x":"é 😀 漢"',
        '"letters":"\u2028 \u202e \x7f","a":{"model":"openai/b"}',
        r'"text":"\"model\":\"openai\/a\"","depth":' + "[" * 200 + "]" * 200,
        '"tools":[{"type":"custom","custom":{"format":{"syntax":"lark"}}}]',
        '"input":[{"role":"critic","content":[{"type":"new","strict":null}]}]',
    )
)


PASSING = (
    b"OpenAI-Organization: org-1|openai-project: proj_1|anthropic-version: 2|"
    b"anthropic-beta: a|Anthropic-Beta: b, c|Idempotency-Key: an id|tracestate: a=b|"
    b"X-Client-Request-Id: an id|traceparent: 00-0af7651916cd43dd-b7ad6b71-01|"
    b"User-Agent: OpenAI/Python|X-Stainless-Lang: python|x-claude-code-session-id: a|"
    b"x-codex-window-id: a|session_id: a|X-App: cli"
).split(b"|")
STOPPED = (
    b"Accept: text/html|Accept-Encoding: gzip|Connection: X-Hop|Cookie: a=b|TE: gzip|"
    b"Forwarded: for=a|Origin: http://a.b|Proxy-Authorization: Basic eDp5|Referer: a|"
    b"Via: 1.1 a|X-Forwarded-For: a|X-Forwarded-Host: a|X-Hop: 1|"
    b"X-Real-IP: a|api-key: sk|x-goog-api-key: sk|"
    b"x-request-id: a|openai-odd: pr\xf6j|x-openai-a: b"
).split(b"|")


@pytest.mark.parametrize("path", ROUTES)
def test_what_was_sent_arrives(server: Server, upstream: Upstream, path: str) -> None:
    upstream.openai.script(respond())
    sent = f'{{"first":1,"model":"openai/m-1",{FIELDS},"last":2}}'.encode()
    # As Claude Code asks.
    target = f"{path}?beta=true&a=%20b%2F"

    assert call(server, sent, *STOPPED, *PASSING, path=target).status == 200

    arrived, body = upstream.openai.request, sent.replace(b"openai/m-1", b"m-1", 1)
    own = [
        b"Host: 127.0.0.1:%d" % upstream.openai.port,
        *DEFAULT_HEADERS[1:],
        b"Accept: */*",
    ]
    own += [b"Accept-Encoding: identity", b"Content-Length: %d" % len(body)]
    headers = [b"%b: %b" % pair for pair in arrived.headers]
    assert (arrived.target, arrived.body) == (target, body)
    assert sorted(map(bytes.lower, headers)) == sorted(map(bytes.lower, own + PASSING))


def test_client_without_user_agent_gets_the_servers(
    server: Server, upstream: Upstream
) -> None:
    call(server, START + b'"a":1}')

    own = f"lls-openai/{version('lls-openai')}"
    assert upstream.openai.request.header("user-agent") == own


SAME = {
    b'{ "a" : 1.0,\r\n\t"model" : "openai/m-1"\n}\n': '{"a":1.0,"model":"m-1"}',
    codecs.BOM_UTF8 + START + b'"a":1}': '{"model":"m-1","a":1}',
    rb'{"caf\u00e9":1,"\u006dodel":"openai\/m-1"}': '{"café":1,"model":"m-1"}',
    # The one by which it is routed is the one that is sent.
    b'{"model":"gemini/x","model":"openai/m-1"}': '{"model":"m-1"}',
}


@pytest.mark.parametrize("sent", SAME)
def test_layout_means_nothing(server: Server, upstream: Upstream, sent: bytes) -> None:
    call(server, sent)

    assert upstream.openai.request.body == SAME[sent].encode()


@pytest.mark.parametrize(("size", "is_chunked"), [(1, True), (20, False)])
def test_a_large_body_arrives_whole_and_costs_little(
    server: Server, upstream: Upstream, size: int, *, is_chunked: bool
) -> None:
    """Even with an emoji, for which Python's text would take four bytes a letter."""
    upstream.openai.script(respond())
    # The emoji stands across the border of two pieces that are checked.
    sent = (START + b'"a":"').ljust(65535, b":") + "😀".encode()
    # No request has more colons than this one.
    sent += b":" * (500_000 - sent.count(b":"))
    sent += b"".join(b"%08x" % number for number in range(size * MEBIBYTE // 8)) + b'"}'
    segments = [request(body=sent)]
    if is_chunked:
        parts = (sent[at : at + 99_999] for at in range(0, len(sent), 99_999))
        head = request(b"POST", CHAT, b"Transfer-Encoding: chunked")
        segments = [head, *map(chunk, parts), LAST_CHUNK]

    grown = server.measure_growth()

    assert exchange(server.port, *segments).status == 200
    assert grown() < (4 * size + 8) * MEBIBYTE
    arrived = upstream.openai.request
    assert arrived.body == sent.replace(b"openai/m-1", b"m-1", 1)
    assert arrived.header("content-length") == str(len(arrived.body))


ENDS = [b"}}", b'"a":NaN}', b'"a":"\xff"}', b'"\xe9":1}', b'"a":"\xed\xa0\x80"}']
ENDS += [b'"a":1}\xf0\x9f', b'"a":' + b"[" * MEBIBYTE, b'"a":"%b"}' % (b":" * 499_999)]
ENDS += [b",".join(b'"%d":1' % number for number in range(1_000_000)) + b"}"]
# In a later piece of those that are checked.
ENDS += [b'"a":"%b\xff"}' % (b"a" * 65_536)]
NO_OBJECT = [b"", b"model=a", b"null", b'["model"]', b"[" * MEBIBYTE]
NO_OBJECT += ['{"model":"openai/m-1"}'.encode("utf-16"), *(START + end for end in ENDS)]
NO_MODEL = [b"{}", b'{"a":{"model":"a"}}', b'{"model":null}', b'{"model":["a"]}']


@pytest.mark.parametrize(
    ("param", "sent"),
    [*((None, sent) for sent in NO_OBJECT), *(("model", sent) for sent in NO_MODEL)],
    ids=lambda value: str(value)[:40],
)
def test_a_body_that_is_no_request_is_refused(
    server: Server, upstream: Upstream, param: str | None, sent: bytes
) -> None:
    grown = server.measure_growth()

    got = call(server, sent)

    assert grown() < 4 * len(sent) + 8 * MEBIBYTE
    assert got.status_and_code == (400, "invalid_request_body")
    assert got.json["error"]["param"] == param
    assert upstream.openai.requests == []


@pytest.mark.parametrize(("number", "expected"), [*enumerate(BASES.values())])
def test_a_version_is_added_where_base_url_has_none(
    server: Server, upstream: Upstream, number: int, expected: str
) -> None:
    call(server, to_json({"model": f"base-{number}/m-1"}))

    assert upstream.openai.request.target == f"{expected}/chat/completions"
