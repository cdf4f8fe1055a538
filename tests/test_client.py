"""main.py: what it sends, what it prints, and how it ends."""

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
from tests.support.upstream import Upstream

URL = "http://127.0.0.1:8321"
KEY = "key-of-openai"
MODEL = "openai/gpt-4o"
PROVIDER_DATA = "X-LlamaStack-Provider-Data"
NOT_OPENAI = "the answer is not in OpenAI's format"


def _models(*names: str, kind: str = "llm") -> httpx.Response:
    """A list of models, in OpenAI's form with Llama Stack's fields beside."""
    fields = {"object": "model", "created": 1, "owned_by": "llama_stack"}
    fields |= {"custom_metadata": {"model_type": kind}}
    data = [{"id": name, **fields} for name in names]
    return httpx.Response(200, json={"object": "list", "data": data})


def _regular(text: str | None) -> httpx.Response:
    message = {"role": "assistant", "content": text}
    return httpx.Response(200, json={"choices": [{"message": message}]})


def _chunk(text: str | None) -> str:
    return json.dumps({"choices": [{"index": 0, "delta": {"content": text}}]})


def _streamed(events: Iterable[str]) -> httpx.Response:
    return httpx.Response(200, content=(f"data: {e}\n\n".encode() for e in events))


def _refusal(status: int, message: str) -> httpx.Response:
    return httpx.Response(status, json={"error": {"message": message, "code": "x"}})


def _answer(request: httpx.Request) -> httpx.Response:
    if json.loads(request.content).get("stream"):
        return _streamed([_chunk("Hello"), _chunk(" there"), "[DONE]"])
    return _regular("Hello there")


class Client:
    """Runs main.py in this process, against a server that respx plays."""

    def __init__(self, capsys: pytest.CaptureFixture[str], mock: respx.Router) -> None:
        self.capsys = capsys
        self.models = mock.get(path="/v1/models")
        self.models.return_value = _models(MODEL)
        self.chat = mock.post(path="/v1/chat/completions").mock(side_effect=_answer)

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """The exit status, and what was printed."""
        try:
            status = main.main(list(arguments))
        except SystemExit as end:
            status = int(str(end.code))
        return status, *self.capsys.readouterr()


@pytest.fixture
def client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Client]:
    """main.py with OpenAI's key; its .env is looked for in `tmp_path`."""
    monkeypatch.setattr(main, "__file__", str(tmp_path / "main.py"))
    monkeypatch.setattr(main, "time", SimpleNamespace(perf_counter=lambda: 0.0))
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with respx.mock(assert_all_called=False) as mock:
        yield Client(capsys, mock)


def test_calls_each_listed_model_both_ways(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each with its own key, which no log has; without one it is skipped."""
    caplog.set_level(logging.DEBUG, "llama_stack_client")
    monkeypatch.setenv("MY_OWN_API_KEY", "key-own")
    names = ["openai-mini/4o", "gemini/flash", "my-own/m"]
    client.models.return_value = _models(*names)
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
    assert (0, expected, "") == client.run()
    data = [call.request.headers[PROVIDER_DATA] for call in client.chat.calls]
    keys = [KEY] * 2 + ["key-own"] * 2
    assert [{"passthrough_api_key": key} for key in keys] == [*map(json.loads, data)]
    assert ("messages" in caplog.text, "key-o" in caplog.text) == (True, False)
    assert "key-" not in str(client.models.calls.last.request.headers.raw)


def test_calls_named_models(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """They need not be listed, when their provider is or has a key."""
    monkeypatch.setenv("ADDED_API_KEY", "key")
    client.run("--model=openai/gpt-5", "--model", "added/m", "--prompt", "Why?")
    body = {"messages": [{"role": "user", "content": "Why?"}]}
    named = {"model": "openai/gpt-5"}, {"model": "added/m"}
    expected = [body | name | way for name in named for way in ({}, {"stream": True})]
    assert expected == [json.loads(call.request.content) for call in client.chat.calls]


def test_env_file_has_what_is_not_given(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty variable is not given; a URL may end in the path of OpenAI's."""
    (tmp_path / ".env").write_text("OPENAI_API_KEY='file'\nLLAMA_STACK_PORT=9000\n")
    sent = []
    for key, arguments in (("", []), ("shell", ["--url=http://far:1/v1/"])):
        monkeypatch.setenv("OPENAI_API_KEY", key)
        client.run(*arguments)
        request = client.chat.calls.last.request
        sent.append((str(request.url), json.loads(request.headers[PROVIDER_DATA])))
    assert sent == [
        (f"{url}/v1/chat/completions", {"passthrough_api_key": key})
        for url, key in (("http://127.0.0.1:9000", "file"), ("http://far:1", "shell"))
    ]


def test_help_names_options_and_variables(client: Client) -> None:
    told = client.run("--help")[1]
    wanted = ("--model", "--prompt", URL, "<PROVIDER>_API_KEY", "LLAMA_STACK_PORT")
    assert [word for word in wanted if word not in told] == []


def test_prints_a_stream_as_it_arrives(client: Client) -> None:
    """Piece by piece; vendors send chunks without text, or without choices, too."""
    screen, seen = io.BytesIO(), []

    def events() -> Iterator[str]:
        for event in (_chunk("One"), _chunk(None), '{"choices": []}', _chunk(" two")):
            yield event
            seen.append(screen.getvalue().decode().rpartition("  ")[2])

    client.chat.mock(side_effect=[_regular(None), _streamed(events())])
    with redirect_stdout(io.TextIOWrapper(screen)):
        status = client.run()[0]
    assert (status, seen) == (0, ["One", "One", "One", "One two"])


def test_a_failed_call_shows_the_vendor_s_message(client: Client) -> None:
    """Status 1; the other calls are made all the same."""
    broken = _streamed([_chunk("Hel"), '{"error": {"message": "Overloaded"}}'])
    client.chat.mock(side_effect=[_refusal(404, "No such\nmodel"), broken])
    expected = """\
openai/gpt-4o
  regular    failed: 404 No such model (retired? see the models in README.md)
  streamed  Hel failed: Overloaded

model          regular  streamed     time
openai/gpt-4o  failed   failed      0.0 s
"""
    assert (1, expected, "") == client.run()


def _lost() -> Iterator[str]:
    yield _chunk("Hel")
    raise httpx.RemoteProtocolError("peer closed")


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (httpx.ReadTimeout("timed out"), "timed out"),
        (_streamed(_lost()), "peer closed"),
        (httpx.Response(503, text="long " * 1000), f"503 {'long ' * 99}l\n"),
        (httpx.Response(400, json={"error": "why"}), "400 why"),
        (httpx.Response(307, headers={"location": "http://elsewhere/"}), "307 "),
        (_streamed(["no JSON"]), NOT_OPENAI),
        (_streamed(['{"choices": null}']), NOT_OPENAI),
        (_refusal(401, f"Incorrect: {KEY}."), "401 Incorrect: [key]."),
        (_streamed([f'{{"error": {{"message": "Bad: {KEY}"}}}}']), "Bad: [key]"),
        (httpx.Response(400, text="x" * 490 + KEY), f"400 {'x' * 490}[key]"),
    ],
)
def test_a_failure_is_one_line_without_the_key(
    answer: httpx.Response | Exception, told: str, client: Client
) -> None:
    """No call is repeated, and no redirect followed; one failure makes status 1."""
    client.models.return_value = _models(MODEL, "gemini/flash")
    client.chat.mock(side_effect=[_regular("Hi"), answer])
    status, out, err = client.run()
    assert (status, f" failed: {told}" in out, err) == (1, True, "")
    assert (KEY in out, client.chat.call_count) == (False, 2)


NO_SERVER = f"server not running at {URL}: start it with `make server` (refused)\n"
NO_TLS = f"TLS handshake with {URL} failed: [SSL: A]\n"
NO_MODELS = f"no models from {URL} (is it Llama Stack, of this version?): "
NO_KEY = "set GEMINI_API_KEY or ANTHROPIC_API_KEY in .env or in the environment\n"
MISSPELT = f"opnai/x is not listed by the server; it has {MODEL}, gemini/flash\n"
EMBEDDING = _models("openai/e", kind="embedding")


@pytest.mark.parametrize(
    ("answer", "arguments", "told"),
    [
        (httpx.ConnectError("refused"), "", NO_SERVER),
        (httpx.ConnectError("[SSL: A]"), "", NO_TLS),
        (httpx.ReadTimeout("timed out"), "", f"{NO_MODELS}timed out\n"),
        (_refusal(426, "Client version 1"), "", f"{NO_MODELS}426 Client version 1\n"),
        (httpx.Response(404, html="<p>Hi</p>"), "", f"{NO_MODELS}404 <p>Hi</p>\n"),
        (httpx.Response(200, html="<p>Hi</p>"), "", f"{NO_MODELS}{NOT_OPENAI}"),
        (EMBEDDING, "", f"no language model is listed at {URL}\n"),
        (_models(MODEL), "--url=http://a:x", "no models from http://a:x (is it Llama"),
        (_models("gemini/a", "gemini/b", "anthropic/c"), "", f"no API key: {NO_KEY}"),
        # No OPNAI_API_KEY is asked for.
        (_models(MODEL, "gemini/flash"), f"--model {MODEL} --model opnai/x", MISSPELT),
    ],
)
def test_without_a_call_one_line_says_why(
    answer: httpx.Response | Exception, arguments: str, told: str, client: Client
) -> None:
    client.models.mock(side_effect=[answer])
    status, out, err = client.run(*arguments.split())
    assert (2, "", told, 1) == (status, out, err[: len(told)], err.count("\n"))
    assert not client.chat.called


def test_ctrl_c_ends_a_call_quietly(upstream: Upstream) -> None:
    """Status 130 and no traceback, in a call that went past the proxy."""
    env = {"OPENAI_API_KEY": KEY, "HTTP_PROXY": "http://127.0.0.1:9", **os.environ}
    server = upstream.openai
    server.script(wire.respond(_models(MODEL).content))
    server.script(wire.SILENCE)
    command = [sys.executable, main.__file__, "--url", server.url]
    with Popen(command, env=env, stdout=PIPE, stderr=PIPE, text=True) as client:
        try:
            http.eventually(lambda: len(server.requests) == 2, "two requests", 30)
            client.send_signal(signal.SIGINT)
            out, err = client.communicate(timeout=30)
        finally:
            client.kill()
    assert server.requests[1].path == "/v1/chat/completions"
    assert (130, f"{MODEL}\n  regular   \n", "") == (client.returncode, out, err)
