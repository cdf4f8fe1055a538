"""The upstream receives what the client sent, with the model's name replaced."""

import codecs
from importlib.metadata import version

import pytest

from tests.support.http import (
    CHAT,
    CHUNKED,
    KEYS,
    MEBIBYTE,
    ROUTES,
    exchange,
    request,
    to_json,
)
from tests.support.server import Server
from tests.support.upstream import Upstream
from tests.support.wire import LAST_CHUNK, chunk, respond

# The end of each `base_url`, and the path that chat completions are sent to.
BASE_URLS = {
    "base-none": ("", "/v1/chat/completions"),
    "base-slash": ("/", "/v1/chat/completions"),
    "base-v1-slash": ("/v1/", "/v1/chat/completions"),
    "base-openai": ("/openai", "/openai/v1/chat/completions"),
    "base-v1x": ("/v1x", "/v1x/v1/chat/completions"),
    "base-dev1": ("/dev1", "/dev1/v1/chat/completions"),
    "base-v1": ("/v1", "/v1/chat/completions"),
    "base-v10": ("/a/v10", "/a/v10/chat/completions"),
    "base-v1beta": ("/v1beta/openai", "/v1beta/openai/chat/completions"),
    "base-v1alpha1": ("/v1alpha1/x", "/v1alpha1/x/chat/completions"),
}
pytestmark = pytest.mark.providers(
    {
        name: {"base_url": f"${{env.OPENAI_UPSTREAM_URL}}{end}"}
        for name, (end, _) in BASE_URLS.items()
    }
)
# A body that a JSON parser, or a model of the API, would not give back as it is.
BODY = (
    rb"""{"first":1,"model":"openai/m-1","made_up":{"nested":[1,{"deeper":true}]},
"":1,"top_k":40,"messages":null,"google":{"safety_settings":[]},"seed":null,
"extra_body":{"a":{"n":null}},"store":false,"n":0,"metadata":{"a":1,"a":2,"A":3},
"logit_bias":{},"suffix":"","integers":[9007199254740993,-12345678901234567890123],
"top_p":0.1000000000000000055511151231257827,"temperature":0.10,
"decimals":[1.0,1e-7,1E+2,-0.0,1e400],"user":"\u00e9\ud83d\ude00\u0000\/\b\t\n\"\\",
"a":{"model":"openai/b"},"text":"\"model\":\"openai\/a\"",
"tools":[{"type":"custom","custom":{"format":{"syntax":"lark"}}}],
"input":[{"role":"critic","content":[{"type":"new","strict":null}]}],
"letters":""".replace(b"\n", b"")
    + ('"é 😀 漢 \u2028 \u202e \x7f","depth":' + "[" * 200 + "]" * 200 + "}").encode()
)


def send(server: Server, body: bytes) -> int:
    return exchange(server.port, request(body=body)).status


@pytest.mark.parametrize("path", ROUTES)
def test_body_and_target_arrive_with_only_the_model_replaced(
    server: Server, upstream: Upstream, path: str
) -> None:
    target = f"{path}?beta=true&a=%20b%2F"

    response = exchange(server.port, request(path=target, body=BODY))

    assert response.status == 200
    assert upstream.openai.request.target == target
    assert upstream.openai.request.body == BODY.replace(b"openai/m-1", b"m-1", 1)


FORWARDED_HEADERS = (
    b"OpenAI-Organization: org-1",
    b"openai-project: proj_1",
    b"anthropic-version: 2",
    b"anthropic-beta: a",
    b"Anthropic-Beta: b, c",
    b"Idempotency-Key: an id",
    b"tracestate: a=b",
    b"traceparent: 00-0af7651916cd43dd-b7ad6b71-01",
    b"X-Client-Request-Id: an id",
    b"User-Agent: OpenAI/Python",
    b"X-Stainless-Lang: python",
    b"x-claude-code-session-id: a",
    b"x-codex-window-id: a",
    b"session_id: a",
    b"X-App: cli",
)
DROPPED_HEADERS = (
    b"Accept: text/html",
    b"Accept-Encoding: gzip",
    b"Connection: X-Hop",
    b"Cookie: a=b",
    b"Forwarded: for=a",
    b"Origin: http://a.b",
    b"Proxy-Authorization: Basic eDp5",
    b"Referer: a",
    b"TE: gzip",
    b"Via: 1.1 a",
    b"X-Forwarded-For: a",
    b"X-Forwarded-Host: a",
    b"X-Hop: 1",
    b"X-Real-IP: a",
    b"api-key: sk",
    b"x-goog-api-key: sk",
    b"x-openai-a: b",
    b"x-request-id: a",
    # Not ASCII.
    b"openai-odd: pr\xf6j",
)


@pytest.mark.parametrize("header", FORWARDED_HEADERS)
def test_header_is_forwarded(server: Server, upstream: Upstream, header: bytes) -> None:
    exchange(server.port, request(b"POST", CHAT, header, body=BODY))

    name, _, value = header.decode().partition(": ")
    assert upstream.openai.request.header(name) == value


# The server sends its own values of these.
OWN_HEADERS = {"Accept", "Accept-Encoding"}


@pytest.mark.parametrize("header", DROPPED_HEADERS)
def test_header_is_not_forwarded(
    server: Server, upstream: Upstream, header: bytes
) -> None:
    exchange(server.port, request(b"POST", CHAT, header, body=BODY))

    name, _, value = header.decode("latin-1").partition(": ")
    received = upstream.openai.request.header(name)
    assert received is None or (name in OWN_HEADERS and received != value)


def test_repeated_header_is_forwarded_as_it_is(
    server: Server, upstream: Upstream
) -> None:
    lines = b"anthropic-beta: a", b"Anthropic-Beta: b, c"

    exchange(server.port, request(b"POST", CHAT, *lines, body=BODY))

    assert upstream.openai.request.header("anthropic-beta") == "a, b, c"


def test_upstream_gets_headers_of_the_request_and_no_others(
    server: Server, upstream: Upstream
) -> None:
    exchange(server.port, request(body=b'{"model":"openai/m-1"}'))

    headers = upstream.openai.request.headers
    assert sorted((name.lower(), value) for name, value in headers) == [
        (b"accept", b"*/*"),
        (b"accept-encoding", b"identity"),
        (b"authorization", f"Bearer {KEYS['openai']}".encode()),
        (b"content-length", b"%d" % len(b'{"model":"m-1"}')),
        (b"content-type", b"application/json"),
        (b"host", b"127.0.0.1:%d" % upstream.openai.port),
        (b"user-agent", f"lls-openai/{version('lls-openai')}".encode()),
    ]


@pytest.mark.parametrize(
    ("sent", "received"),
    [
        pytest.param(
            b'{ "a" : 1.0,\r\n\t"model" : "openai/m-1"\n}\n',
            b'{"a":1.0,"model":"m-1"}',
            id="whitespace",
        ),
        pytest.param(
            codecs.BOM_UTF8 + b'{"model":"openai/m-1","a":1}',
            b'{"model":"m-1","a":1}',
            id="byte-order-mark",
        ),
        pytest.param(
            rb'{"caf\u00e9":1,"\u006dodel":"openai\/m-1"}',
            '{"café":1,"model":"m-1"}'.encode(),
            id="escaped-names",
        ),
        # Routing reads the last one.
        pytest.param(
            b'{"model":"gemini/x","model":"openai/m-1"}',
            b'{"model":"m-1"}',
            id="repeated-model",
        ),
    ],
)
def test_whitespace_and_escapes_of_names_are_normalised(
    server: Server, upstream: Upstream, sent: bytes, received: bytes
) -> None:
    assert send(server, sent) == 200
    assert upstream.openai.request.body == received


def large_body(size: int) -> bytes:
    """Return a body that is expensive to check, and valid."""
    # UTF-8 is checked in pieces; the emoji lies across the border of two.
    body = b'{"model":"openai/m-1","a":"'.ljust(65535, b":") + "😀".encode()
    # The limit of colons.
    body += b":" * (500_000 - body.count(b":"))
    return body + b"".join(b"%08x" % n for n in range(size // 8)) + b'"}'


def test_large_body_arrives_and_takes_little_memory(
    server: Server, upstream: Upstream
) -> None:
    """Python's own text would take four bytes a letter, for the emoji."""
    upstream.openai.script(respond())
    body = large_body(20 * MEBIBYTE)
    growth = server.measure_growth()

    assert send(server, body) == 200
    assert growth() < 88 * MEBIBYTE
    arrived = upstream.openai.request
    assert arrived.body == body.replace(b"openai/m-1", b"m-1", 1)
    assert arrived.header("content-length") == str(len(arrived.body))


def test_chunked_body_arrives_with_content_length(
    server: Server, upstream: Upstream
) -> None:
    upstream.openai.script(respond())
    body = large_body(MEBIBYTE)
    parts = [body[at : at + 99_999] for at in range(0, len(body), 99_999)]
    start = request(b"POST", CHAT, CHUNKED)

    response = exchange(server.port, start, *map(chunk, parts), LAST_CHUNK)

    assert response.status == 200
    arrived = upstream.openai.request
    assert arrived.body == body.replace(b"openai/m-1", b"m-1", 1)
    assert arrived.header("content-length") == str(len(arrived.body))
    assert arrived.header("transfer-encoding") is None


@pytest.mark.parametrize(
    ("provider", "target"), [(n, t) for n, (_, t) in BASE_URLS.items()]
)
def test_version_is_appended_to_base_url_without_one(
    server: Server, upstream: Upstream, provider: str, target: str
) -> None:
    assert send(server, to_json({"model": f"{provider}/m-1"})) == 200
    assert upstream.openai.request.target == target
