"""Whose a model is: Llama Stack's router decides; what is not ours, it answers."""

import httpx
import pytest
import yaml

from tests.support.http import (
    CHAT,
    CLAUDE,
    COUNT_TOKENS,
    EMBEDDINGS,
    MESSAGES,
    MODELS,
    ROUTES,
    bearer,
    chat,
    provider_data,
    sse,
)
from tests.support.server import RUN_YAML
from tests.support.upstream import Upstream
from tests.support.vendors import KEYS
from tests.support.wire import Json, answer

GEMINI = "gemini/gemini-2.5-flash-lite"
FIVE = (
    f"{CLAUDE}, {GEMINI}, openai-mini/gpt-4.1-nano, openai-mini/gpt-4o-mini, "
    "openai/gpt-4o"
)
OURS: Json = yaml.safe_load("""
listing: {allowed_models: [gpt-4o, m/1]}
none-listed: {allowed_models: []}
""")
with_providers = pytest.mark.providers(OURS)

# One server for all that Llama Stack decides: users and what they may read, models of
# two types, names that fit several, another type of provider, and an API of its own
# that calls a model from inside. Entries of lists join those of run.yaml.
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
  shields:
    - {shield_id: openai/gpt-4o, provider_id: guard}
    - {shield_id: gemini/gemini-2.5-flash-lite, provider_id: guard}
server:
  auth:
    provider_config: {type: custom, endpoint: "${env.GATEKEEPER_URL}"}
    route_policy:
      - permit: {paths: [/v1/models, /v1/health]}
      - {permit: {paths: /v1/*}, when: user with caller in roles}
    access_policy:
      - permit: {principal: alice, actions: [read]}
      - permit: {actions: [read], resource: "regex:model::gemini/"}
""")
RUN = yaml.safe_load(RUN_YAML.read_text())
for _place, _name in (("providers", "inference"), ("registered_resources", "models")):
    DECIDED[_place][_name] = RUN[_place][_name] + DECIDED[_place][_name]
decided_by_llama_stack = pytest.mark.server(DECIDED)


def _as(user: str, **data: str) -> dict[str, str]:
    return bearer(f"token-of-{user}") | provider_data(**data)


def _arrived(upstream: Upstream) -> list[tuple[str, str]]:
    requests = (each for vendor in upstream.vendors for each in vendor.requests)
    return [(request.path, request.json["model"]) for request in requests]


def _error(answer: httpx.Response) -> tuple[int, str | None, str]:
    error = answer.json()["error"]
    return answer.status_code, error.get("code"), error["message"]


@pytest.mark.parametrize("route", ROUTES)
def test_a_model_that_is_not_listed_goes_to_its_provider(
    client: httpx.Client, upstream: Upstream, route: str
) -> None:
    """What stands before the first "/" is the provider, the rest the model's name."""
    names = ("ft:gpt-4o:org::id", "openai/é 😀")
    upstream.openai.script(answer(), times=2)

    for name in names:
        body = {"model": f"openai/{name}"}
        assert client.post(route, json=body, headers=bearer()).is_success

    assert _arrived(upstream) == [(route, name) for name in names]


@pytest.mark.parametrize("route", [r for r in ROUTES if r != EMBEDDINGS])
def test_a_bare_name_is_the_listed_model_of_that_name(
    client: httpx.Client, upstream: Upstream, route: str
) -> None:
    """Of whichever provider; asked twice, the answer is the same."""
    upstream.anthropic.script(answer(), times=2)
    body = {"model": CLAUDE.partition("/")[2]}

    for _ in range(2):
        assert client.post(route, json=body, headers=bearer()).is_success

    assert _arrived(upstream) == [(route, body["model"])] * 2


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("name", ["gpt-5.6-luna", "elsewhere/gpt-4o", "", "/"])
def test_an_unknown_name_is_told_with_the_registered_ones(
    client: httpx.Client, upstream: Upstream, route: str, name: str
) -> None:
    """404, in the form of the route, and nothing arrives anywhere."""
    answer = client.post(route, json={"model": name}, headers=bearer())

    message = (
        f"'{name}' is no model of a provider here. Registered: {FIVE}. "
        "Another is called as <provider>/<the vendor's name for it>"
    )
    kind = "not_found_error"
    error = {"type": kind, "message": message}
    if route not in (MESSAGES, COUNT_TOKENS):
        kind = "invalid_request_error"
        error |= {"type": kind, "param": "model", "code": "model_not_found"}
    assert (answer.status_code, answer.json()["error"]) == (404, error)
    assert _arrived(upstream) == []


def test_a_name_too_long_for_a_model_is_not_repeated(
    client: httpx.Client, upstream: Upstream
) -> None:
    """256 characters, provider included, are a name; one more is none."""
    upstream.openai.script(answer())
    longest = f"openai/{'x' * 249}"

    assert client.post(CHAT, json=chat(longest), headers=bearer()).is_success
    for name in (f"{longest}x", "y" * 257):
        told = _error(client.post(CHAT, json=chat(name), headers=bearer()))
        assert told[:2] == (404, "model_not_found")
        assert told[2].startswith("That name is no model of a provider here. ")
    assert _arrived(upstream) == [(CHAT, "x" * 249)]


@with_providers
@pytest.mark.parametrize(
    ("model", "allowed"),
    [
        ("listing/gpt-4o", None),
        ("listing/m/1", None),
        ("listing/gpt-4o-mini", "gpt-4o, m/1"),
        ("listing/listing/gpt-4o", "gpt-4o, m/1"),
        ("none-listed/gpt-4o", "none"),
    ],
)
def test_only_a_model_in_allowed_models_is_called(
    client: httpx.Client, upstream: Upstream, model: str, allowed: str | None
) -> None:
    """The list has the vendor's own names; an empty one allows none."""
    upstream.openai.script(answer())

    answered = client.post(CHAT, json=chat(model), headers=bearer())

    message = f"This provider allows these models only: {allowed}"
    refused = (404, "model_not_found", message)
    assert answered.is_success if not allowed else _error(answered) == refused
    called = [] if allowed else [(CHAT, model.partition("/")[2])]
    assert _arrived(upstream) == called


@decided_by_llama_stack
@pytest.mark.parametrize(
    ("route", "name", "wanted"),
    [
        (CHAT, "openai/text-embedding-3-small", "llm"),
        (EMBEDDINGS, "openai/gpt-4o", "embedding"),
        (EMBEDDINGS, "gpt-4o-mini", "embedding"),
        (EMBEDDINGS, "text-embedding-3-small", None),
    ],
)
def test_a_listed_model_has_a_type(
    client: httpx.Client, upstream: Upstream, route: str, name: str, wanted: str | None
) -> None:
    """400 on a route for another one."""
    body = {"model": name, "input": "hello"}

    answer = client.post(route, json=body, headers=_as("alice"))

    message = f"This model is not of the type {wanted}"
    refused = (400, "invalid_request_body", message)
    assert answer.is_success if not wanted else _error(answer) == refused
    assert _arrived(upstream) == ([] if wanted else [(route, name)])


@decided_by_llama_stack
def test_a_bare_name_that_fits_several_is_told_with_them(client: httpx.Client) -> None:
    """404, before anybody is asked."""
    told = _error(client.post(CHAT, json=chat("gpt-4o"), headers=_as("alice")))

    message = "Several models here have that name: openai-mini/gpt-4o, openai/gpt-4o"
    assert told == (404, "model_not_found", message)


@decided_by_llama_stack
@pytest.mark.parametrize(
    ("user", "model", "status"),
    [
        ("alice", "openai/gpt-4o", 200),
        ("bob", GEMINI, 200),
        ("bob", "gemini-2.5-flash-lite", 200),
        ("bob", "gemini/gemini-3.5-flash-lite", 200),
        ("bob", "openai/gpt-4o", 404),
        ("bob", "gpt-4o-mini", 404),
        ("bob", "openai/gpt-5.6-luna", 404),
        ("carol", GEMINI, 404),
    ],
)
def test_the_policies_decide_who_may_call_what(
    client: httpx.Client, user: str, model: str, status: int
) -> None:
    """Whoever called it before; what a user may not read is not there."""
    key = KEYS["gemini" if "gemini" in model else "openai"]
    for name in ("alice", user):
        answer = client.post(CHAT, json=chat(model), headers=_as(name, key=key))

    assert answer.status_code == status


@decided_by_llama_stack
def test_a_user_is_shown_only_what_it_may_read(client: httpx.Client) -> None:
    """In the list of models and in an error that names them."""
    listed = client.get(MODELS, headers=_as("bob")).json()["data"]
    one = client.get(f"{MODELS}/openai/gpt-4o", headers=_as("bob"))
    told = _error(client.post(CHAT, json=chat(), headers=_as("bob")))

    assert [model["id"] for model in listed] == [GEMINI]
    assert _error(one)[:2] == told[:2] == (404, "model_not_found")
    assert f"Registered: {GEMINI}. " in told[2]


@decided_by_llama_stack
def test_another_type_of_provider_is_llama_stacks(
    client: httpx.Client, upstream: Upstream
) -> None:
    """`remote::openai` calls by itself, regular, streamed, large, and without a key."""
    headers = _as("alice", openai_api_key=KEYS["openai"])
    body = chat("stock/gpt-4o", user="x" * 3_000_000)

    regular = client.post(CHAT, json=body, headers=headers)
    body = chat("stock/gpt-4o", stream=True)
    streamed = client.post(CHAT, json=body, headers=headers)
    keyless = client.post(CHAT, json=body, headers=_as("alice"))

    first, second = upstream.openai.requests
    assert (first.header("user-agent") or "").startswith("AsyncOpenAI/")
    assert (first.key, second.key) == (KEYS["openai"],) * 2
    assert len(first.json["user"]) == 3_000_000
    models = {each.json["model"] for each in sse(streamed.content)}
    assert models | {regular.json()["model"]} == {"stock/gpt-4o"}
    assert "openai_api_key" in keyless.text


def _guard(client: httpx.Client, model: str, key: str) -> httpx.Response:
    """Ask Llama Stack's safety API, which asks a model from inside."""
    body: Json = {"shield_id": model, "params": {}} | chat()
    # After an error of its own, Llama Stack's server closes the connection unasked.
    headers = _as("alice", key=key) | {"connection": "close"}
    return client.post("/v1/safety/run-shield", json=body, headers=headers)


@decided_by_llama_stack
@pytest.mark.parametrize(
    ("model", "path"),
    [("openai/gpt-4o", CHAT), (GEMINI, "/v1beta/openai/chat/completions")],
)
def test_a_call_from_inside_llama_stack_reaches_the_pinned_upstream(
    client: httpx.Client, upstream: Upstream, model: str, path: str
) -> None:
    """With the caller's key, and once: the stock adapter would try thrice."""
    provider, _, name = model.partition("/")
    vendor = upstream.gemini if provider == "gemini" else upstream.openai
    vendor.script(answer(b'{"choices":[{"index":0,"message":{"content":"safe"}}]}'))
    vendor.script(answer(b"{}", 503, {"retry-after": "0"}), times=None)

    verdict, failed = (_guard(client, model, KEYS[provider]) for _ in range(2))

    assert (verdict.json(), failed.is_success) == ({"violation": None}, False)
    assert vendor.requests[0].key == KEYS[provider]
    assert _arrived(upstream) == [(path, name)] * 2
