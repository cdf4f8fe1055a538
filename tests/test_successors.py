"""The models that are retired or about to be: the README's ways to their successors."""

from pathlib import Path

import httpx
import pytest

from tests.conftest import StartServer
from tests.server import PROJECT, RUN_YAML, Server

# The line of run.yaml before and after, as the README gives it.
_LINES = {
    "provider_model_id: gpt-4.1-nano": "provider_model_id: gpt-5.6-luna",
    "provider_model_id: gemini-2.5-flash-lite": (
        "provider_model_id: gemini-3.5-flash-lite"
    ),
}
_SUCCESSORS = ["openai-mini/gpt-5.6-luna", "gemini/gemini-3.5-flash-lite"]


def _answer(http: httpx.Client, server: Server, model: str) -> str:
    body = {"model": model, "messages": [{"role": "user", "content": "Hello."}]}
    headers = {"Authorization": "Bearer a-key"}
    url = f"{server.url}/v1/chat/completions"
    choice = http.post(url, headers=headers, json=body).json()["choices"][0]
    content: str = choice["message"]["content"]
    return content


def _heard(model: str) -> str:
    return f"{model.partition('/')[2]} heard: Hello."


@pytest.mark.parametrize("model", _SUCCESSORS)
@pytest.mark.usefixtures("upstream")
def test_a_successor_answers_without_a_change_of_the_server(
    model: str, server: Server, http: httpx.Client
) -> None:
    """The caller names it behind the provider's name."""
    assert _heard(model) == _answer(http, server, model)


@pytest.mark.usefixtures("upstream")
def test_one_line_of_run_yaml_lists_a_successor_in_place_of_the_model(
    start_server: StartServer, tmp_path: Path, http: httpx.Client
) -> None:
    """It is listed under its own name, at the place of the old one, and it answers."""
    text = RUN_YAML.read_text()
    for old, new in _LINES.items():
        assert text.count(old) == 1
        text = text.replace(old, new)
    run_yaml = tmp_path / "run.yaml"
    run_yaml.write_text(text)
    server = start_server(run_yaml=run_yaml)
    listed = [each["id"] for each in http.get(f"{server.url}/v1/models").json()["data"]]
    expected = [
        "openai/gpt-4o",
        "openai-mini/gpt-4o-mini",
        "openai-mini/gpt-5.6-luna",
        "gemini/gemini-3.5-flash-lite",
        "anthropic/claude-haiku-4-5-20251001",
    ]
    assert expected == listed
    answers = [_answer(http, server, model) for model in _SUCCESSORS]
    assert [_heard(model) for model in _SUCCESSORS] == answers


def test_the_readme_gives_these_lines_and_names() -> None:
    """What is tried here is what stands there."""
    readme = (PROJECT / "README.md").read_text()
    told = [text for text in (*_LINES.values(), *_SUCCESSORS) if f"`{text}`" in readme]
    assert [*_LINES.values(), *_SUCCESSORS] == told
