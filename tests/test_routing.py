"""Whose a model is: Llama Stack's router decides; what is not ours, it answers."""

import asyncio
import re
from unittest.mock import MagicMock, patch

import httpx
import pytest
import yaml

from lls_openai.relay.model_lookup import OTHER, Routing
from tests.support import http
from tests.support.http import (
    CHAT,
    CLAUDE_MODEL,
    EMBEDDINGS,
    KEYS,
    MODELS,
    ROUTES,
    bearer,
    chat,
)
from tests.support.upstream import Upstream
from tests.support.wire import Json, respond

GEMINI = http.GEMINI_MODEL
NOT_FOUND = "404 model_not_found: "

# One server for all that Llama Stack decides: users and what they may read, models of
# two types, names that fit several, another type of provider, and an API of its own
# that calls a model from inside.
DECIDED: Json = yaml.safe_load("""
apis: [inference, safety]
providers:
  inference:
    - provider_id: stock
      provider_type: remote::openai
      config: {base_url: "${env.OPENAI_UPSTREAM_URL}/v1"}
  safety: [{provider_id: guard, provider_type: "inline::llama-guard", config: {}}]
registered_resources:
  models:
    - {model_id: gpt-4o, provider_id: openai-mini}
    - model_id: text-embedding-3-small
      provider_id: openai
      model_type: embedding
      metadata: {embedding_dimension: 3}
  shields: [{shield_id: gemini/gemini-2.5-flash-lite, provider_id: guard}]
server:
  auth:
    provider_config: {type: custom, endpoint: "${env.AUTH_URL}"}
    route_policy:
      - permit: {paths: [/v1/models, /v1/health]}
      - {permit: {paths: /v1/*}, when: user with developer in roles}
    access_policy:
      - permit: {principal: alice, actions: [read]}
      - permit: {actions: [read], resource: "regex:model::gemini/"}
""")
decided_by_llama_stack = pytest.mark.server(DECIDED)


def _as(user: str, **data: str) -> dict[str, str]:
    return bearer(f"token-of-{user}") | http.provider_data(**data)


def _arrived(upstream: Upstream) -> list[tuple[str, str]]:
    requests = (each for vendor in upstream.vendors for each in vendor.requests)
    return [(request.path, request.json["model"]) for request in requests]


def _told(answer: httpx.Response) -> str:
    if answer.is_success:
        return ""
    error = answer.json()["error"]
    return f"{answer.status_code} {error['code']}: {error['message']}"


@pytest.mark.parametrize("route", ROUTES)
def test_a_name_leads_to_a_provider(
    client: httpx.Client, upstream: Upstream, route: str
) -> None:
    """The one before the first "/", or that of the listed model of a bare name."""
    # With its provider, the last one is as long as a name may be.
    unlisted = ("ft:gpt-4o:org::id", "openai/é 😀", "x" * 249)
    bare = () if route == EMBEDDINGS else (CLAUDE_MODEL.partition("/")[2],)
    for vendor in (upstream.openai, upstream.anthropic):
        vendor.script(respond(), times=None)

    # Asked again, the answer is the same.
    for name in (*(f"openai/{name}" for name in unlisted), *bare) * 2:
        assert client.post(route, json={"model": name}, headers=bearer()).is_success

    assert _arrived(upstream) == [(route, name) for name in unlisted * 2 + bare * 2]


@pytest.mark.parametrize("name", ["gpt-5.6", "elsewhere/a", "", f"openai/{'x' * 250}"])
def test_an_unknown_name_is_told_with_the_registered_ones(
    client: httpx.Client, upstream: Upstream, name: str
) -> None:
    told = _told(client.post(CHAT, json=chat(name), headers=bearer()))

    shown = f"'{name}'" if len(name) <= 256 else "That name"
    assert told == (
        f"{NOT_FOUND}{shown} is no model of a provider here. Registered: "
        f"{CLAUDE_MODEL}, {GEMINI}, openai-mini/gpt-4.1-nano, "
        "openai-mini/gpt-4o-mini, openai/gpt-4o. "
        "Another is called as <provider>/<the vendor's name for it>"
    )
    assert _arrived(upstream) == []


@pytest.mark.providers({"listing": {"allowed_models": ["gpt-4o", "m/1"]}})
@pytest.mark.providers({"none-listed": {"allowed_models": []}})
@pytest.mark.parametrize(
    ("model", "allowed"),
    [("listing/m/1", ""), ("listing/a/m/1", "gpt-4o, m/1"), ("none-listed/a", "none")],
)
def test_only_a_model_in_allowed_models_is_called(
    client: httpx.Client, upstream: Upstream, model: str, allowed: str
) -> None:
    """The list has the vendor's own names; an empty one allows none."""
    upstream.openai.script(respond())

    told = _told(client.post(CHAT, json=chat(model), headers=bearer()))

    refused = f"{NOT_FOUND}This provider allows these models only: {allowed}"
    assert told == (refused if allowed else "")
    assert _arrived(upstream) == ([] if allowed else [(CHAT, "m/1")])


NO_TYPE = "400 invalid_request_body: This model is not of the type "
SEVERAL = "Several models here have that name: openai-mini/gpt-4o, openai/gpt-4o"


@decided_by_llama_stack
@pytest.mark.parametrize(
    ("route", "name", "expected"),
    [
        (EMBEDDINGS, "text-embedding-3-small", ""),
        (EMBEDDINGS, "gpt-4o-mini", f"{NO_TYPE}embedding"),
        (CHAT, "openai/text-embedding-3-small", f"{NO_TYPE}llm"),
        (CHAT, "gpt-4o", NOT_FOUND + SEVERAL),
    ],
)
def test_a_listed_model_has_a_type_and_a_bare_name_may_fit_several(
    client: httpx.Client, upstream: Upstream, route: str, name: str, expected: str
) -> None:
    body = {"model": name, "input": "hello"}

    assert _told(client.post(route, json=body, headers=_as("alice"))) == expected
    assert _arrived(upstream) == ([] if expected else [(route, name)])


@decided_by_llama_stack
@pytest.mark.parametrize(
    ("user", "model", "status"),
    [
        ("bob", "gemini-2.5-flash-lite", 200),
        ("bob", "gemini/gemini-3.5-flash-lite", 200),
        ("bob", "gpt-4o-mini", 404),
        ("bob", "openai/gpt-4o", 404),
        ("bob", "openai/gpt-5.6-luna", 404),
        ("carol", GEMINI, 404),
    ],
)
def test_the_policies_decide_who_may_call_and_see_what(
    client: httpx.Client, user: str, model: str, status: int
) -> None:
    key = KEYS["gemini" if "gemini" in model else "openai"]
    for name in ("alice", user):
        answer = client.post(CHAT, json=chat(model), headers=_as(name, key=key))
    listed = client.get(MODELS, headers=_as(user)).json()["data"]

    assert answer.status_code == status
    assert [each["id"] for each in listed] == [GEMINI]
    if user == "bob" and status == 404:
        one = client.get(f"{MODELS}/openai/gpt-4o", headers=_as(user))
        assert _told(one).startswith(NOT_FOUND)
        assert f" Registered: {GEMINI}. " in _told(answer)


@decided_by_llama_stack
def test_a_stock_provider_still_works(client: httpx.Client, upstream: Upstream) -> None:
    headers = _as("alice", openai_api_key=KEYS["openai"])
    large = chat("stock/gpt-4o", user="x" * 3_000_000)
    streamed = chat("stock/gpt-4o", stream=True)

    answers = [client.post(CHAT, json=b, headers=headers) for b in (large, streamed)]
    keyless = client.post(CHAT, json=large, headers=_as("alice"))

    models = [re.findall('"model": ?"(.*?)"', each.text)[0] for each in answers]
    assert models == ["stock/gpt-4o"] * 2
    assert [each.key for each in upstream.openai.requests] == [KEYS["openai"]] * 2
    assert len(upstream.openai.requests[0].json["user"]) == 3_000_000
    assert "openai_api_key" in keyless.text


@decided_by_llama_stack
def test_calls_from_inside_are_pinned(client: httpx.Client, upstream: Upstream) -> None:
    """Its safety API's, with the caller's key, and once: the stock one tries thrice."""
    safe = respond(b'{"choices":[{"index":0,"message":{"content":"safe"}}]}')
    upstream.gemini.script(safe)
    upstream.gemini.script(respond(b"{}", 503, {"retry-after": "0"}), times=None)
    body: Json = {"shield_id": GEMINI, "params": {}} | chat()
    # After an error of its own, Llama Stack's server closes the connection unasked.
    headers = _as("alice", key=KEYS["gemini"]) | {"connection": "close"}

    path = "/v1/safety/run-shield"
    verdict, failed = (client.post(path, json=body, headers=headers) for _ in "12")

    assert (verdict.json(), failed.is_success) == ({"violation": None}, False)
    assert upstream.gemini.requests[0].key == KEYS["gemini"]
    called = ("/v1beta/openai/chat/completions", GEMINI.partition("/")[2])
    assert _arrived(upstream) == [called] * 2


def test_a_made_up_name_of_a_model_is_not_remembered() -> None:
    """Callers invent any number of them; of a listed one the provider is known."""
    found = [("", "", "a/listed"), ("", "", OTHER), ("", "", OTHER)]
    with patch.object(Routing, "_ask", side_effect=found) as asked:
        routing = Routing(MagicMock(**{"run_config.server.auth": None}))
        for name in ("a/listed", "a/made-up") * 2:
            asyncio.run(routing.find(name, {"path": CHAT}))

    assert asked.call_count == len(found)
