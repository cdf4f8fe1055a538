"""Llama Stack's TLS, authentication, policies and CORS work in front of the relay."""

import httpx
import pytest

from tests.calls import CHAT, KEY, Answer, call, chat, provider_data
from tests.endpoint import Endpoint
from tests.scripts import DONE, streaming
from tests.server import Server
from tests.upstream import Upstream

pytest_plugins = ["tests.variants"]

GEMINI = "gemini/gemini-2.5-flash-lite"
PAGE = {"Origin": "https://page.example"}
ELSEWHERE = {"Origin": "https://elsewhere.example"}


def _as(user: str, **data: str) -> dict[str, str]:
    """The headers of a user's call: a token, and what provider data holds."""
    return {"Authorization": f"Bearer token-of-{user}"} | provider_data(**data)


def _call(
    server: Server, https: httpx.Client, user: str, model: str = "openai/gpt-4o"
) -> Answer:
    headers = _as(user, passthrough_api_key=KEY)
    return call(https, server.url, chat(model), headers=headers)


def test_calls_come_over_tls(
    guarded_server: Server, upstream: Upstream, https: httpx.Client
) -> None:
    """Regular and streamed; without TLS there is no answer."""
    upstream.openai.answer_with(streaming(b"data: 1\n\n", DONE))

    answer = _call(guarded_server, https, "alice")

    assert (answer.status, answer.body) == (200, b"data: 1\n\n" + DONE)
    with pytest.raises(httpx.RemoteProtocolError):
        https.get(guarded_server.url.replace("https", "http") + "/v1/health")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer token-of-nobody"},
        {"Authorization": "Basic token-of-alice"},
        {"Authorization": f"Bearer {KEY}"},
    ],
    ids=str,
)
def test_a_call_without_a_good_token_is_llama_stacks_to_refuse(
    guarded_server: Server,
    upstream: Upstream,
    https: httpx.Client,
    headers: dict[str, str],
) -> None:
    """401, whatever key comes with it; the relay never sees the call."""
    sent = headers | provider_data(passthrough_api_key=KEY)

    answer = call(https, guarded_server.url, chat(), headers=sent)

    assert (answer.status, answer.error.get("code")) == (401, None)
    assert upstream.openai.calls == []


def test_with_authentication_on_the_token_is_not_forwarded(
    guarded_server: Server,
    upstream: Upstream,
    https: httpx.Client,
    gatekeeper: Endpoint,
) -> None:
    """The key in provider data goes up, and the server's token nowhere."""
    answer = _call(guarded_server, https, "alice")

    (arrived,) = upstream.openai.calls
    assert (200, [f"Bearer {KEY}"]) == (
        answer.status,
        arrived.header_values("authorization"),
    )
    assert all(b"token-of" not in value for _, value in arrived.headers)
    assert b'"token-of-alice"' in gatekeeper.posted[-1][1]


@pytest.mark.parametrize("data", [{}, {"openai_api_key": KEY}], ids=str)
def test_with_authentication_on_a_token_is_no_key(
    guarded_server: Server,
    upstream: Upstream,
    https: httpx.Client,
    data: dict[str, str],
) -> None:
    """`Authorization` belongs to the server: without another header there is no key."""
    headers = _as("alice", **data)

    answer = call(https, guarded_server.url, chat(), headers=headers)

    assert answer.error_code == (401, "missing_api_key")
    assert upstream.openai.calls == []


def test_the_route_policy_decides_who_may_call(
    guarded_server: Server, upstream: Upstream, https: httpx.Client
) -> None:
    """Carol may list the models, but call none."""
    listed = https.get(f"{guarded_server.url}/v1/models", headers=_as("carol"))
    answer = _call(guarded_server, https, "carol", GEMINI)

    assert (listed.status_code, answer.status) == (200, 403)
    assert upstream.gemini.calls == []


@pytest.mark.parametrize(
    ("user", "model", "status"),
    [
        ("alice", "openai/gpt-4o", 200),
        ("alice", GEMINI, 200),
        ("bob", GEMINI, 200),
        ("bob", "gemini/gemini-3.5-flash-lite", 200),
        ("bob", "openai/gpt-4o", 404),
        ("bob", "openai/gpt-4o-mini", 404),
        ("bob", "anthropic/claude-haiku-4-5-20251001", 404),
    ],
)
def test_the_access_policy_decides_which_models(
    guarded_server: Server, https: httpx.Client, user: str, model: str, status: int
) -> None:
    """Registered or not; what a user may not read is not there."""
    assert status == _call(guarded_server, https, user, model).status


def test_a_model_that_is_not_there_is_named_with_those_that_are(
    guarded_server: Server, upstream: Upstream, https: httpx.Client
) -> None:
    """The message lists the models of this user, and no others."""
    answer = _call(guarded_server, https, "bob")

    assert answer.error_code == (404, "model_not_found")
    assert f"Registered: {GEMINI}. " in answer.error["message"]
    assert upstream.openai.calls == []


def test_a_browser_may_ask_before_it_calls(
    guarded_server: Server, upstream: Upstream, https: httpx.Client
) -> None:
    """The preflight is answered without a token and without a key."""
    asking = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,x-llamastack-provider-data",
    }

    allowed, refused = (
        https.options(guarded_server.url + CHAT, headers=origin | asking)
        for origin in (PAGE, ELSEWHERE)
    )

    names = {
        name.strip().lower()
        for name in allowed.headers["access-control-allow-headers"].split(",")
    }
    assert (allowed.status_code, refused.status_code) == (200, 400)
    assert PAGE["Origin"] == allowed.headers["access-control-allow-origin"]
    assert {"authorization", "x-llamastack-provider-data"} <= names
    assert upstream.openai.calls == []


@pytest.mark.parametrize(
    ("model", "status"),
    [("openai/gpt-4o", 200), ("openai/unknown", 404), ("none", 404)],
)
def test_a_browser_may_read_answers_and_errors(
    guarded_server: Server, https: httpx.Client, model: str, status: int
) -> None:
    """The upstream's and the server's own carry what a browser wants to see."""
    headers = _as("alice", passthrough_api_key=KEY)

    mine, others = (
        call(https, guarded_server.url, chat(model), headers=headers | origin)
        for origin in (PAGE, ELSEWHERE)
    )

    allowing = "access-control-allow-origin"
    assert (status, PAGE["Origin"], "x-request-id", None) == (
        mine.status,
        mine.headers[allowing],
        mine.headers["access-control-expose-headers"],
        others.headers.get(allowing),
    )
