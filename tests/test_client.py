"""main.py: the requests that it sends, its output, and its exit status."""

import io
import json
import logging
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from subprocess import PIPE, Popen
from types import SimpleNamespace

import httpx
import pytest
import respx

import main
from tests.support import http, wire
from tests.support.network import Network
from tests.support.upstream import Upstream

URL = "http://127.0.0.1:8321"
KEY = "key-of-openai"
MODEL = "openai/gpt-4o"
PROVIDER_DATA = "X-LlamaStack-Provider-Data"
MALFORMED = "the response is not in OpenAI's format"


def model_list(*names: str, model_type: str = "llm") -> httpx.Response:
    """Return a list of models in OpenAI's form, with Llama Stack's fields."""
    fields = {"object": "model", "created": 1, "owned_by": "llama_stack"}
    fields |= {"custom_metadata": {"model_type": model_type}}
    data = [{"id": name, **fields} for name in names]
    return httpx.Response(200, json={"object": "list", "data": data})


def completion(text: str | None) -> httpx.Response:
    message = {"role": "assistant", "content": text}
    return httpx.Response(200, json={"choices": [{"message": message}]})


def chunk(text: str | None) -> str:
    return json.dumps({"choices": [{"index": 0, "delta": {"content": text}}]})


def event_stream(events: Iterable[str]) -> httpx.Response:
    return httpx.Response(200, content=(f"data: {e}\n\n".encode() for e in events))


def error_response(status: int, message: str) -> httpx.Response:
    return httpx.Response(status, json={"error": {"message": message, "code": "x"}})


def say_hello(request: httpx.Request) -> httpx.Response:
    if json.loads(request.content).get("stream"):
        return event_stream([chunk("Hello"), chunk(" there"), "[DONE]"])
    return completion("Hello there")


class Client:
    """Runs main.py in this process, against a server that respx mocks."""

    def __init__(self, capsys: pytest.CaptureFixture[str], mock: respx.Router) -> None:
        self.capsys = capsys
        self.models = mock.get(path="/v1/models")
        self.models.return_value = model_list(MODEL)
        self.chat = mock.post(path="/v1/chat/completions").mock(side_effect=say_hello)

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Return the exit status, standard output and standard error."""
        try:
            status = main.main(list(arguments))
        except SystemExit as end:
            status = int(str(end.code))
        return status, *self.capsys.readouterr()

    def bodies(self) -> list[object]:
        return [json.loads(call.request.content) for call in self.chat.calls]

    def keys(self) -> list[str]:
        headers = [call.request.headers[PROVIDER_DATA] for call in self.chat.calls]
        return [json.loads(header)["passthrough_api_key"] for header in headers]


@pytest.fixture
def client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Client]:
    """Return main.py with OpenAI's key; it looks for .env in `tmp_path`."""
    monkeypatch.setattr(main, "__file__", str(tmp_path / "main.py"))
    monkeypatch.setattr(main, "time", SimpleNamespace(perf_counter=lambda: 0.0))
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with respx.mock(assert_all_called=False) as mock:
        yield Client(capsys, mock)


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


def test_failed_calls_show_the_vendor_message_and_exit_with_1(client: Client) -> None:
    broken = event_stream([chunk("Hel"), '{"error": {"message": "Overloaded"}}'])
    client.chat.mock(side_effect=[error_response(404, "No such\nmodel"), broken])
    expected = """\
openai/gpt-4o
  regular    failed: 404 No such model (retired? see README.md)
  streamed  Hel failed: Overloaded

model          regular  streamed     time
openai/gpt-4o  failed   failed      0.0 s
"""
    assert client.run() == (1, expected, "")


def cut_off() -> Iterator[str]:
    yield chunk("Hel")
    raise httpx.RemoteProtocolError("peer closed")


@pytest.mark.parametrize(
    ("response", "message"),
    [
        pytest.param(httpx.ReadTimeout("timed out"), "timed out", id="timeout"),
        pytest.param(event_stream(cut_off()), "peer closed", id="cut-off-stream"),
        pytest.param(
            httpx.Response(503, text="long " * 1000),
            f"503 {'long ' * 99}l\n",
            id="long-message",
        ),
        pytest.param(
            httpx.Response(400, json={"error": "why"}), "400 why", id="error-as-text"
        ),
        pytest.param(
            httpx.Response(307, headers={"location": "http://elsewhere/"}),
            "307 ",
            id="redirect",
        ),
        pytest.param(event_stream(["no JSON"]), MALFORMED, id="event-not-json"),
        pytest.param(event_stream(['{"choices": null}']), MALFORMED, id="no-choices"),
        pytest.param(
            error_response(401, f"Incorrect: {KEY}."),
            "401 Incorrect: [key].",
            id="key-in-message",
        ),
        pytest.param(
            event_stream([f'{{"error": {{"message": "Bad: {KEY}"}}}}']),
            "Bad: [key]",
            id="key-in-event",
        ),
        pytest.param(
            httpx.Response(400, text="x" * 490 + KEY),
            f"400 {'x' * 490}[key]",
            id="key-at-the-cut",
        ),
    ],
)
def test_failure_is_one_line_without_the_key_and_is_not_retried(
    response: httpx.Response | Exception, message: str, client: Client
) -> None:
    client.models.return_value = model_list(MODEL, "gemini/flash")
    client.chat.mock(side_effect=[completion("Hi"), response])

    status, output, errors = client.run()

    assert (status, errors) == (1, "")
    assert f" failed: {message}" in output
    assert KEY not in output
    assert client.chat.call_count == 2


@pytest.mark.parametrize(
    ("response", "arguments", "message"),
    [
        pytest.param(
            httpx.ConnectError("refused"),
            [],
            f"could not list models at {URL}; start the server with `make server` "
            "(refused)",
            id="refused",
        ),
        pytest.param(
            httpx.ConnectError("[SSL: A]"),
            [],
            f"could not list models at {URL}; set SSL_CERT_FILE to trust a private CA "
            "([SSL: A])",
            id="unknown-authority",
        ),
        pytest.param(
            error_response(426, "Client version 1"),
            [],
            f"could not list models at {URL}; is it a compatible server? If it uses "
            "TLS, pass --url https://… (426 Client version 1)",
            id="other-version",
        ),
        pytest.param(httpx.ReadTimeout("slow"), [], "(slow)", id="timeout"),
        pytest.param(
            httpx.Response(404, html="<p>Hi</p>"), [], "(404 <p>Hi</p>)", id="no-route"
        ),
        pytest.param(
            httpx.Response(200, html="<p>Hi</p>"), [], f"({MALFORMED}", id="html"
        ),
        pytest.param(
            model_list("openai/e", model_type="embedding"),
            [],
            f"no LLM is registered at {URL}",
            id="embedding-models-only",
        ),
        pytest.param(
            model_list(MODEL),
            ["--url=http://a:x"],
            "models at http://a:x",
            id="bad-url",
        ),
        pytest.param(
            model_list("gemini/a", "gemini/b", "anthropic/c"),
            [],
            "no API key: set GEMINI_API_KEY or ANTHROPIC_API_KEY in .env or in the "
            "environment",
            id="no-key",
        ),
        pytest.param(
            model_list(MODEL, "gemini/flash"),
            ["--model", MODEL, "--model", "opnai/x"],
            f"unknown model opnai/x; the server has {MODEL}, gemini/flash",
            id="misspelt-provider",
        ),
    ],
)
def test_reason_is_one_line_if_no_call_can_be_made(
    response: httpx.Response | Exception,
    arguments: list[str],
    message: str,
    client: Client,
) -> None:
    client.models.mock(side_effect=[response])

    status, output, errors = client.run(*arguments)

    assert (status, output, errors.count("\n")) == (2, "", 1)
    assert message in errors
    assert not client.chat.called


def test_tls_server_called_without_tls_is_explained(
    network: Network,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    url = network.env["TLS_URL"].replace("https://", "http://")

    with pytest.raises(SystemExit, match="2"):
        main.main(["--url", url])

    assert f"models at {url}; is it a compatible server? If it uses TLS, pass" in (
        capsys.readouterr().err
    )


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
