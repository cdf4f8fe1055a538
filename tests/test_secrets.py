"""A caller's key and prompt are in no log line, in no file and in no error's text."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from lls_openai.relay.credentials import Credentials
from lls_openai.settings import ProviderConfig
from tests.support.http import CHAT, MESSAGES, MODELS, Raw, ask, chat, encoded, request
from tests.support.server import Server
from tests.support.upstream import Upstream
from tests.support.wire import (
    DONE,
    JSON,
    RESET,
    Gate,
    Step,
    answer,
    chunk,
    event,
    stream,
)

# Canaries: made up, and searched for.
KEY = "sk-openai-mock-k3yk3yk3y"
PROMPT = "pr0mptpr0mpt"
TOKEN = "t0kent0ken"  # noqa: S105 - made up
TRACES = (KEY[-9:], PROMPT, TOKEN)
TRACEBACKS = ("Traceback", '"exc_info": [', "Exception in", "was never retrieved")

TALKATIVE = pytest.mark.server(
    {"logging_config": {"category_levels": {"all": "debug"}}},
    env={"LLAMA_STACK_LOG_FORMAT": "text", "LLAMA_STACK_LOGGING": "all=debug"},
)
GUARDED = pytest.mark.server(
    {
        "server": {
            "auth": {
                "provider_config": {
                    "type": "custom",
                    "endpoint": "${env.GATEKEEPER_URL}",
                }
            }
        }
    }
)
TYPED = (b"Host: localhost", b"Content-Type: application/json")
BEARER = b"Authorization: Bearer " + KEY.encode()
X_API_KEY = b"X-Api-Key: " + KEY.encode()
DATA = b'X-LlamaStack-Provider-Data: {"passthrough_api_key":"%b"}' % KEY.encode()
CHUNKED = b"Transfer-Encoding: chunked"
ECHO = f'{{"error":{{"message":"{KEY}: {PROMPT}"}}}}'.encode()


def body(model: str = "openai/gpt-4o", **fields: object) -> bytes:
    """A chat request with the prompt in it."""
    return encoded(
        chat(model, messages=[{"role": "user", "content": PROMPT}], **fields)
    )


def post(
    *lines: bytes,
    body: bytes | None = body(),
    path: str = CHAT,
    method: bytes = b"POST",
) -> bytes:
    """A request with these header lines beside Host and type."""
    return request(method, path, *lines, body=body, own=TYPED)


@dataclass(frozen=True)
class Attempt:
    """A request, its status, and what the upstream answers; `own` is whose error."""

    sent: bytes
    status: int = 200
    steps: tuple[Step, ...] = ()
    own: bool = False


def own(status: int, sent: bytes) -> Attempt:
    """An attempt that this server answers with an error of its own."""
    return Attempt(sent, status, own=True)


def answered(status: int, *steps: Step, **fields: object) -> Attempt:
    """An attempt that the upstream answers."""
    return Attempt(post(BEARER, body=body(**fields)), status, steps)


ATTEMPTS = {
    "bearer": Attempt(post(BEARER)),
    "a stream": Attempt(post(BEARER, body=body(stream=True))),
    "provider data": Attempt(post(DATA)),
    "OGX's name": Attempt(post(DATA.replace(b"LlamaStack", b"OGX"))),
    "a query": Attempt(post(BEARER, path=f"{CHAT}?key={KEY}")),
    "a header that goes on": Attempt(post(BEARER, b"OpenAI-Project: " + KEY.encode())),
    "a cookie": Attempt(post(BEARER, b"Cookie: a=" + KEY.encode())),
    "the models": Attempt(post(DATA, method=b"GET", path=MODELS, body=None)),
    "a header that is no UTF-8": Attempt(
        post(X_API_KEY + b"\xff", method=b"GET", path="/v1/version", body=None), 400
    ),
    "another vendor": Attempt(post(X_API_KEY, path=MESSAGES), 200, (answer(),)),
    "no key": own(401, post()),
    "half provider data": own(400, post(DATA[:-1])),
    "provider data that is the key": own(
        400, post(b"X-LlamaStack-Provider-Data: " + KEY.encode())
    ),
    "a key of another type": own(400, post(DATA.replace(b'"sk', b'["sk'))),
    "a key in a list": own(
        400, post(DATA.replace(b'"}', b'"]}').replace(b'"sk', b'["sk'))
    ),
    "a key with a line break": own(400, post(DATA.replace(b'"}', rb'\n"}'))),
    "a key that is no ASCII": own(400, post(BEARER + b"\xe9")),
    "two keys": own(400, post(BEARER, BEARER)),
    "a key in a URL": own(
        400,
        post(
            BEARER,
            b'X-OGX-Provider-Data: {"passthrough_url":"https://%b@h"}' % KEY.encode(),
        ),
    ),
    "half a body": own(400, post(BEARER, body=body()[:-1])),
    "no JSON": own(400, post(BEARER, body=PROMPT.encode())),
    "no UTF-8": own(400, post(BEARER, body=body().replace(b"user", b"\xff"))),
    "a model that is none": own(400, post(BEARER, body=encoded({"model": [PROMPT]}))),
    "no model": own(400, post(BEARER, body=encoded({"messages": [PROMPT]}))),
    "an unknown model": own(404, post(BEARER, body=body("nobody/m-1"))),
    "a body too large": own(
        413, post(BEARER, b"Content-Length: 99999999", body=None) + body()
    ),
    "a head too large": own(431, post(*[X_API_KEY] * 20_000)),
    "another type": own(
        415, request(body=body(), own=(b"Host: a", b"Content-Type: a/b", BEARER))
    ),
    "a closed route": own(404, post(DATA, path="/v1/files")),
    "another method": own(405, post(DATA, method=b"PUT")),
    "no HTTP": own(400, f"POST /{KEY} {PROMPT}\r\n\r\n".encode()),
    "a header that is none": own(400, post(KEY.encode())),
    "a chunk that is none": own(400, post(BEARER, CHUNKED, body=None) + ECHO + b"\r\n"),
    "a wrong key": Attempt(post(BEARER.replace(b"sk-", b"no-")), 401),
    "a limit": answered(429, model="openai/rate-limited"),
    "an echo": answered(401, answer(ECHO, 401, JSON | {"x-request-id": "req_1"})),
    "a page": answered(502, answer(ECHO, 502, {"content-type": "text/html"})),
    "a redirect": answered(302, answer(ECHO, 302, JSON | {"location": f"/{KEY}"})),
    "a reset": Attempt(post(BEARER), 502, (RESET,), own=True),
    "an answer that is no HTTP": Attempt(
        post(BEARER), 502, (ECHO * 2, RESET), own=True
    ),
    "a stream that breaks off": answered(
        200, *stream(event({"a": PROMPT}), end=RESET), stream=True
    ),
    "an error in a stream": answered(
        200, *stream(b"data: " + ECHO + b"\n\n", DONE), stream=True
    ),
}
EACH = pytest.mark.parametrize("attempt", ATTEMPTS.values(), ids=ATTEMPTS)


def found(text: str, *more: str) -> list[str]:
    """The lines of a text that hold a canary."""
    wanted = (*TRACES, *more)
    return [x for x in text.splitlines() if any(each in x for each in wanted)]


def logged(server: Server, do: Callable[[], object]) -> list[str]:
    """What is wrong with what the server logs while something is done."""
    before = len(server.stdout), len(server.stderr)
    do()
    # There is one event loop: what was done before this was logged before it.
    assert ask(server.port, request(b"GET", "/v1/health")).status == 200
    new = server.stdout[before[0] :] + server.stderr[before[1] :]
    return found(new, *TRACEBACKS)


def try_it(server: Server, upstream: Upstream, attempt: Attempt) -> None:
    """Send a request and look at what comes of it."""
    if attempt.steps:
        upstream.openai.script(*attempt.steps)
        upstream.anthropic.script(*attempt.steps)
    seen = []
    assert logged(server, lambda: seen.append(ask(server.port, attempt.sent))) == []
    assert seen[0].status == attempt.status
    if attempt.own:
        assert found(seen[0].body.decode()) == []


@EACH
def test_a_call_leaves_no_trace(
    server: Server, upstream: Upstream, attempt: Attempt
) -> None:
    """Not in the log, where a traceback is none either, nor in an error's own text."""
    try_it(server, upstream, attempt)


@TALKATIVE
@EACH
def test_a_call_leaves_no_trace_with_all_that_can_be_logged(
    server: Server, upstream: Upstream, attempt: Attempt
) -> None:
    """Nor on disk: nothing is written there at all."""
    try_it(server, upstream, attempt)

    places = (server.home, server.work, server.temporary)
    assert [x for place in places for x in place.rglob("*") if x.is_file()] == []


@TALKATIVE
@pytest.mark.parametrize("place", ["body", "answer", "stream"])
def test_a_caller_that_leaves_leaves_no_trace(
    server: Server, upstream: Upstream, place: str
) -> None:
    """Inside its body, before the answer, and inside a stream."""
    first = event({"a": PROMPT})
    upstream.openai.script(*(stream(first, Gate()) if place == "stream" else [Gate()]))
    sent = post(BEARER, body=body(stream=True))

    def leave() -> None:
        with Raw(server.port) as raw:
            raw.send(sent[:-9] if place == "body" else sent)
            if place == "stream":
                raw.read_until(chunk(first))
            elif place == "answer":
                upstream.openai.wait_requests()
        for each in upstream.openai.requests:
            assert each.disconnected.wait(5)

    assert logged(server, leave) == []


@GUARDED
@pytest.mark.parametrize(
    "value", [b"Bearer %b", b"Bearer %b\xff", b"Basic %b", b"%b"], ids=repr
)
def test_a_token_of_the_servers_own_leaves_no_trace(
    server: Server, upstream: Upstream, value: bytes
) -> None:
    """Nor does the key beside it."""
    line = b"Authorization: " + value % TOKEN.encode()

    try_it(server, upstream, own(401, post(DATA, line)))


@pytest.mark.parametrize("shown", [repr, str])
def test_what_is_printed_shows_no_secret(shown: Callable[[object], str]) -> None:
    """Neither a caller's key nor what run.yaml may hold."""
    credentials = Credentials(KEY, is_bearer=True, provider_data={"a": KEY})
    settings = ProviderConfig.model_validate(
        {
            "base_url": "https://host",
            "api_key": KEY,
            "network": {
                "headers": {"X-A": TOKEN},
                "proxy": {"url": f"http://user:{TOKEN}@proxy"},
            },
        }
    )

    assert found(shown(credentials) + shown(settings)) == []
