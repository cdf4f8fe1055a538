"""The distribution as a whole: what run.yaml promises, on the running server."""

import re

import httpx
import pytest
import yaml
from dotenv import dotenv_values
from llama_stack_client import LlamaStackClient
from openai import OpenAI

from tests.support.http import CHAT, MODELS, bearer, chat, provider_data, sse
from tests.support.server import PROJECT, RUN_YAML, Server
from tests.support.upstream import Upstream, Vendor
from tests.support.vendors import KEYS

# Each model: its name to display, its vendor, and the path of chat completions there.
FIVE = {
    "openai/gpt-4o": ("GPT-4o", "openai", CHAT),
    "openai-mini/gpt-4o-mini": ("GPT-4o Mini", "openai", CHAT),
    "openai-mini/gpt-4.1-nano": ("GPT-4.1 Nano", "openai", CHAT),
    "gemini/gemini-2.5-flash-lite": (
        "Gemini 2.5 Flash Lite",
        "gemini",
        "/v1beta/openai/chat/completions",
    ),
    "anthropic/claude-haiku-4-5-20251001": ("Claude Haiku 4.5", "anthropic", CHAT),
}
CONFIG = yaml.safe_load(RUN_YAML.read_text())


def _assert_arrived_once(upstream: Upstream, model: str) -> None:
    _, vendor, path = FIVE[model]
    arrived = [
        (name, request.path, request.key, request.json["model"])
        for name in KEYS
        for request in _vendor(upstream, name).requests
    ]
    assert arrived == [(vendor, path, KEYS[vendor], model.partition("/")[2])]


def _vendor(upstream: Upstream, name: str) -> Vendor:
    vendor: Vendor = getattr(upstream, name)
    return vendor


def test_the_five_models_are_listed(client: httpx.Client) -> None:
    """In OpenAI's form, with Llama Stack's fields beside."""
    listed = client.get(MODELS).json()

    assert listed["object"] == "list"
    names = {m["id"]: m["custom_metadata"]["display_name"] for m in listed["data"]}
    assert names == {model: name for model, (name, *_) in FIVE.items()}
    assert len(listed["data"]) == len(FIVE)
    for model in listed["data"]:
        provider, _, vendors_name = model["id"].partition("/")
        own = {"object": "model", "owned_by": "llama_stack"}
        assert own.items() <= model.items()
        assert isinstance(model["created"], int)
        meta = {"provider_id": provider, "provider_resource_id": vendors_name}
        assert (meta | {"model_type": "llm"}).items() <= model["custom_metadata"].items()


@pytest.mark.parametrize("model", FIVE)
def test_one_model_is_shown(client: httpx.Client, model: str) -> None:
    """Like an entry of the list, beside what Llama Stack calls it."""
    shown = client.get(f"{MODELS}/{model}")

    provider, _, vendors_name = model.partition("/")
    expected = {"id": model, "object": "model", "owned_by": "llama_stack"}
    expected |= {"identifier": model, "model_type": "llm"}
    expected |= {"provider_id": provider, "provider_resource_id": vendors_name}
    assert expected.items() <= shown.json().items()
    assert isinstance(shown.json()["created"], int)
    assert int(shown.headers["content-length"]) == len(shown.content)


@pytest.mark.parametrize("name", ["gpt-5", "openai/gpt-5.6-luna", "openai/x/y"])
def test_an_unknown_model_is_not_shown(client: httpx.Client, name: str) -> None:
    """404, as OpenAI answers it."""
    answer = client.get(f"{MODELS}/{name}")

    error = answer.json()["error"]
    expected = ("invalid_request_error", "model", "model_not_found")
    assert answer.status_code == 404
    assert (error["type"], error["param"], error["code"]) == expected
    assert name in error["message"]


def test_the_list_is_read_by_both_clients(server: Server) -> None:
    """OpenAI's and Llama Stack's, the list and one model of it."""
    openai = OpenAI(base_url=f"{server.url}/v1", api_key="none")
    stack = LlamaStackClient(base_url=server.url)

    with openai, stack:
        listed = [[m.id for m in each.models.list()] for each in (openai, stack)]
        one = openai.models.retrieve("openai/gpt-4o")
        other = stack.models.retrieve("openai/gpt-4o")

    assert listed == [list(FIVE)] * 2
    assert (one.id, one.object, one.owned_by) == (
        "openai/gpt-4o",
        "model",
        "llama_stack",
    )
    assert isinstance(one.created, int)
    assert other.id == "openai/gpt-4o"


@pytest.mark.parametrize("model", FIVE)
def test_a_model_answers(client: httpx.Client, upstream: Upstream, model: str) -> None:
    """The call arrives once, at its vendor, with the caller's key and its own name."""
    url = _vendor(upstream, FIVE[model][1]).url
    headers = provider_data(KEYS[FIVE[model][1]], passthrough_url=url)

    answer = client.post(CHAT, json=chat(model), headers=headers)

    message = answer.json()["choices"][0]["message"]
    assert message["content"] == f"{model.partition('/')[2]} heard: hello"
    _assert_arrived_once(upstream, model)


@pytest.mark.parametrize("model", FIVE)
def test_a_model_streams(client: httpx.Client, upstream: Upstream, model: str) -> None:
    """Likewise, with `[DONE]` at the end."""
    headers = provider_data(KEYS[FIVE[model][1]])

    answer = client.post(CHAT, json=chat(model, stream=True), headers=headers)

    *events, done = sse(answer.content)
    deltas = [choice["delta"] for each in events for choice in each.json["choices"]]
    said = "".join(delta.get("content") or "" for delta in deltas)
    assert said == f"{model.partition('/')[2]} heard: hello"
    assert done.data == "[DONE]"
    _assert_arrived_once(upstream, model)


def test_nothing_lists_what_went_through(
    client: httpx.Client, upstream: Upstream
) -> None:
    """Llama Stack's lists of past calls are no routes here, by any method."""
    for body in (chat(), chat(stream=True)):
        assert client.post(CHAT, json=body, headers=bearer()).status_code == 200
    assert len(upstream.openai.requests) == 2

    paths = (CHAT, f"{CHAT}/1", "/v1/responses", "/v1/responses/1", "/v1/conversations")
    answers = [client.get(f"{path}?limit=100", headers=bearer()) for path in paths]

    assert [answer.status_code for answer in answers] == [405, 404, 405, 404, 404]
    assert not any("hello" in answer.text for answer in answers)


def test_health_and_version_need_no_key(client: httpx.Client) -> None:
    """They are Llama Stack's own."""
    assert client.get("/v1/health").json() == {"status": "OK"}
    assert client.get("/v1/version").json() == {"version": "0.7.3"}


def test_the_upstreams_of_the_four_providers_are_pinned() -> None:
    """One entry each, all of this project's provider, and no key in any."""
    variables = {
        "openai": "OPENAI_UPSTREAM_URL:=https://api.openai.com",
        "openai-mini": "OPENAI_UPSTREAM_URL:=https://api.openai.com",
        "gemini": "GEMINI_UPSTREAM_URL:="
        "https://generativelanguage.googleapis.com/v1beta/openai",
        "anthropic": "ANTHROPIC_UPSTREAM_URL:=https://api.anthropic.com",
    }
    assert CONFIG["providers"]["inference"] == [
        {
            "provider_id": name,
            "provider_type": "remote::passthrough",
            "module": "lls_openai",
            "config": {"base_url": f"${{env.{variable}}}"},
        }
        for name, variable in variables.items()
    ]
    assert not re.search(r"(?i)api_?key:|_KEY\b", RUN_YAML.read_text())


def test_the_example_names_exactly_what_is_read() -> None:
    """The variables of run.yaml with its defaults, Llama Stack's port, three keys."""
    in_use = "\n".join(line.partition("#")[0] for line in _lines(RUN_YAML.read_text()))
    read = dict(re.findall(r"\$\{env\.(\w+):=([^}]*)\}", in_use))
    keys = dict.fromkeys(("OPENAI_API_KEY", "GEMINI_API_KEY", "ANTHROPIC_API_KEY"), "")

    example = dotenv_values(PROJECT / ".env.example")

    assert example == read | keys | {"LLAMA_STACK_PORT": "8321"}
    assert in_use.count("${env.") == in_use.count(":=")


def _lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.startswith("#")]
