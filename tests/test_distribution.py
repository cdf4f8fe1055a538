"""What run.yaml promises, on the running server."""

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

DISPLAY_NAMES = {
    "openai/gpt-4o": "GPT-4o",
    "openai-mini/gpt-4o-mini": "GPT-4o Mini",
    "openai-mini/gpt-4.1-nano": "GPT-4.1 Nano",
    GEMINI_MODEL: "Gemini 2.5 Flash Lite",
    CLAUDE_MODEL: "Claude Haiku 4.5",
}


def test_openai_client_lists_the_five_models(server: Server) -> None:
    with OpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
        page = client.models.list()

    assert page.object == "list"
    assert [model.id for model in page.data] == [*DISPLAY_NAMES]
    for model in page.data:
        fields: dict[str, Any] = model.to_dict()
        provider, _, vendor_name = model.id.partition("/")
        assert (model.object, model.owned_by) == ("model", "llama_stack")
        assert isinstance(model.created, int)
        assert fields["display_name"] == DISPLAY_NAMES[model.id]
        metadata = fields["custom_metadata"]
        assert metadata["display_name"] == DISPLAY_NAMES[model.id]
        assert metadata["provider_id"] == provider
        assert metadata["provider_resource_id"] == vendor_name


@pytest.mark.parametrize("name", DISPLAY_NAMES)
def test_openai_client_retrieves_a_model(server: Server, name: str) -> None:
    with OpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
        model = client.models.retrieve(name)

    assert (model.id, model.object, model.owned_by) == (name, "model", "llama_stack")
    assert isinstance(model.created, int)
    fields = model.to_dict()
    assert (fields["identifier"], fields["display_name"]) == (name, DISPLAY_NAMES[name])


def test_llama_stack_client_lists_and_retrieves_models(server: Server) -> None:
    with LlamaStackClient(base_url=server.url) as client:
        names = [model.id for model in client.models.list()]
        model = client.models.retrieve(CLAUDE_MODEL)

    assert names == [*DISPLAY_NAMES]
    assert (model.identifier, model.provider_id) == (CLAUDE_MODEL, "anthropic")


def test_unknown_model_is_not_retrieved(client: httpx.Client) -> None:
    response = client.get(f"{MODELS}/openai/x/y")

    assert response.status_code == 404, response.text
    error = response.json()["error"]
    assert "openai/x/y" in error["message"]
    assert error == {
        "message": error["message"],
        "type": "invalid_request_error",
        "param": "model",
        "code": "model_not_found",
    }


@pytest.mark.parametrize("stream", [False, True], ids=["buffered", "streamed"])
@pytest.mark.parametrize(
    ("model", "vendor", "path"),
    [
        ("openai/gpt-4o", "openai", "/v1/chat/completions"),
        ("openai-mini/gpt-4o-mini", "openai", "/v1/chat/completions"),
        ("openai-mini/gpt-4.1-nano", "openai", "/v1/chat/completions"),
        (GEMINI_MODEL, "gemini", "/v1beta/openai/chat/completions"),
        (CLAUDE_MODEL, "anthropic", "/v1/chat/completions"),
    ],
)
def test_model_is_called_at_its_vendor_with_the_clients_key(
    client: httpx.Client,
    upstream: Upstream,
    model: str,
    vendor: str,
    path: str,
    *,
    stream: bool,
) -> None:
    mock: MockServer = getattr(upstream, vendor)
    headers = provider_data(KEYS[vendor], passthrough_url=mock.url)

    response = client.post(CHAT, json=chat(model, stream=stream), headers=headers)

    vendor_name = model.partition("/")[2]
    text = "".join(re.findall(r'"content":"([^"]*)"', response.text))
    assert text == f"{vendor_name} heard: hello", response.text
    assert response.text.endswith("data: [DONE]\n\n") == stream
    (request,) = upstream.requests
    assert request is mock.request
    assert (request.path, request.key) == (path, KEYS[vendor])
    assert request.json["model"] == vendor_name


def test_run_yaml_pins_the_upstream_of_each_provider_and_holds_no_key() -> None:
    google = "https://generativelanguage.googleapis.com/v1beta/openai"
    urls = {
        "openai": "${env.OPENAI_UPSTREAM_URL:=https://api.openai.com}",
        "openai-mini": "${env.OPENAI_UPSTREAM_URL:=https://api.openai.com}",
        "gemini": f"${{env.GEMINI_UPSTREAM_URL:={google}}}",
        "anthropic": "${env.ANTHROPIC_UPSTREAM_URL:=https://api.anthropic.com}",
    }
    text = RUN_YAML.read_text()

    providers = yaml.safe_load(text)["providers"]["inference"]

    assert {
        each["provider_id"]: each["config"]["base_url"] for each in providers
    } == urls
    for provider in providers:
        assert provider["provider_type"] == "remote::passthrough"
        assert provider["module"] == "lls_openai"
    assert not re.search(r"(?i)api_?key:|_KEY\b", text)


def test_run_yaml_lists_each_route_once() -> None:
    policy = yaml.safe_load(RUN_YAML.read_text())["server"]["auth"]["route_policy"]

    paths = policy[0]["permit"]["paths"]

    assert sorted(paths) == sorted({*paths})


def test_env_example_has_the_variables_of_run_yaml_the_port_and_three_keys() -> None:
    lines = RUN_YAML.read_text().splitlines()
    without_comments = "\n".join(line.partition("#")[0] for line in lines)
    variables = dict(re.findall(r"\$\{env\.(\w+):=([^}]*)\}", without_comments))

    assert dotenv_values(PROJECT / ".env.example") == variables | {
        "LLAMA_STACK_PORT": "8321",
        "OPENAI_API_KEY": "",
        "GEMINI_API_KEY": "",
        "ANTHROPIC_API_KEY": "",
    }
