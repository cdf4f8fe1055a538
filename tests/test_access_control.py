"""Llama Stack's users, policies and other providers apply to relayed models."""

import httpx
import pytest

from tests.support.http import (
    CHAT,
    COUNT_TOKENS,
    EMBEDDINGS,
    GEMINI_MODEL,
    KEYS,
    MODELS,
    bearer,
    chat,
    provider_data,
)
from tests.support.run_yaml import IS_OGX, WITH_AUTH
from tests.support.upstream import Upstream
from tests.support.wire import Json, respond

# The field of the stock provider's key.
STOCK_KEY = "stock_api_key" if IS_OGX else "openai_api_key"
pytestmark = WITH_AUTH


def headers_of(user: str, key: str = KEYS["openai"], **data: str) -> dict[str, str]:
    sent = provider_data(key, **data)
    if IS_OGX:
        # Its stock providers do not read Llama Stack's header.
        sent = {"x-ogx-provider-data": sent["x-llamastack-provider-data"]}
    return bearer(f"token-of-{user}") | sent


@pytest.mark.parametrize(
    ("route", "name", "code", "message"),
    [
        pytest.param(
            EMBEDDINGS,
            "gpt-4o-mini",
            "invalid_request_body",
            "embedding",
            id="llm-on-embeddings-route",
        ),
        pytest.param(
            CHAT,
            "openai/text-embedding-3-small",
            "invalid_request_body",
            "llm",
            id="embedding-model-on-chat-route",
        ),
        pytest.param(
            CHAT,
            "gpt-4o",
            "model_not_found",
            "openai-mini/gpt-4o, openai/gpt-4o",
            id="bare-name-of-several-models",
        ),
    ],
)
def test_model_that_does_not_fit_is_rejected(
    client: httpx.Client,
    upstream: Upstream,
    route: str,
    name: str,
    code: str,
    message: str,
) -> None:
    body = {"model": name, "input": "hello"}

    response = client.post(route, json=body, headers=headers_of("alice"))

    error = response.json()["error"]
    assert (response.is_success, error["code"]) == (False, code)
    assert message in error["message"]
    assert upstream.requests == []


def test_embedding_model_is_called_by_its_bare_name(
    client: httpx.Client, upstream: Upstream
) -> None:
    body = {"model": "text-embedding-3-small", "input": "hello"}

    response = client.post(EMBEDDINGS, json=body, headers=headers_of("alice"))

    assert response.status_code == 200, response.text
    assert upstream.openai.request.json["model"] == "text-embedding-3-small"


@pytest.mark.parametrize(
    "model",
    [
        "gemini-2.5-flash-lite",
        "gemini/gemini-3.5-flash-lite",
        # By a pattern.
        "gemini-3.5-flash-lite",
    ],
)
def test_user_may_call_a_model_that_the_access_policy_permits(
    client: httpx.Client, model: str
) -> None:
    headers = headers_of("bob", KEYS["gemini"])

    response = client.post(CHAT, json=chat(model), headers=headers)

    assert response.status_code == 200, response.text


@pytest.mark.parametrize(
    "model", ["gpt-4o-mini", "openai/gpt-4o", "openai/gpt-5.6-luna", "gpt-5.6-luna"]
)
def test_model_that_the_access_policy_hides_is_not_found(
    client: httpx.Client, upstream: Upstream, model: str
) -> None:
    """Also after a user who may call it has done so."""
    client.post(CHAT, json=chat(model), headers=headers_of("alice"))
    upstream.reset()

    response = client.post(CHAT, json=chat(model), headers=headers_of("bob"))

    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (404, "model_not_found")
    assert GEMINI_MODEL in error["message"]
    assert "openai/gpt-4o," not in error["message"]
    assert upstream.requests == []


def test_hidden_model_is_not_retrieved(client: httpx.Client) -> None:
    response = client.get(f"{MODELS}/openai/gpt-4o", headers=headers_of("bob"))

    assert response.status_code == 404, response.text
    assert response.json()["error"]["code"] == "model_not_found"


@pytest.mark.parametrize("user", ["bob", "carol"])
def test_only_permitted_models_are_listed(client: httpx.Client, user: str) -> None:
    listed = client.get(MODELS, headers=headers_of(user)).json()["data"]

    assert [model["id"] for model in listed] == [GEMINI_MODEL]


@pytest.mark.parametrize(
    "path", [CHAT, "/chat/completions", "/v1/v1/chat/completions", COUNT_TOKENS]
)
@pytest.mark.parametrize(("user", "status"), [("bob", 200), ("carol", 404)])
def test_route_policy_applies_to_a_route_under_every_path(
    client: httpx.Client, upstream: Upstream, user: str, status: int, path: str
) -> None:
    """`/v1/*` is for developers; it opens all routes that are known to be relayed."""
    response = client.post(path, json=chat(GEMINI_MODEL), headers=headers_of(user))

    assert response.status_code == status, response.text
    assert len(upstream.requests) == (status == 200)


def test_without_patterns_only_registered_and_full_names_are_found(
    client: httpx.Client, upstream: Upstream
) -> None:
    names = "claude-opus-5-5", "anthropic/claude-opus-5-5"

    statuses = [
        client.post(CHAT, json=chat(name), headers=headers_of("alice")).status_code
        for name in names
    ]

    assert statuses == [404, 200]
    assert len(upstream.anthropic.requests) == 1


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"stream": True}, id="streamed"),
        pytest.param({"user": "x" * 3_000_000}, id="large"),
    ],
)
def test_stock_provider_still_works(
    client: httpx.Client, upstream: Upstream, fields: Json
) -> None:
    headers = headers_of("alice", **{STOCK_KEY: KEYS["openai"]})

    response = client.post(CHAT, json=chat("stock/gpt-4o", **fields), headers=headers)

    assert response.status_code == 200, response.text
    assert '"model":"stock/gpt-4o"' in response.text.replace(" ", "")
    assert upstream.openai.request.key == KEYS["openai"]
    assert upstream.openai.request.json.items() >= fields.items()


def test_stock_provider_still_asks_for_its_key(client: httpx.Client) -> None:
    response = client.post(CHAT, json=chat("stock/gpt-4o"), headers=headers_of("alice"))

    assert not response.is_success
    assert STOCK_KEY in response.text


def run_shield(client: httpx.Client) -> httpx.Response:
    """Call Llama Stack's safety API, which calls a model with the client's key."""
    body: Json = {"shield_id": GEMINI_MODEL, "params": {}} | chat()
    # After an error, Llama Stack's server closes the connection without saying so.
    headers = headers_of("alice", KEYS["gemini"]) | {"connection": "close"}
    return client.post("/v1/safety/run-shield", json=body, headers=headers)


def test_call_from_inside_llama_stack_is_sent_to_the_pinned_upstream(
    client: httpx.Client, upstream: Upstream
) -> None:
    upstream.gemini.script(
        respond(b'{"choices":[{"index":0,"message":{"content":"safe"}}]}')
    )

    response = run_shield(client)

    assert response.json() == {"violation": None}
    request = upstream.gemini.request
    assert request.path == "/v1beta/openai/chat/completions"
    assert request.json["model"] == GEMINI_MODEL.partition("/")[2]
    assert request.key == KEYS["gemini"]


def test_call_from_inside_llama_stack_is_not_retried(
    client: httpx.Client, upstream: Upstream
) -> None:
    """The stock provider tries three times."""
    failure = respond(b"{}", 503, {"retry-after": "0"})
    upstream.gemini.script(failure, times=None)

    response = run_shield(client)

    assert not response.is_success
    assert len(upstream.gemini.requests) == 1
