"""The distribution as a whole: what run.yaml promises, on the running server."""

import re
from typing import Any

import httpx
import pytest
import yaml
from dotenv import dotenv_values
from llama_stack_client import LlamaStackClient
from openai import OpenAI

from tests.support.http import (
    CHAT,
    CLAUDE_MODEL,
    GEMINI_MODEL,
    KEYS,
    MODELS,
    chat,
    provider_data,
)
from tests.support.run_yaml import PROJECT, RUN_YAML
from tests.support.server import Server
from tests.support.upstream import MockServer, Upstream

NOT_FOUND = ["invalid_request_error", "model", "model_not_found"]
# Each model: its name to display, its vendor, and the path of its API there.
FIVE = {
    "openai/gpt-4o": ("GPT-4o", "openai", "/v1"),
    "openai-mini/gpt-4o-mini": ("GPT-4o Mini", "openai", "/v1"),
    "openai-mini/gpt-4.1-nano": ("GPT-4.1 Nano", "openai", "/v1"),
    GEMINI_MODEL: ("Gemini 2.5 Flash Lite", "gemini", "/v1beta/openai"),
    CLAUDE_MODEL: ("Claude Haiku 4.5", "anthropic", "/v1"),
}


def test_the_five_models_are_listed(server: Server) -> None:
    openai = OpenAI(base_url=f"{server.url}/v1", api_key="none")
    stack = LlamaStackClient(base_url=server.url)

    with openai, stack:
        page = openai.models.list()
        listed: list[Any] = [model.to_dict() for model in page]
        each: list[Any] = [openai.models.retrieve(name).to_dict() for name in FIVE]
        stacks = [model.id for model in stack.models.list()]
        one = stack.models.retrieve(CLAUDE_MODEL)

    assert (page.object, stacks) == ("list", [*FIVE])
    assert (one.identifier, one.provider_id) == (CLAUDE_MODEL, "anthropic")
    for name, model, alone in zip(FIVE, listed, each, strict=True):
        provider, _, own = name.partition("/")
        form = {"id": name, "object": "model", "owned_by": "llama_stack"}
        fields = {"provider_id": provider, "provider_resource_id": own}
        fields["display_name"] = FIVE[name][0]
        assert form.items() <= model.items()
        assert fields.items() <= model["custom_metadata"].items()
        assert (form | {"identifier": name}).items() <= alone.items()
        assert {type(model["created"]), type(alone["created"])} == {int}


def test_an_unknown_model_is_not_shown(client: httpx.Client) -> None:
    answer = client.get(f"{MODELS}/openai/x/y")

    error = answer.json()["error"]
    assert "openai/x/y" in error.pop("message")
    assert (answer.status_code, [*error.values()]) == (404, NOT_FOUND)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", FIVE)
def test_a_model_answers(
    client: httpx.Client, upstream: Upstream, model: str, *, stream: bool
) -> None:
    _, vendor, base = FIVE[model]
    mock: MockServer = getattr(upstream, vendor)
    headers = provider_data(KEYS[vendor], passthrough_url=mock.url)

    answer = client.post(CHAT, json=chat(model, stream=stream), headers=headers)

    name = model.partition("/")[2]
    said = "".join(re.findall(r'"content": ?"([^"]*)"', answer.text))
    assert said == f"{name} heard: hello"
    assert answer.text.endswith("data: [DONE]\n\n") == stream
    (arrived,) = [r for each in upstream.vendors for r in each.requests]
    assert (arrived.path, arrived.key) == (f"{base}/chat/completions", KEYS[vendor])
    assert arrived.json["model"] == name


def test_the_upstreams_of_the_four_providers_are_pinned() -> None:
    google = "https://generativelanguage.googleapis.com/v1beta/openai"
    pinned = {
        "openai": "OPENAI_UPSTREAM_URL:=https://api.openai.com",
        "openai-mini": "OPENAI_UPSTREAM_URL:=https://api.openai.com",
        "gemini": f"GEMINI_UPSTREAM_URL:={google}",
        "anthropic": "ANTHROPIC_UPSTREAM_URL:=https://api.anthropic.com",
    }
    kind = {"provider_type": "remote::passthrough", "module": "lls_openai"}
    text = RUN_YAML.read_text()
    assert yaml.safe_load(text)["providers"]["inference"] == [
        {"provider_id": name, **kind, "config": {"base_url": f"${{env.{url}}}"}}
        for name, url in pinned.items()
    ]
    assert not re.search(r"(?i)api_?key:|_KEY\b", text)


def test_the_example_names_exactly_what_is_read() -> None:
    """The variables of run.yaml with its defaults, Llama Stack's port, three keys."""
    lines = RUN_YAML.read_text().splitlines()
    in_use = "\n".join(line.partition("#")[0] for line in lines)
    read = dict(re.findall(r"\$\{env\.(\w+):=([^}]*)\}", in_use))
    keys = dict.fromkeys(("OPENAI_API_KEY", "GEMINI_API_KEY", "ANTHROPIC_API_KEY"), "")

    example = dotenv_values(PROJECT / ".env.example")

    assert example == read | keys | {"LLAMA_STACK_PORT": "8321"}
