"""Names that no registered model has go to the provider whose patterns match."""

import httpx
import pytest

from tests.support.http import CHAT, EMBEDDINGS, MESSAGES, MODEL, MODELS, bearer, chat
from tests.support.server import Server
from tests.support.upstream import MockServer, Upstream
from tests.support.wire import respond

pytestmark = pytest.mark.providers(
    {
        "acme": {"model_patterns": ["acme-*"], "allowed_models": ["acme-1", "acme-2"]},
        "acme-eu": {"model_patterns": ["acme-[23]"]},
    }
)


def call(client: httpx.Client, model: str, path: str = CHAT) -> httpx.Response:
    return client.post(path, json=chat(model), headers=bearer())


@pytest.mark.parametrize(
    ("name", "path", "vendor"),
    [
        pytest.param("claude-opus-5-5", MESSAGES, "anthropic", id="agent-sdk-claude"),
        pytest.param("gpt-5.6-luna", CHAT, "openai", id="agents-sdk"),
        pytest.param("gpt-5.4-nano", CHAT, "openai", id="opencode-titles"),
        pytest.param("text-embedding-3-small", EMBEDDINGS, "openai", id="embeddings"),
        pytest.param("gemini-3.5-flash-lite", CHAT, "gemini", id="gemini"),
        pytest.param("o3", CHAT, "openai", id="o3"),
        pytest.param("codex-mini-latest", CHAT, "openai", id="codex"),
    ],
)
def test_bare_name_is_sent_to_the_provider_whose_patterns_match(
    server: Server,
    upstream: Upstream,
    client: httpx.Client,
    name: str,
    path: str,
    vendor: str,
) -> None:
    mock: MockServer = getattr(upstream, vendor)
    mock.script(respond())

    response = call(client, name, path)

    assert response.status_code == 200, response.text
    assert upstream.requests == [mock.request]
    assert mock.request.json["model"] == name
    request_id = response.headers["x-request-id"]
    (entry,) = server.wait_access_log(request_id=request_id)
    # A client can invent any number of names, so log and metrics have none of them.
    assert (entry["model"], entry["provider"]) == ("other", vendor)


def test_registered_name_comes_before_the_patterns(
    server: Server, upstream: Upstream, client: httpx.Client
) -> None:
    """`gpt-*` is a pattern of `openai`; the model is one of `openai-mini`."""
    upstream.openai.script(respond())

    response = call(client, "gpt-4o-mini")

    assert response.status_code == 200, response.text
    request_id = response.headers["x-request-id"]
    (entry,) = server.wait_access_log(request_id=request_id)
    assert entry["model"] == "openai-mini/gpt-4o-mini"


def test_name_that_patterns_of_several_providers_match_is_rejected_with_their_names(
    upstream: Upstream, client: httpx.Client
) -> None:
    response = call(client, "acme-2")

    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (404, "model_not_found")
    assert "acme-eu/acme-2, acme/acme-2" in error["message"]
    assert upstream.requests == []


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("GPT-5", id="other-case"),
        pytest.param("my-gpt-5", id="only-inside"),
        pytest.param("o-3", id="no-digit"),
        pytest.param("elsewhere/gpt-5", id="unknown-provider"),
    ],
)
def test_name_that_matches_no_pattern_is_not_found(
    upstream: Upstream, client: httpx.Client, name: str
) -> None:
    response = call(client, name)

    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (404, "model_not_found")
    assert f"'{name}'" in error["message"]
    assert upstream.requests == []


@pytest.mark.parametrize(("name", "status"), [("acme-1", 200), ("acme-4", 404)])
def test_allowed_models_hold_for_a_name_that_matches(
    upstream: Upstream, client: httpx.Client, name: str, status: int
) -> None:
    upstream.openai.script(respond())

    response = call(client, name)

    assert response.status_code == status, response.text
    assert len(upstream.requests) == (status == 200)


def test_model_is_retrieved_by_its_bare_name(client: httpx.Client) -> None:
    bare, full = (client.get(f"{MODELS}/{name}") for name in ("gpt-4o", MODEL))

    assert bare.status_code == 200, bare.text
    assert {**bare.json(), "created": 0} == {**full.json(), "created": 0}
    assert bare.json()["id"] == MODEL


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("gpt-5.6-luna", id="matches-a-pattern"),
        pytest.param("openai/gpt-5.6-luna", id="full-name"),
        pytest.param("acme-2", id="several-providers"),
    ],
)
def test_model_that_is_not_registered_is_not_retrieved(
    server: Server, client: httpx.Client, name: str
) -> None:
    """Only its vendor knows whether it exists."""
    response = client.get(f"{MODELS}/{name}")

    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (404, "model_not_found")
    assert name in error["message"]
    request_id = response.headers["x-request-id"]
    (entry,) = server.wait_access_log(request_id=request_id)
    assert entry["code"] == "model_not_found"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        pytest.param("POST", CHAT, id="call"),
        pytest.param("GET", f"{MODELS}/unknown", id="model"),
        pytest.param("GET", "/v1/unknown", id="route"),
    ],
)
def test_error_has_anthropics_form_on_any_path_if_its_version_was_sent(
    client: httpx.Client, method: str, path: str
) -> None:
    headers = bearer() | {"anthropic-version": "2023-06-01"}

    response = client.request(method, path, json=chat("unknown"), headers=headers)

    error = response.json()["error"]
    assert response.status_code == 404, response.text
    assert response.json() == {
        "type": "error",
        "error": {"type": "not_found_error", "message": error["message"]},
    }
