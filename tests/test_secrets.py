"""A caller's key and prompt are in no log line, in no file and in no error's text."""

import pytest

from lls_openai.relay.credentials import Credentials
from lls_openai.settings import ProviderConfig
from tests.support.http import (
    CHAT,
    HEALTH_REQUEST,
    MODELS,
    chat,
    eventually,
    exchange,
    request,
    to_json,
)
from tests.support.network import Network
from tests.support.run_yaml import DEBUG_LOGGING, WITH_AUTH, Variation
from tests.support.server import Server, Servers
from tests.support.upstream import Upstream
from tests.support.wire import DONE, JSON, RESET, Step, event, respond, stream

# Canaries: made up, and searched for.
KEY = "sk-openai-mock-k3yk3yk3y"
PROMPT = "pr0mptpr0mpt"
TOKEN = "t0kent0ken"  # noqa: S105 - made up
TRACES = (KEY[-9:], PROMPT, TOKEN)
TRACEBACKS = ("Traceback", '"exc_info": [', "Exception in", "was never retrieved")

K, T = KEY.encode(), TOKEN.encode()
TYPED = (b"Host: localhost", b"Content-Type: application/json")
BEARER = b"Authorization: Bearer " + K
DATA = b'X-LlamaStack-Provider-Data: {"passthrough_api_key":"%b"}' % K
URL = b'X-OGX-Provider-Data: {"passthrough_url":"https://%b@h"}' % K
LONG = b"Content-Length: 99999999"
LISTED = DATA.replace(b'"%b"' % K, b'["%b"]' % K)
CHUNKED = b"Transfer-Encoding: chunked"
ECHO = f'{{"error":{{"message":"{KEY}: {PROMPT}"}}}}'.encode()
BODY = to_json(chat(messages=[{"role": "user", "content": PROMPT}]))
STREAMED = BODY[:-1] + b',"stream":true}'


def post(*lines: bytes, body: bytes | None = BODY, path: str = CHAT) -> bytes:
    return request(b"POST", path, *lines, body=body, headers=TYPED)


# A name: the status, what is sent, and what the upstream does.
type Attempts = dict[str, tuple[int, bytes, *tuple[Step, ...]]]

PASSED: Attempts = {
    "a stream": (200, post(BEARER, body=STREAMED)),
    "provider data": (200, post(DATA)),
    "a query": (200, post(BEARER, path=f"{CHAT}?key={KEY}")),
    "the models": (200, request(b"GET", MODELS, DATA, headers=TYPED)),
    "no model": (404, request(b"GET", f"{MODELS}/nobody/m-1", DATA, headers=TYPED)),
    "an echo": (401, post(BEARER), respond(ECHO, 401)),
    "a redirect": (302, post(BEARER), respond(ECHO, 302, JSON | {"location": KEY})),
    "an error in a stream": (200, post(BEARER), *stream(event(KEY + PROMPT), DONE)),
    "a stream that breaks off": (200, post(BEARER), *stream(event(PROMPT), end=RESET)),
}
REFUSED: Attempts = {
    "no key": (401, post()),
    "half provider data": (400, post(DATA[:-1])),
    "a key of another type": (400, post(LISTED)),
    "a key with a line break": (400, post(DATA.replace(b'"}', rb'\n"}'))),
    "a key in a URL": (400, post(BEARER, URL)),
    "no UTF-8": (400, post(BEARER, body=BODY.replace(b"user", b"\xff"))),
    "an unknown model": (404, post(BEARER, body=BODY.replace(b"openai/", b"nobody/"))),
    "a body too large": (413, post(BEARER, LONG, body=None) + BODY),
    "a head too large": (431, post(*[b"X-A: " + K] * 20_000)),
    "no JSON": (415, request(body=BODY, headers=(TYPED[0], BEARER))),
    "a closed route": (404, post(DATA, path="/v1/files")),
    "another method": (405, request(b"PUT", CHAT, DATA, body=BODY, headers=TYPED)),
    "no HTTP": (400, f"POST /{KEY} {PROMPT}\r\n\r\n".encode()),
    "a chunk that is none": (400, post(BEARER, CHUNKED, body=None) + ECHO),
    "an answer that is no HTTP": (502, post(BEARER), ECHO * 2, RESET),
}
# To a server that has tokens of its own.
AUTHENTICATED: Attempts = {
    f"the token {value!r}": (401, post(DATA, b"Authorization: " + value))
    for value in (b"Bearer " + T, b"Bearer %b\xff" % T, b"Basic " + T, T)
}
ALL = PASSED | REFUSED | AUTHENTICATED


def found(text: str, *more: str) -> list[str]:
    wanted = (*TRACES, *more)
    return [x for x in text.splitlines() if any(each in x for each in wanted)]


@pytest.mark.parametrize(
    "name",
    [
        *(PASSED | REFUSED),
        *(pytest.param(name, marks=DEBUG_LOGGING) for name in PASSED | REFUSED),
        *(pytest.param(name, marks=WITH_AUTH) for name in AUTHENTICATED),
    ],
)
def test_a_call_leaves_no_trace(server: Server, upstream: Upstream, name: str) -> None:
    status, sent, *steps = ALL[name]
    if steps:
        upstream.openai.script(*steps)

    before = len(server.read("stdout")), len(server.read("stderr"))
    got = exchange(server.port, sent)
    # There is one event loop: what was done before this was logged before it.
    assert exchange(server.port, HEALTH_REQUEST).status < 500

    new = server.read("stdout")[before[0] :] + server.read("stderr")[before[1] :]
    assert found(new, *TRACEBACKS) == []
    assert got.status == status
    assert name in PASSED or found(got.body.decode()) == []
    assert [path for path in server.files.rglob("*") if path.is_file()] == []


def test_what_is_printed_shows_no_secret() -> None:
    proxy = {"url": f"http://user:{TOKEN}@proxy"}
    network = {"headers": {"X-A": TOKEN}, "proxy": proxy}
    settings = ProviderConfig.model_validate(
        {"base_url": "https://host", "api_key": KEY, "network": network}
    )
    credentials = Credentials(KEY, is_bearer=True, provider_data={"a": KEY})

    assert found(f"{credentials!r} {settings!r} {settings}") == []


def test_metrics_contain_no_secret(
    servers: Servers, network: Network, upstream: Upstream
) -> None:
    url = f"{network.env['COLLECTOR_URL']}/secrets-test"
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_METRIC_EXPORT_INTERVAL": "100"}
    server = servers.get(Variation(env=env))
    for status, sent, *steps in (PASSED | REFUSED).values():
        if steps:
            upstream.openai.script(*steps)
        assert exchange(server.port, sent).status == status

    def exports() -> list[bytes]:
        requests = [r for r in upstream.collector.requests if "/secrets-" in r.path]
        return [each.body for each in requests if each.complete]

    # The last attempt's error; the export holds all earlier attempts.
    eventually(lambda: b"upstream_unreachable" in b"".join(exports()), "an export")
    exported = exports()[-1].decode(errors="replace")
    assert "model_not_found" in exported
    assert found(exported) == []
