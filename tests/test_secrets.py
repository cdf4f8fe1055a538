"""Keys, tokens and prompts are in no log line, no file, and no error's message."""

import time
from pathlib import Path
from typing import Any

import pytest

from lls_openai.provider import UncheckedConfig
from lls_openai.relay.credentials import Credentials
from lls_openai.settings import ProviderConfig
from tests.support.http import (
    CHAT,
    CHUNKED,
    HEADERS_WITHOUT_KEY,
    MODELS,
    Response,
    chat,
    eventually,
    exchange,
    request,
    to_json,
)
from tests.support.run_yaml import DEBUG_LOGGING, EXPORTING_METRICS, VARIABLE, WITH_AUTH
from tests.support.server import Server
from tests.support.upstream import Upstream
from tests.support.wire import DONE, JSON, RESET, Step, event, respond, stream

# Made up, and found nowhere else.
KEY = "sk-openai-mock-k3yk3yk3y"
PROMPT = "pr0mptpr0mpt"
TOKEN = "t0kent0ken"  # noqa: S105 - made up
# The end of the key is searched for: an upstream may log its beginning.
SECRETS = (KEY[-9:], PROMPT, TOKEN)
# A traceback shows local variables, and an unretrieved exception its arguments.
TRACEBACKS = ("Traceback", '"exc_info": [', "Exception in", "was never retrieved")

HOST = HEADERS_WITHOUT_KEY[0]
BEARER = f"Authorization: Bearer {KEY}".encode()
PROVIDER_DATA = (
    f'X-LlamaStack-Provider-Data: {{"passthrough_api_key":"{KEY}"}}'.encode()
)
BODY = to_json(chat(messages=[{"role": "user", "content": PROMPT}]))
STREAMED_BODY = BODY.replace(b'"model"', b'"stream":true,"model"')
ECHO = f'{{"error":{{"message":"{KEY}: {PROMPT}"}}}}'.encode()


def post(*headers: bytes, body: bytes | None = BODY, path: str = CHAT) -> bytes:
    return request(b"POST", path, *headers, body=body, headers=HEADERS_WITHOUT_KEY)


def get(path: str, *headers: bytes) -> bytes:
    return request(b"GET", path, *headers, headers=HEADERS_WITHOUT_KEY)


ACCEPTED = [
    pytest.param(200, post(BEARER, body=STREAMED_BODY), [], id="stream"),
    pytest.param(200, post(PROVIDER_DATA), [], id="provider-data"),
    pytest.param(200, post(BEARER, path=f"{CHAT}?key={KEY}"), [], id="query"),
    pytest.param(200, get(MODELS, PROVIDER_DATA), [], id="models"),
    pytest.param(404, get(f"{MODELS}/unknown/m-1", PROVIDER_DATA), [], id="no-model"),
    pytest.param(401, post(BEARER), [respond(ECHO, 401)], id="upstream-echoes-secrets"),
    pytest.param(
        502,
        post(BEARER),
        [respond(ECHO, 302, JSON | {"location": KEY})],
        id="upstream-redirects",
    ),
    pytest.param(
        200,
        post(BEARER, body=STREAMED_BODY),
        stream(event(KEY + PROMPT), DONE),
        id="secrets-in-stream",
    ),
    pytest.param(
        200,
        post(BEARER, body=STREAMED_BODY),
        stream(event(PROMPT), end=RESET),
        id="broken-stream",
    ),
]
REJECTED = [
    pytest.param(401, post(), [], id="missing-key"),
    pytest.param(400, post(PROVIDER_DATA[:-1]), [], id="half-of-provider-data"),
    pytest.param(
        400,
        post(
            f'X-LlamaStack-Provider-Data: {{"passthrough_api_key":["{KEY}"]}}'.encode()
        ),
        [],
        id="key-in-array",
    ),
    pytest.param(
        400, post(PROVIDER_DATA.replace(b'"}', rb'\n"}')), [], id="key-with-line-feed"
    ),
    pytest.param(
        400,
        post(
            BEARER,
            f'X-OGX-Provider-Data: {{"passthrough_url":"https://{KEY}@h"}}'.encode(),
        ),
        [],
        id="key-in-url",
    ),
    pytest.param(
        400, post(BEARER, body=BODY.replace(b"user", b"\xff")), [], id="not-utf-8"
    ),
    pytest.param(
        404,
        post(BEARER, body=BODY.replace(b"openai/", b"unknown/")),
        [],
        id="unknown-model",
    ),
    pytest.param(
        413,
        post(BEARER, b"Content-Length: 99999999", body=None) + BODY,
        [],
        id="body-too-large",
    ),
    pytest.param(
        431, post(*[b"X-A: " + KEY.encode()] * 20_000), [], id="headers-too-large"
    ),
    pytest.param(
        415, request(body=BODY, headers=(HOST, BEARER)), [], id="no-content-type"
    ),
    pytest.param(404, post(PROVIDER_DATA, path="/v1/files"), [], id="unknown-route"),
    pytest.param(
        405,
        request(b"PUT", CHAT, PROVIDER_DATA, body=BODY, headers=HEADERS_WITHOUT_KEY),
        [],
        id="other-method",
    ),
    pytest.param(400, f"POST /{KEY} {PROMPT}\r\n\r\n".encode(), [], id="not-http"),
    pytest.param(
        400, post(BEARER, CHUNKED, body=None) + ECHO, [], id="invalid-chunk-size"
    ),
    pytest.param(502, post(BEARER), [ECHO * 2, RESET], id="invalid-upstream-response"),
]


def lines_with(text: str, *wanted: str) -> list[str]:
    return [x for x in text.splitlines() if any(each in x for each in wanted)]


def files_of(server: Server) -> list[Path]:
    return [path for path in server.files.rglob("*") if path.is_file()]


def send(server: Server, sent: bytes) -> tuple[Response, str]:
    """Send a request; return its response, and all output since."""
    stdout, stderr = len(server.read("stdout")), len(server.read("stderr"))
    response = exchange(server.port, sent)
    # The entry of a later request shows that this one's are written.
    later = f"/v1/later-{time.monotonic_ns()}"
    exchange(server.port, get(later))
    server.wait_log_line(later)
    log = server.read("stdout")[stdout:] + server.read("stderr")[stderr:]
    return response, log


BOTH_LEVELS = pytest.mark.parametrize(
    (), [pytest.param(id="info"), pytest.param(marks=DEBUG_LOGGING, id="debug")]
)


def check_log_and_files(
    server: Server, upstream: Upstream, status: int, sent: bytes, steps: list[Step]
) -> None:
    if steps:
        upstream.openai.script(*steps)

    response, log = send(server, sent)

    assert response.status == status, response
    assert lines_with(log, *SECRETS, *TRACEBACKS) == []
    assert files_of(server) == []


@BOTH_LEVELS
@pytest.mark.parametrize(("status", "sent", "steps"), ACCEPTED + REJECTED)
def test_log_and_files_have_no_secret(
    server: Server, upstream: Upstream, status: int, sent: bytes, steps: list[Step]
) -> None:
    check_log_and_files(server, upstream, status, sent, steps)


@WITH_AUTH
@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b"Bearer " + TOKEN.encode(), id="bearer"),
        pytest.param(b"Bearer " + TOKEN.encode() + b"\xff", id="not-utf-8"),
        pytest.param(b"Basic " + TOKEN.encode(), id="basic"),
        pytest.param(TOKEN.encode(), id="no-scheme"),
    ],
)
def test_rejected_token_is_not_logged(
    server: Server, upstream: Upstream, value: bytes
) -> None:
    sent = post(PROVIDER_DATA, b"Authorization: " + value)

    check_log_and_files(server, upstream, 401, sent, [])


@pytest.mark.parametrize(("status", "sent", "steps"), REJECTED)
def test_error_message_has_no_secret(
    server: Server, upstream: Upstream, status: int, sent: bytes, steps: list[Step]
) -> None:
    if steps:
        upstream.openai.script(*steps)

    response = exchange(server.port, sent)

    assert response.status == status, response
    assert lines_with(response.body.decode(), *SECRETS) == []


@BOTH_LEVELS
def test_log_search_finds_a_key_in_a_logged_path(server: Server) -> None:
    """Shows that the tests above can fail."""
    _, log = send(server, get(f"/v1/{KEY}"))

    assert lines_with(log, *SECRETS) != []


PROXY = {"proxy": {"url": f"http://a:{TOKEN}@127.0.0.1:9"}}


@pytest.mark.server(
    {"logging_config": {"category_levels": {"all": "debug"}}},
    providers={"proxied": {"network": PROXY}},
    env={f"{VARIABLE}_LOGGING": "all=debug"},
    as_module=True,
)
def test_debug_log_of_the_start_has_no_password_of_run_yaml(server: Server) -> None:
    """Llama Stack logs the whole file then."""
    server.wait_log_line('"debug"')

    assert lines_with(server.log, *SECRETS) == []


def test_file_search_finds_a_file(server: Server) -> None:
    planted = server.files / "work" / "planted"
    planted.write_text(PROMPT)
    try:
        assert files_of(server) == [planted]
    finally:
        planted.unlink()


def test_body_search_finds_secrets_that_an_upstream_echoes(
    server: Server, upstream: Upstream
) -> None:
    upstream.openai.script(respond(ECHO, 401))

    response = exchange(server.port, post(BEARER))

    assert lines_with(response.body.decode(), *SECRETS) != []


def test_settings_and_credentials_print_no_secret() -> None:
    proxy = {"url": f"http://user:{TOKEN}@proxy"}
    network = {"headers": {"X-A": TOKEN}, "proxy": proxy}
    config = {"base_url": "https://host", "api_key": KEY, "network": network}
    settings = ProviderConfig.model_validate(config)
    unchecked = UncheckedConfig.model_validate(config)
    credentials = Credentials(KEY, is_bearer=True, provider_data={"a": KEY})

    shown = f"{credentials!r} {settings!r} {settings} {unchecked!r} {unchecked}"
    assert lines_with(shown, *SECRETS) == []


@EXPORTING_METRICS
def test_metrics_have_no_secret(server: Server, upstream: Upstream) -> None:
    for case in ACCEPTED + REJECTED:
        values: Any = case.values
        status, sent, steps = values
        if steps:
            upstream.openai.script(*steps)
        assert exchange(server.port, sent).status == status

    def exports() -> list[bytes]:
        requests = [
            r for r in upstream.collector.requests if "/metrics-test/" in r.path
        ]
        return [each.body for each in requests if each.complete]

    # The first may have begun before the last request.
    before = len(exports())
    eventually(lambda: len(exports()) >= before + 2, "two more exports")
    exported = exports()[-1].decode(errors="replace")
    assert "model_not_found" in exported
    assert lines_with(exported, *SECRETS) == []
