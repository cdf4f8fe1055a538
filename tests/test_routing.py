"""Model names: which provider and which vendor's model a request is for."""

import httpx
import pytest

from tests.support.http import (
    CHAT,
    CLAUDE_MODEL,
    EMBEDDINGS,
    GEMINI_MODEL,
    MEBIBYTE,
    ROUTES,
    RawConnection,
    bearer,
    request,
    to_json,
)
from tests.support.server import Server
from tests.support.upstream import Upstream
from tests.support.wire import respond

pytestmark = pytest.mark.providers(
    {
        "restricted": {"allowed_models": ["gpt-4o", "m/1"]},
        "closed": {"allowed_models": []},
    }
)


def call(client: httpx.Client, model: str, route: str = CHAT) -> httpx.Response:
    return client.post(route, json={"model": model}, headers=bearer())


def received(upstream: Upstream) -> list[tuple[str, str]]:
    return [(each.path, each.json["model"]) for each in upstream.requests]


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("ft:gpt-4o:org::id", id="fine-tuned"),
        pytest.param("openai/é 😀", id="slash-and-emoji"),
        pytest.param("x" * 249, id="256-characters-with-provider"),
    ],
)
def test_unregistered_name_is_sent_to_the_provider_before_the_slash(
    client: httpx.Client, upstream: Upstream, route: str, name: str
) -> None:
    """Asked twice: the second look-up must not depend on the first."""
    upstream.openai.script(respond(), times=None)

    for _ in range(2):
        assert call(client, f"openai/{name}", route).is_success

    assert received(upstream) == [(route, name)] * 2


@pytest.mark.parametrize("route", [each for each in ROUTES if each != EMBEDDINGS])
def test_bare_name_is_the_registered_model_with_that_vendor_name(
    client: httpx.Client, upstream: Upstream, route: str
) -> None:
    name = CLAUDE_MODEL.partition("/")[2]
    upstream.anthropic.script(respond(), times=None)

    for _ in range(2):
        assert call(client, name, route).is_success

    assert received(upstream) == [(route, name)] * 2
    assert len(upstream.anthropic.requests) == 2


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("unknown-model", id="bare-name"),
        pytest.param("elsewhere/a", id="unknown-provider"),
        pytest.param("", id="empty"),
    ],
)
def test_unknown_model_error_lists_registered_models(
    client: httpx.Client, upstream: Upstream, name: str
) -> None:
    response = call(client, name)

    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (404, "model_not_found")
    assert f"'{name}'" in error["message"]
    for model in (
        CLAUDE_MODEL,
        GEMINI_MODEL,
        "openai/gpt-4o",
        "openai-mini/gpt-4o-mini",
        "openai-mini/gpt-4.1-nano",
    ):
        assert model in error["message"]
    assert upstream.requests == []


def test_name_over_256_characters_is_rejected_and_not_repeated(
    client: httpx.Client, upstream: Upstream
) -> None:
    response = call(client, f"openai/{'x' * 250}")

    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (404, "model_not_found")
    assert "xxx" not in error["message"]
    assert upstream.requests == []


def test_model_in_allowed_models_is_called(
    client: httpx.Client, upstream: Upstream
) -> None:
    """The list has the vendor's names, without the provider."""
    assert call(client, "restricted/m/1").is_success
    assert received(upstream) == [("/v1/chat/completions", "m/1")]


@pytest.mark.parametrize(
    ("model", "allowed"),
    [
        pytest.param("restricted/a/m/1", "gpt-4o, m/1", id="other-name"),
        pytest.param("closed/a", "none", id="empty-list"),
    ],
)
def test_model_outside_allowed_models_is_rejected_with_the_list(
    client: httpx.Client, upstream: Upstream, model: str, allowed: str
) -> None:
    response = call(client, model)

    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (404, "model_not_found")
    assert allowed in error["message"]
    assert upstream.requests == []


def test_unregistered_names_are_not_cached(server: Server, upstream: Upstream) -> None:
    """Clients may invent any number of them: here 1,000 of 1 kB each."""
    upstream.openai.script(respond(), times=None)
    names = [f"openai/{number:04}{'😀' * 240}" for number in range(1200)]
    requests = [request(body=to_json({"model": name})) for name in names]

    with RawConnection(server.port) as connection:
        for at in range(0, len(requests), 8):
            if at == 200:
                memory = server.memory()
            connection.send(b"".join(requests[at : at + 8]))
            statuses = [connection.read_response().status for _ in range(8)]
            assert statuses == [200] * 8

    assert server.memory() - memory < 2 * MEBIBYTE
