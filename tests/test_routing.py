"""Llama Stack's router says whose a model is; what is not ours, it answers itself."""

import json

import httpx
import pytest

from tests.calls import (
    CHAT,
    KEY,
    ROUTES,
    call,
    chat,
    provider_data,
)
from tests.scripts import JSON, answering
from tests.server import Server
from tests.upstream import Connection, Request, Upstream

pytest_plugins = ["tests.variants"]

# The vendor behind each provider, and the path of its API.
VENDORS = {
    "openai": ("OpenAI", "/v1"),
    "openai-mini": ("OpenAI", "/v1"),
    "gemini": ("Gemini", "/v1beta/openai"),
    "anthropic": ("Anthropic", "/v1"),
}
SHIELD = "/v1/safety/run-shield"
OPENAI_KEY = JSON | provider_data(openai_api_key=KEY)
# After an error of a route of its own, Llama Stack's server closes the connection, and
# does not say so: the next call on it could be lost.
LAST = {"Connection": "close"}


def _arrived(upstream: Upstream) -> list[tuple[str, str, str]]:
    return [
        (vendor.dialect.name, arrived.path, arrived.json["model"])
        for vendor in upstream.vendors
        for arrived in vendor.calls
    ]


@pytest.mark.parametrize(
    "model",
    [
        "openai/gpt-5.6-luna",
        "openai/text-embedding-3-small",
        "openai-mini/gpt-5.6-luna",
        "openai/ft:gpt-4o:org::id",
        "openai/org/model/part",
        "openai/openai/gpt-4o",
        "openai/é 😀",
        "gemini/gemini-3.5-flash-lite",
        "gemini/models/gemini-3.5",
        "anthropic/claude-x",
    ],
)
@pytest.mark.parametrize("route", ROUTES)
def test_a_model_that_is_not_registered_goes_to_its_provider(
    server: Server, upstream: Upstream, http: httpx.Client, route: str, model: str
) -> None:
    """What stands before the first "/" is the provider, the rest the model's name."""
    for vendor in upstream.vendors:
        vendor.answer_with(answering())

    call(http, server.url, chat(model), route=route)

    provider, _, name = model.partition("/")
    vendor_name, base = VENDORS[provider]
    path = base + route.removeprefix("/v1")
    assert [(vendor_name, path, name)] == _arrived(upstream)


@pytest.mark.parametrize(
    ("provider", "path"),
    [
        ("versioned", "/v1/chat/completions"),
        ("beta", "/v1beta/openai/chat/completions"),
        ("nested", "/proxy/path/v1/chat/completions"),
    ],
)
def test_the_path_is_that_of_base_url(
    various_server: Server,
    upstream: Upstream,
    http: httpx.Client,
    provider: str,
    path: str,
) -> None:
    """`/v1` is added where no version is named."""
    upstream.openai.answer_with(answering())

    call(http, various_server.url, chat(f"{provider}/m-1"))

    assert [("OpenAI", path, "m-1")] == _arrived(upstream)


@pytest.mark.parametrize("model", ["gpt-4o", "m/1"])
def test_a_model_in_allowed_models_is_called(
    various_server: Server, upstream: Upstream, http: httpx.Client, model: str
) -> None:
    """The list names the upstream's own names; others are refused (test_errors)."""
    upstream.openai.answer_with(answering())

    call(http, various_server.url, chat(f"listed/{model}"))

    assert [("OpenAI", "/v1/chat/completions", model)] == _arrived(upstream)


@pytest.mark.parametrize("size", [10, 3_000_000])
def test_a_model_of_another_type_of_provider_goes_to_llama_stack(
    various_server: Server, upstream: Upstream, http: httpx.Client, size: int
) -> None:
    """`remote::openai` makes the call itself, with its own client and its own key."""
    body = chat("stock/gpt-4o", user="x" * size)

    answer = call(http, various_server.url, body, headers=OPENAI_KEY)

    (arrived,) = upstream.openai.calls
    agent = (arrived.header("user-agent") or "").partition("/")[0]
    assert ("stock/gpt-4o", "AsyncOpenAI", KEY, "x" * size) == (
        answer.json["model"],
        agent,
        arrived.key,
        arrived.json["user"],
    )


def test_a_stream_of_another_type_of_provider_is_llama_stacks(
    various_server: Server, upstream: Upstream, http: httpx.Client
) -> None:
    """Its chunks carry the name that the caller gave."""
    body = chat("stock/gpt-4o", stream=True)

    answer = call(http, various_server.url, body, headers=OPENAI_KEY)

    events = [event for event in answer.body.split(b"\n\n") if event]
    chunks = [json.loads(event.removeprefix(b"data: ")) for event in events]
    words = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    assert {"stock/gpt-4o"} == {chunk["model"] for chunk in chunks}
    assert "".join(w.get("content") or "" for w in words) == "gpt-4o heard: hello"
    assert len(upstream.openai.calls) == 1


def test_another_type_of_provider_judges_its_requests_itself(
    various_server: Server, upstream: Upstream, http: httpx.Client
) -> None:
    """A call that it cannot make is its own error, and not one of the relay's."""
    answer = call(http, various_server.url, chat("stock/gpt-4o"), headers=JSON | LAST)

    assert "openai_api_key" in answer.error["message"]
    assert upstream.openai.calls == []


def _guard(http: httpx.Client, server: Server, model: str) -> httpx.Response:
    """Ask Llama Stack's safety API, which asks a model in-process."""
    body = {
        "shield_id": model,
        "messages": [{"role": "user", "content": "hello"}],
        "params": {},
    }
    headers = provider_data(passthrough_api_key=KEY) | LAST
    return http.post(server.url + SHIELD, json=body, headers=headers)


@pytest.mark.parametrize("model", ["openai/gpt-4o", "gemini/gemini-2.5-flash-lite"])
def test_callers_inside_llama_stack_reach_the_pinned_upstream(
    various_server: Server, upstream: Upstream, http: httpx.Client, model: str
) -> None:
    """Through the stock adapter's methods, with the key of who called from outside."""
    provider, _, name = model.partition("/")
    vendor, base = VENDORS[provider]
    verdict = {"choices": [{"index": 0, "message": {"content": "safe"}}]}
    upstream.named(vendor).answer_with(answering(json.dumps(verdict).encode()))

    answer = _guard(http, various_server, model)

    (arrived,) = upstream.named(vendor).calls
    assert (answer.status_code, answer.json()) == (200, {"violation": None})
    assert (KEY, [(vendor, f"{base}/chat/completions", name)]) == (
        arrived.key,
        _arrived(upstream),
    )


def test_a_call_from_inside_llama_stack_is_not_tried_again(
    various_server: Server, upstream: Upstream, http: httpx.Client
) -> None:
    """The stock adapter would try thrice."""

    async def script(_request: Request, connection: Connection) -> None:
        await connection.answer(503, {"retry-after": "0"})

    upstream.openai.answer_with(script)

    answer = _guard(http, various_server, "openai/gpt-4o")

    assert (answer.is_success, len(upstream.openai.calls)) == (False, 1)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/models", 200),
        ("GET", "/v1/models/openai/gpt-4o", 200),
        ("GET", "/v1/health", 200),
        ("GET", "/v1/version", 200),
        ("PUT", CHAT, 405),
        ("DELETE", "/v1/models/openai/gpt-4o", 405),
        ("POST", "/v1/responses", 403),
    ],
)
def test_every_other_request_is_llama_stacks(
    server: Server, http: httpx.Client, method: str, path: str, status: int
) -> None:
    """With or without a key, which nobody there asks for."""
    for headers in ({}, provider_data(passthrough_api_key=KEY)):
        answer = http.request(method, server.url + path, headers=headers)

        assert status == answer.status_code
