"""main.py: the requests that it sends, its output, and its settings."""

import io
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from subprocess import PIPE, Popen

import pytest

import main
from tests.support import http, wire
from tests.support.client import (
    KEY,
    MODEL,
    URL,
    Client,
    chunk,
    completion,
    event_stream,
    mocked_server,
    model_list,
)
from tests.support.upstream import Upstream


@pytest.fixture
def client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Client]:
    with mocked_server(tmp_path, monkeypatch, capsys) as mocked:
        yield mocked


def test_listed_models_are_called_both_ways_and_skipped_without_a_key(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_OWN_API_KEY", "key-own")
    names = ["openai-mini/4o", "gemini/flash", "my-own/m"]
    client.models.return_value = model_list(*names)
    expected = """\
openai-mini/4o
  regular   Hello there
  streamed  Hello there
gemini/flash
  skipped   GEMINI_API_KEY is not set
my-own/m
  regular   Hello there
  streamed  Hello there

model           regular  streamed     time
openai-mini/4o  ok       ok          0.0 s
gemini/flash    skipped  skipped         -
my-own/m        ok       ok          0.0 s
"""
    assert client.run() == (0, expected, "")
    assert client.keys() == [KEY, KEY, "key-own", "key-own"]


def test_key_is_neither_logged_nor_sent_to_list_models(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "llama_stack_client")

    client.run()

    assert "messages" in caplog.text
    assert KEY not in caplog.text
    assert KEY not in str(client.models.calls.last.request.headers.raw)


def test_unlisted_model_is_called_if_its_provider_is_listed_or_has_a_key(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADDED_API_KEY", "key")

    client.run("--model=openai/gpt-5", "--model", "added/m", "--prompt", "Why?")

    messages = [{"role": "user", "content": "Why?"}]
    assert client.bodies() == [
        {"messages": messages, "model": "openai/gpt-5"},
        {"messages": messages, "model": "openai/gpt-5", "stream": True},
        {"messages": messages, "model": "added/m"},
        {"messages": messages, "model": "added/m", "stream": True},
    ]


@pytest.mark.parametrize(
    ("dotenv", "environment", "arguments", "url"),
    [
        pytest.param("", {}, [], URL, id="default"),
        pytest.param(
            "LLAMA_STACK_PORT=9000",
            {},
            [],
            "http://127.0.0.1:9000",
            id="port-in-dotenv",
        ),
        pytest.param(
            "LLAMA_STACK_PORT=9000",
            {"LLAMA_STACK_PORT": "9001"},
            [],
            "http://127.0.0.1:9001",
            id="environment-before-dotenv",
        ),
        pytest.param("", {"LLS_HOST": "::1"}, [], "http://[::1]:8321", id="ipv6"),
        pytest.param("", {"LLS_HOST": "::"}, [], "http://[::1]:8321", id="all-ipv6"),
        pytest.param("", {"LLS_HOST": "0.0.0.0"}, [], URL, id="all-ipv4"),  # noqa: S104
        pytest.param("", {"LLS_HOST": ""}, [], URL, id="empty-host"),
        pytest.param(
            "", {"LLS_HOST": "10.0.0.1"}, [], "http://10.0.0.1:8321", id="other-host"
        ),
        pytest.param("", {}, ["--url=http://a:1/v1/"], "http://a:1", id="url-with-v1"),
    ],
)
def test_server_is_found_by_its_settings(
    dotenv: str,
    environment: dict[str, str],
    arguments: list[str],
    url: str,
    client: Client,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / ".env").write_text(dotenv)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    client.run(*arguments)

    assert str(client.chat.calls.last.request.url) == f"{url}/v1/chat/completions"


@pytest.mark.parametrize(
    ("environment", "key"),
    [
        pytest.param("shell", "shell", id="environment-before-dotenv"),
        pytest.param("", "file", id="empty-is-not-set"),
    ],
)
def test_key_is_read_from_environment_or_dotenv(
    environment: str,
    key: str,
    client: Client,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / ".env").write_text("OPENAI_API_KEY='file'\n")
    monkeypatch.setenv("OPENAI_API_KEY", environment)

    client.run()

    assert client.keys() == [key, key]


def test_help_shows_options_variables_and_default_url(client: Client) -> None:
    output = client.run("--help")[1]
    expected = ("--model", "--prompt", URL, "<PROVIDER>_API_KEY", "LLAMA_STACK_PORT")
    assert [word for word in expected if word not in output] == []


def test_stream_is_printed_as_it_arrives(client: Client) -> None:
    """Vendors also send chunks without text and without choices."""
    screen, seen = io.BytesIO(), []

    def events() -> Iterator[str]:
        for event in (chunk("One"), chunk(None), '{"choices": []}', chunk(" two")):
            yield event
            seen.append(screen.getvalue().decode().rpartition("  ")[2])

    client.chat.mock(side_effect=[completion(None), event_stream(events())])
    with redirect_stdout(io.TextIOWrapper(screen)):
        status = client.run()[0]

    assert status == 0
    assert seen == ["One", "One", "One", "One two"]


def test_ctrl_c_during_a_call_exits_with_130_and_no_traceback(
    upstream: Upstream,
) -> None:
    """The proxy in the environment is not used."""
    env = {"OPENAI_API_KEY": KEY, "HTTP_PROXY": "http://127.0.0.1:9", **os.environ}
    server = upstream.openai
    server.script(wire.respond(model_list(MODEL).content))
    server.script(wire.SILENCE)
    command = [sys.executable, main.__file__, "--url", server.url]
    with Popen(command, env=env, stdout=PIPE, stderr=PIPE, text=True) as client:
        try:
            http.eventually(lambda: len(server.requests) == 2, "the first call", 30)
            client.send_signal(signal.SIGINT)
            output, errors = client.communicate(timeout=30)
        finally:
            client.kill()
    assert server.requests[1].path == "/v1/chat/completions"
    assert client.returncode == 130
    assert (output, errors) == (f"{MODEL}\n  regular   \n", "")
