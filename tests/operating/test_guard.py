"""A token of one's own in front, for a page in a browser as well."""

from collections.abc import Iterator

import httpx
import pytest

from tests import readme
from tests.calls import CHAT, call, chat, provider_data
from tests.operating import lines
from tests.operating.conftest import Identity
from tests.server import Server
from tests.upstream import Upstream

SECTIONS = ("A token of one's own in front", "A browser page (CORS)")
PAGE = "https://app.example.com"
KEY = provider_data(passthrough_api_key="sk-of-a-caller")


@pytest.fixture(scope="module")
def guarded(
    running_upstream: Upstream,
    identity: Identity,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:
    """The server."""
    directory = tmp_path_factory.mktemp("guarded")
    config = lines.run_yaml(directory, SECTIONS)
    variables = running_upstream.environment | identity.variables
    with Server(directory, run_yaml=config, variables=variables) as running:
        yield running


def test_the_key_goes_on_and_the_token_does_not(
    guarded: Server, upstream: Upstream, http: httpx.Client, identity: Identity
) -> None:
    """The vendor gets the key of the provider data, and nowhere the token."""
    headers = _bearer(identity.token) | KEY
    answer = call(http, guarded.url, chat(), headers=headers)
    (arrived,) = upstream.openai.calls
    values = b"".join(value for _, value in arrived.headers)
    assert (answer.status, arrived.key) == (200, "sk-of-a-caller")
    assert identity.token.encode() not in values


@pytest.mark.parametrize("token", ["sk-of-a-caller", "", "e30.e30.e30"])
def test_nothing_but_a_token_is_let_in(
    guarded: Server, upstream: Upstream, http: httpx.Client, token: str
) -> None:
    """A vendor's key is no token, with the provider data or without."""
    statuses = [
        call(http, guarded.url, chat(), headers=_bearer(token) | key).status
        for key in (KEY, {})
    ]
    assert (statuses, upstream.openai.calls) == ([401, 401], [])


def test_a_token_is_no_key(
    guarded: Server, upstream: Upstream, http: httpx.Client, identity: Identity
) -> None:
    """With the token alone, the key is asked for."""
    answer = call(http, guarded.url, chat(), headers=_bearer(identity.token))
    assert answer.error_code == (401, "missing_api_key")
    assert upstream.openai.calls == []


def test_health_and_version_stay_open(guarded: Server, http: httpx.Client) -> None:
    """They answer without a token, and the list of models does not."""
    paths = ("/v1/health", "/v1/version", "/v1/models")
    statuses = [http.get(guarded.url + path).status_code for path in paths]
    assert statuses == [200, 200, 401]


def test_make_client_takes_the_token(guarded: Server, identity: Identity) -> None:
    """By the variable that README names."""
    text = readme.section(SECTIONS[0]).text
    (command,) = [c for c in readme.words(text) if c.endswith("make client")]
    variables = {"LLAMA_STACK_PORT": str(guarded.port), "OPENAI_API_KEY": "a-key"}
    ended = identity.checkout.run(command, **variables)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.count("heard: ") == 6


@pytest.mark.parametrize("name", ["X-LlamaStack-Provider-Data", "X-Stainless-Lang"])
def test_a_page_may_ask(guarded: Server, http: httpx.Client, name: str) -> None:
    """The browser's question before the call needs no token, and is answered yes."""
    answer = _preflight(guarded, http, PAGE, f"authorization,{name}")
    names = answer.headers["access-control-allow-headers"].lower()
    allowed = answer.headers["access-control-allow-origin"], name.lower() in names
    assert (answer.status_code, allowed) == (200, (PAGE, True))


def test_another_page_may_not(guarded: Server, http: httpx.Client) -> None:
    """Its browser is told no."""
    answer = _preflight(guarded, http, "https://elsewhere.example.com", "authorization")
    assert answer.status_code == 400
    assert "access-control-allow-origin" not in answer.headers


def test_a_page_may_read_answers(
    guarded: Server, http: httpx.Client, identity: Identity, upstream: Upstream
) -> None:
    """A whole answer, a stream and a refusal, with the request's id to ask about."""
    page = {"Origin": PAGE}
    asked = [
        (chat(), _bearer(identity.token) | KEY),
        (chat(stream=True), _bearer(identity.token) | KEY),
        (chat(), {}),
    ]
    answers = [call(http, guarded.url, b, headers=h | page) for b, h in asked]
    names = ("access-control-allow-origin", "access-control-expose-headers")
    seen = [(a.status, *(a.headers.get(name) for name in names)) for a in answers]
    exposed = (PAGE, "X-Request-Id, Retry-After")
    assert seen == [(200, *exposed), (200, *exposed), (401, *exposed)]
    assert len(upstream.openai.calls) == 2


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}


def _preflight(
    server: Server, http: httpx.Client, page: str, headers: str
) -> httpx.Response:
    asked = {
        "Origin": page,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": headers,
    }
    return http.options(server.url + CHAT, headers=asked)
