"""The distribution as a whole: what run.yaml promises, on the running server."""

import json
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from tests.server import Server
from tests.upstream import Upstream

KEY = "sk-of-the-caller"


class Model(NamedTuple):
    """A registered model, and where a call of it has to arrive."""

    model_id: str
    display_name: str
    vendor: str
    path: str

    @property
    def upstream_name(self) -> str:
        """The vendor's own name for it."""
        return self.model_id.partition("/")[2]


MODELS = [
    Model("openai/gpt-4o", "GPT-4o", "OpenAI", "/v1/chat/completions"),
    Model("openai-mini/gpt-4o-mini", "GPT-4o Mini", "OpenAI", "/v1/chat/completions"),
    Model("openai-mini/gpt-4.1-nano", "GPT-4.1 Nano", "OpenAI", "/v1/chat/completions"),
    Model(
        "gemini/gemini-2.5-flash-lite",
        "Gemini 2.5 Flash Lite",
        "Gemini",
        "/v1beta/openai/chat/completions",
    ),
    Model(
        "anthropic/claude-haiku-4-5-20251001",
        "Claude Haiku 4.5",
        "Anthropic",
        "/v1/chat/completions",
    ),
]
EACH_MODEL = pytest.mark.parametrize("model", MODELS, ids=lambda model: model.model_id)


def _chat(
    http: httpx.Client,
    server: Server,
    model: Model,
    *,
    stream: bool = False,
    **provider_data: str,
) -> httpx.Response:
    data = {"passthrough_api_key": KEY} | provider_data
    return http.post(
        f"{server.url}/v1/chat/completions",
        headers={"X-LlamaStack-Provider-Data": json.dumps(data)},
        json={
            "model": model.model_id,
            "messages": [{"role": "user", "content": "hello"}],
            "stream": stream,
        },
    )


def _content(response: httpx.Response) -> str:
    assert response.status_code == 200, response.text
    content: str = response.json()["choices"][0]["message"]["content"]
    return content


def _streamed_content(response: httpx.Response) -> str:
    *events, done, _ = response.text.split("\n\n")
    assert done == "data: [DONE]"
    chunks = [json.loads(event.removeprefix("data: ")) for event in events]
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    return "".join(delta.get("content") or "" for delta in deltas)


def _arrived(upstream: Upstream) -> list[tuple[str, str, str | None, str]]:
    return [
        (vendor.dialect.name, call.path, call.key, call.json["model"])
        for vendor in upstream.vendors
        for call in vendor.calls
    ]


def test_lists_exactly_the_five_models(server: Server, http: httpx.Client) -> None:
    """`GET /v1/models` has the five ids with their display names, and no other."""
    listed = http.get(f"{server.url}/v1/models").json()["data"]

    expected = {model.model_id: model.display_name for model in MODELS}
    actual = {item["id"]: item["custom_metadata"]["display_name"] for item in listed}
    assert (expected, len(MODELS)) == (actual, len(listed))


@EACH_MODEL
def test_answers_a_regular_call(
    server: Server, upstream: Upstream, http: httpx.Client, model: Model
) -> None:
    """It arrives once, at the vendor's path, with the caller's key and its name."""
    answer = _content(_chat(http, server, model))

    expected = [(model.vendor, model.path, KEY, model.upstream_name)]
    assert (f"{model.upstream_name} heard: hello", expected) == (
        answer,
        _arrived(upstream),
    )


@EACH_MODEL
def test_answers_a_streamed_call(
    server: Server, upstream: Upstream, http: httpx.Client, model: Model
) -> None:
    """It arrives likewise, and the stream ends with `[DONE]`."""
    answer = _streamed_content(_chat(http, server, model, stream=True))

    expected = [(model.vendor, model.path, KEY, model.upstream_name)]
    assert (f"{model.upstream_name} heard: hello", expected) == (
        answer,
        _arrived(upstream),
    )


@EACH_MODEL
def test_takes_the_providers_own_address_beside_the_key(
    server: Server, upstream: Upstream, http: httpx.Client, model: Model
) -> None:
    """Commands written with `passthrough_url` go on working for each vendor."""
    address = upstream.named(model.vendor).url

    answer = _content(_chat(http, server, model, passthrough_url=address))

    assert f"{model.upstream_name} heard: hello" == answer


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/responses"),
        ("POST", "/v1/messages"),
        ("GET", "/v1/conversations/1"),
        ("GET", "/v1/files"),
        ("GET", "/v1/providers"),
        ("GET", "/v1/inspect/routes"),
        ("GET", "/v1/admin/health"),
        ("GET", "/docs"),
        ("GET", "/openapi.json"),
        ("GET", "/"),
    ],
)
def test_closed_routes_are_forbidden(
    server: Server, http: httpx.Client, method: str, path: str
) -> None:
    """What is neither inference nor models, health or version answers 403."""
    assert http.request(method, server.url + path).status_code == 403


@pytest.mark.parametrize("path", ["/v1/health", "/v1/version"])
def test_health_and_version_are_open(
    server: Server, http: httpx.Client, path: str
) -> None:
    """They answer without any key."""
    assert http.get(server.url + path).status_code == 200


def test_leaves_nothing_on_disk(
    server: Server, upstream: Upstream, http: httpx.Client
) -> None:
    """Home, working and temporary directory stay empty, whatever is asked."""
    for model in MODELS:
        _content(_chat(http, server, model))
        _streamed_content(_chat(http, server, model, stream=True))
    refused = MODELS[0]._replace(model_id="openai/no-such-model")
    assert _chat(http, server, refused).status_code == 404
    assert len(_arrived(upstream)) == 2 * len(MODELS) + 1

    assert _files(server.home, server.work, server.temporary) == []


def _files(*directories: Path) -> list[Path]:
    return [path for directory in directories for path in directory.rglob("*")]
