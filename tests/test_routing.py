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
    RESPONSES,
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

FIVE = (
    f"{CLAUDE}, gemini/gemini-2.5-flash-lite, openai-mini/gpt-4.1-nano, "
    "openai-mini/gpt-4o-mini, openai/gpt-4o"
)
PROVIDERS = {
    "versioned": {"base_url": "${env.OPENAI_UPSTREAM_URL}/v1/"},
    "beta": {"base_url": "${env.OPENAI_UPSTREAM_URL}/v1beta/openai"},
    "nested": {"base_url": "${env.OPENAI_UPSTREAM_URL}/proxy/path"},
    "listing": {"allowed_models": ["gpt-4o", "m/1"]},
    "none-listed": {"allowed_models": []},
}
with_providers = pytest.mark.providers(PROVIDERS)

RUN = yaml.safe_load(RUN_YAML.read_text())
SHIELD = "/v1/safety/run-shield"
GEMINI = "gemini/gemini-2.5-flash-lite"
# One server for all that Llama Stack decides: users and what they may read, models of
# two types, names that fit several, another type of provider, and an API of its own
# that calls a model from inside.
DECIDED = {
    "apis": ["inference", "safety"],
    "providers": {
        "inference": [
            *RUN["providers"]["inference"],
            {
                "provider_id": "stock",
                "provider_type": "remote::openai",
                "config": {"base_url": "${env.OPENAI_UPSTREAM_URL}/v1"},
            },
        ],
        "safety": [
            {
                "provider_id": "guard",
                "provider_type": "inline::llama-guard",
                "config": {},
            }
        ],
    },
    "registered_resources": {
        "models": [
            *RUN["registered_resources"]["models"],
            {"model_id": "gpt-4o", "provider_id": "openai-mini"},
            {
                "model_id": "text-embedding-3-small",
                "provider_id": "openai",
                "model_type": "embedding",
                "metadata": {"embedding_dimension": 3},
            },
        ],
        "shields": [
            {"shield_id": model, "provider_id": "guard", "provider_shield_id": model}
            for model in ("openai/gpt-4o", GEMINI)
        ],
    },
    "server": {
        "auth": {
            "provider_config": {
                "type": "custom",
                "endpoint": "${env.GATEKEEPER_URL}",
            },
            "route_policy": [
                {"permit": {"paths": ["/v1/models", "/v1/health"]}},
                {"permit": {"paths": "/v1/*"}, "when": "user with caller in roles"},
            ],
            "access_policy": [
                {"permit": {"principal": "alice", "actions": ["read"]}},
                {"permit": {"actions": ["read"], "resource": "regex:model::gemini/"}},
            ],
        }
    },
}
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
@pytest.mark.parametrize("model", ["openai/ft:gpt-4o:org::id", "openai/openai/é 😀"])
def test_a_model_that_is_not_listed_goes_to_its_provider(
    client: httpx.Client, upstream: Upstream, route: str, model: str
) -> None:
    """What stands before the first "/" is the provider, the rest the model's name."""
    upstream.openai.script(answer())

    assert client.post(route, json={"model": model}, headers=bearer()).is_success

    assert _arrived(upstream) == [(route, model.partition("/")[2])]


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

    error = answer.json()["error"]
    message = (
        f"'{name}' is no model of a provider here. Registered: {FIVE}. "
        "Another is called as <provider>/<the vendor's name for it>"
    )
    anthropics = {"type": "not_found_error", "message": message}
    openais = {"type": "invalid_request_error", "message": message}
    openais |= {"param": "model", "code": "model_not_found"}
    is_anthropic = route in (MESSAGES, COUNT_TOKENS)
    assert answer.status_code == 404
    assert error == (anthropics if is_anthropic else openais)
    assert _arrived(upstream) == []


def test_a_name_too_long_for_a_model_is_not_repeated(
    client: httpx.Client, upstream: Upstream
) -> None:
    """256 characters, provider included, are a name; one more is none."""
    upstream.openai.script(answer())
    longest = f"openai/{'x' * 249}"

    assert client.post(CHAT, json=chat(longest), headers=bearer()).is_success
    for name in (f"{longest}x", "y" * 257):
        status, code, message = _error(
            client.post(CHAT, json=chat(name), headers=bearer())
        )

        assert (status, code) == (404, "model_not_found")
        assert message.startswith("That name is no model of a provider here. ")
    assert _arrived(upstream) == [(CHAT, "x" * 249)]


@with_providers
@pytest.mark.parametrize(
    ("provider", "path"),
    [
        ("versioned", "/v1"),
        ("beta", "/v1beta/openai"),
        ("nested", "/proxy/path/v1"),
    ],
)
def test_the_path_is_that_of_base_url(
    client: httpx.Client, upstream: Upstream, provider: str, path: str
) -> None:
    """`/v1` is added where no version is named."""
    upstream.openai.script(answer())

    client.post(RESPONSES, json={"model": f"{provider}/m-1"}, headers=bearer())

    assert _arrived(upstream) == [(f"{path}/responses", "m-1")]


@with_providers
@pytest.mark.parametrize("name", ["gpt-4o", "m/1"])
def test_a_model_in_allowed_models_is_called(
    client: httpx.Client, upstream: Upstream, name: str
) -> None:
    """The list has the vendor's own names."""
    upstream.openai.script(answer())

    client.post(CHAT, json=chat(f"listing/{name}"), headers=bearer())

    assert _arrived(upstream) == [(CHAT, name)]


@with_providers
@pytest.mark.parametrize(
    ("model", "allowed"),
    [
        ("listing/gpt-4o-mini", "gpt-4o, m/1"),
        ("listing/listing/gpt-4o", "gpt-4o, m/1"),
        ("none-listed/gpt-4o", "none"),
    ],
)
def test_another_model_is_not(
    client: httpx.Client, upstream: Upstream, model: str, allowed: str
) -> None:
    """404, with those that are allowed; an empty list allows none."""
    told = _error(client.post(CHAT, json=chat(model), headers=bearer()))

    message = f"This provider allows these models only: {allowed}"
    assert told == (404, "model_not_found", message)
    assert _arrived(upstream) == []


@decided_by_llama_stack
@pytest.mark.parametrize(
    ("route", "name", "wanted"),
    [(CHAT, "openai/text-embedding-3-small", "llm")]
    + [(EMBEDDINGS, name, "embedding") for name in ("openai/gpt-4o", "gpt-4o-mini")],
)
def test_a_listed_model_of_another_type_is_refused(
    client: httpx.Client, upstream: Upstream, route: str, name: str, wanted: str
) -> None:
    """400: a chat with a model for embeddings, embeddings of one for chats."""
    body = {"model": name, "input": "hello"}

    answer = client.post(route, json=body, headers=_as("alice"))

    message = f"This model is not of the type {wanted}"
    assert _error(answer) == (400, "invalid_request_body", message)
    assert answer.json()["error"]["param"] == "model"
    assert _arrived(upstream) == []


@decided_by_llama_stack
@pytest.mark.parametrize(
    "model", ["text-embedding-3-small", "openai/text-embedding-3-small"]
)
def test_a_listed_model_for_embeddings_is_called(
    client: httpx.Client, upstream: Upstream, model: str
) -> None:
    """By its full name and by its bare one."""
    body = {"model": model, "input": "hello"}

    assert client.post(EMBEDDINGS, json=body, headers=_as("alice")).is_success

    assert _arrived(upstream) == [(EMBEDDINGS, "text-embedding-3-small")]


@decided_by_llama_stack
def test_a_bare_name_that_fits_several_is_told_with_them(
    client: httpx.Client, upstream: Upstream
) -> None:
    """404; with the provider before it, each is called."""
    told = _error(client.post(CHAT, json=chat("gpt-4o"), headers=_as("alice")))

    message = "Several models here have that name: openai-mini/gpt-4o, openai/gpt-4o"
    assert told == (404, "model_not_found", message)
    assert _arrived(upstream) == []


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
    """Whatever others called before; what a user may not read is not there."""
    key = KEYS["gemini" if "gemini" in model else "openai"]
    for name in ("alice", user):
        headers = _as(name, key=key)
        answer = client.post(CHAT, json=chat(model), headers=headers)

    assert answer.status_code == status


@decided_by_llama_stack
def test_a_user_is_shown_only_what_it_may_read(
    client: httpx.Client, upstream: Upstream
) -> None:
    """In the list of models and in an error that names them."""
    listed = client.get(MODELS, headers=_as("bob")).json()["data"]
    one = client.get(f"{MODELS}/openai/gpt-4o", headers=_as("bob"))
    told = _error(client.post(CHAT, json=chat(), headers=_as("bob")))

    assert [model["id"] for model in listed] == [GEMINI]
    assert _error(one)[:2] == (404, "model_not_found")
    assert told[:2] == (404, "model_not_found")
    assert f"Registered: {GEMINI}. " in told[2]
    assert _arrived(upstream) == []


def _stock(**fields: object) -> Json:
    return {"json": chat("stock/gpt-4o", **fields)} | {
        "headers": _as("alice", openai_api_key=KEYS["openai"])
    }


@decided_by_llama_stack
@pytest.mark.parametrize("size", [10, 3_000_000])
def test_another_type_of_provider_is_llama_stacks(
    client: httpx.Client, upstream: Upstream, size: int
) -> None:
    """`remote::openai` makes the call itself, with its own client and its own key."""
    answer = client.post(CHAT, **_stock(user="x" * size))

    arrived = upstream.openai.request
    assert answer.json()["model"] == "stock/gpt-4o"
    assert (arrived.header("user-agent") or "").startswith("AsyncOpenAI/")
    assert (arrived.key, len(arrived.json["user"])) == (KEYS["openai"], size)


@decided_by_llama_stack
def test_its_streams_and_errors_are_llama_stacks_too(
    client: httpx.Client, upstream: Upstream
) -> None:
    """Chunks with the name that the caller gave; no code of the relay's."""
    streamed = client.post(CHAT, **_stock(stream=True))
    keyless = client.post(CHAT, json=chat("stock/gpt-4o"), headers=_as("alice"))

    chunks = [each.json for each in sse(streamed.content)]
    words = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    assert {chunk["model"] for chunk in chunks} == {"stock/gpt-4o"}
    assert "".join(w.get("content") or "" for w in words) == "gpt-4o heard: hello"
    assert "openai_api_key" in _error(keyless)[2]
    assert len(upstream.openai.requests) == 1


def _guard(client: httpx.Client, model: str, key: str) -> httpx.Response:
    """Ask Llama Stack's safety API, which asks a model from inside."""
    hello = {"role": "user", "content": "hello"}
    body = {"shield_id": model, "messages": [hello], "params": {}}
    # After an error of its own, Llama Stack's server closes the connection unasked.
    headers = _as("alice", key=key) | {"connection": "close"}
    return client.post(SHIELD, json=body, headers=headers)


@decided_by_llama_stack
@pytest.mark.parametrize(
    ("model", "path"),
    [("openai/gpt-4o", CHAT), (GEMINI, "/v1beta/openai/chat/completions")],
)
def test_a_call_from_inside_llama_stack_reaches_the_pinned_upstream(
    client: httpx.Client, upstream: Upstream, model: str, path: str
) -> None:
    """With the key of whoever called from outside."""
    provider, _, name = model.partition("/")
    vendor = upstream.gemini if provider == "gemini" else upstream.openai
    vendor.script(answer(b'{"choices":[{"index":0,"message":{"content":"safe"}}]}'))

    verdict = _guard(client, model, KEYS[provider])

    assert (verdict.status_code, verdict.json()) == (200, {"violation": None})
    assert vendor.request.key == KEYS[provider]
    assert _arrived(upstream) == [(path, name)]


@decided_by_llama_stack
def test_a_call_from_inside_llama_stack_is_not_tried_again(
    client: httpx.Client, upstream: Upstream
) -> None:
    """The stock adapter would try thrice."""
    upstream.openai.script(answer(b"{}", 503, {"retry-after": "0"}), times=None)

    assert not _guard(client, "openai/gpt-4o", KEYS["openai"]).is_success

    assert len(upstream.openai.requests) == 1
