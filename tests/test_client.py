"""main.py: what it sends, what it prints, and how it ends."""

import io
import json
import logging
import os
import signal
import socket
import ssl
import sys
from collections.abc import Iterable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from subprocess import PIPE, Popen
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import respx
import trustme

import main

URL = "http://127.0.0.1:8321"
KEY = "key-of-openai"
MODEL = "openai/gpt-4o"
PROVIDER_DATA = "X-LlamaStack-Provider-Data"
NO_MODELS = f"no models from {URL} (is it Llama Stack, of this version?): "
NOT_OPENAI = "the answer is not in OpenAI's format"


def models(*names: str, kind: str = "llm") -> dict[str, Any]:
    """A list of models, in OpenAI's form with Llama Stack's fields beside."""
    fields = {"object": "model", "created": 1, "owned_by": "llama_stack"}
    more = {"custom_metadata": {"model_type": kind}}
    return {"object": "list", "data": [{"id": n, **fields, **more} for n in names]}


def regular(text: str | None) -> httpx.Response:
    """A regular chat completion that says `text`."""
    message = {"role": "assistant", "content": text}
    return httpx.Response(200, json={"choices": [{"message": message}]})


def chunk(text: str | None) -> str:
    """A chunk of a streamed chat completion."""
    return json.dumps({"choices": [{"index": 0, "delta": {"content": text}}]})


def streamed(events: Iterable[str]) -> httpx.Response:
    """A stream that asks for `events` one by one."""
    return httpx.Response(200, content=(f"data: {e}\n\n".encode() for e in events))


def refusal(status: int, message: str) -> httpx.Response:
    """An error in OpenAI's form."""
    return httpx.Response(status, json={"error": {"message": message, "code": "x"}})


def answer(request: httpx.Request) -> httpx.Response:
    """Say "Hello there", in two pieces when streamed."""
    if json.loads(request.content).get("stream"):
        return streamed([chunk("Hello"), chunk(" there"), "[DONE]"])
    return regular("Hello there")


class Client:
    """Runs main.py in this process, against a server that respx plays."""

    def __init__(self, capsys: pytest.CaptureFixture[str], mock: respx.Router) -> None:
        self.capsys = capsys
        self.models = mock.get(path="/v1/models").respond(json=models(MODEL))
        self.chat = mock.post(path="/v1/chat/completions").mock(side_effect=answer)

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Give the exit status, and what was printed."""
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


def test_calls_each_listed_model_both_ways(client: Client) -> None:
    """Prints both answers; models without a key are skipped, and that is no failure."""
    client.models.respond(json=models(MODEL, "gemini/flash", "openai-mini/gpt-4o-mini"))
    expected = """\
openai/gpt-4o
  regular   Hello there
  streamed  Hello there
gemini/flash
  skipped   GEMINI_API_KEY is not set
openai-mini/gpt-4o-mini
  regular   Hello there
  streamed  Hello there

model                    regular  streamed     time
openai/gpt-4o            ok       ok          0.0 s
gemini/flash             skipped  skipped         -
openai-mini/gpt-4o-mini  ok       ok          0.0 s
"""
    assert (0, expected, "") == client.run()


def test_sends_the_right_key(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """As provider data; the list of models is asked for without one."""
    monkeypatch.setenv("GEMINI_API_KEY", "key-g")
    monkeypatch.setenv("MY_OWN_API_KEY", "key-own")
    names = [MODEL, "openai-mini/o", "gemini/g", "my-own/m"]
    client.models.respond(json=models(*names))
    client.run()
    keys = [KEY, KEY, "key-g", "key-own"]
    expected = [json.dumps({"passthrough_api_key": key}) for key in keys]
    sent = [call.request.headers[PROVIDER_DATA] for call in client.chat.calls]
    assert [data for data in expected for _ in range(2)] == sent
    assert "key-" not in str(client.models.calls.last.request.headers.raw)


def test_calls_named_models(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """They need not be listed, when their provider is or has a key."""
    monkeypatch.setenv("ADDED_API_KEY", "key")
    client.run("--model=openai/gpt-5", "--model", "added/m", "--prompt", "Why?")
    body = {"messages": [{"role": "user", "content": "Why?"}]}
    named = {"model": "openai/gpt-5"}, {"model": "added/m"}
    expected = [body | name | way for name in named for way in ({}, {"stream": True})]
    assert expected == [json.loads(call.request.content) for call in client.chat.calls]


def test_names_the_listed_models_for_a_misspelt_one(client: Client) -> None:
    """No model is called, and no OPNAI_API_KEY is asked for."""
    client.models.respond(json=models(MODEL, "gemini/flash"))
    told = f"opnai/gpt-4o is not listed by the server; it has {MODEL}, gemini/flash\n"
    assert (2, "", told) == client.run("--model", MODEL, "--model", "opnai/gpt-4o")


def test_names_missing_keys(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line and status 2."""
    monkeypatch.delenv("OPENAI_API_KEY")
    client.models.respond(json=models(MODEL, "openai-mini/o", "gemini/flash"))
    names = "OPENAI_API_KEY or GEMINI_API_KEY"
    told = f"no API key: set {names} in .env or in the environment\n"
    assert (2, "", told) == client.run()


@pytest.mark.parametrize("exported", ["", "from-shell"])
def test_the_environment_wins_over_env_file(
    exported: str, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But an empty variable does not hide the one in .env."""
    (tmp_path / ".env").write_text("# mine\nOPENAI_API_KEY='from-file'\n")
    monkeypatch.setenv("OPENAI_API_KEY", exported)
    client.run()
    data = client.chat.calls.last.request.headers[PROVIDER_DATA]
    assert (exported or "from-file") in data


@pytest.mark.parametrize(
    ("arguments", "url"),
    [([], "http://127.0.0.1:9000"), (["--url=http://far:1/v1/"], "http://far:1")],
)
def test_calls_the_server_at_its_port_or_url(
    arguments: list[str], url: str, client: Client, tmp_path: Path
) -> None:
    """One .env serves server and client; a URL may end in the path of OpenAI's."""
    (tmp_path / ".env").write_text("LLAMA_STACK_PORT=9000\n")
    client.run(*arguments)
    assert client.chat.calls.last.request.url == f"{url}/v1/chat/completions"


def test_help_names_options_and_variables(client: Client) -> None:
    """--help tells all that main.py reads."""
    wanted = "--model --prompt --url .env <PROVIDER>_API_KEY LLAMA_STACK_PORT status"
    wanted += f" OPENAI_API_KEY GEMINI_API_KEY ANTHROPIC_API_KEY {URL}"
    told = client.run("--help")[1]
    assert [word for word in wanted.split() if word not in told] == []


def test_prints_a_stream_as_it_arrives(client: Client) -> None:
    """Piece by piece; vendors send chunks without text, or without choices, too."""
    screen, seen = io.BytesIO(), []

    def events() -> Iterator[str]:
        for event in (chunk("One"), chunk(None), '{"choices": []}', chunk(" two")):
            yield event
            seen.append(screen.getvalue().decode().rpartition("  ")[2])

    client.chat.mock(side_effect=[regular(None), streamed(events())])
    with redirect_stdout(io.TextIOWrapper(screen)):
        status = client.run()[0]
    assert (status, seen) == (0, ["One", "One", "One", "One two"])


def test_a_failed_call_shows_the_vendor_s_message(client: Client) -> None:
    """Status 1; the other calls are made all the same."""
    broken = streamed([chunk("Hel"), '{"error": {"message": "Overloaded"}}'])
    client.chat.mock(side_effect=[refusal(404, "No such\nmodel"), broken])
    expected = """\
openai/gpt-4o
  regular    failed: 404 No such model (retired? see the models in README.md)
  streamed  Hel failed: Overloaded

model          regular  streamed     time
openai/gpt-4o  failed   failed      0.0 s
"""
    assert (1, expected, "") == client.run()


def lost() -> Iterator[str]:
    """A stream whose connection is lost."""
    yield chunk("Hel")
    raise httpx.RemoteProtocolError("peer closed")


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (httpx.ReadTimeout("timed out"), "timed out"),
        (streamed(lost()), "peer closed"),
        (httpx.Response(503, text="long " * 1000), f"503 {'long ' * 99}l\n"),
        (httpx.Response(400, json={"error": "why"}), "400 why"),
        (httpx.Response(307, headers={"location": "http://elsewhere/"}), "307 "),
        (streamed(["no JSON"]), NOT_OPENAI),
        (streamed(['{"choices": null}']), NOT_OPENAI),
        (refusal(401, f"Incorrect: {KEY}."), "401 Incorrect: [key]."),
        (streamed([f'{{"error": {{"message": "Bad: {KEY}"}}}}']), "Bad: [key]"),
        (httpx.Response(400, text="x" * 490 + KEY), f"400 {'x' * 490}[key]"),
    ],
)
def test_a_failure_is_one_line_without_the_key(
    answer: httpx.Response | Exception, told: str, client: Client
) -> None:
    """No call is repeated, and no redirect followed; one failure makes status 1."""
    client.models.respond(json=models(MODEL, "gemini/flash"))
    client.chat.mock(side_effect=[regular("Hi"), answer])
    status, out, err = client.run()
    assert (status, f" failed: {told}" in out, err) == (1, True, "")
    assert (KEY in out, client.chat.call_count) == (False, 2)


NO_SERVER = f"server not running at {URL}: start it with `make server` (refused)\n"
EMBEDDING = httpx.Response(200, json=models("openai/e", kind="embedding"))


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (httpx.ConnectError("refused"), NO_SERVER),
        (httpx.ReadTimeout("timed out"), f"{NO_MODELS}timed out\n"),
        (refusal(426, "Client version 1"), f"{NO_MODELS}426 Client version 1\n"),
        (httpx.Response(404, html="<p>Hi</p>"), f"{NO_MODELS}404 <p>Hi</p>\n"),
        (httpx.Response(200, html="<p>Hi</p>"), f"{NO_MODELS}{NOT_OPENAI}"),
        (EMBEDDING, f"no language model is listed at {URL}\n"),
    ],
)
def test_without_models_one_line_says_why(
    answer: httpx.Response | Exception, told: str, client: Client
) -> None:
    """Status 2, the address that was tried, and what to do."""
    client.models.mock(side_effect=[answer])
    status, out, err = client.run()
    assert (2, "", told, 1) == (status, out, err[: len(told)], err.count("\n"))


def test_an_address_that_is_none_is_one_line(client: Client) -> None:
    """A slip in --url is no traceback."""
    status, _, err = client.run("--url", "http://127.0.0.1:x")
    assert (status, "Invalid port" in err, err.count("\n")) == (2, True, 1)


def test_logs_no_key(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    """Not even llama-stack-client's own log of each request shows it."""
    caplog.set_level(logging.DEBUG, "llama_stack_client")
    client.run()
    assert ("messages" in caplog.text, KEY in caplog.text) == (True, False)


def start(url: str) -> Popen[str]:
    """Start main.py as a process, with a proxy in its environment that is not there."""
    variables = {"OPENAI_API_KEY": KEY, "HTTP_PROXY": "http://127.0.0.1:9"}
    command, env = [sys.executable, main.__file__, "--url", url], os.environ | variables
    return Popen(command, env=env, stdout=PIPE, stderr=PIPE, text=True)


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    """A socket that takes connections."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(30)
        yield listening


def test_ctrl_c_ends_a_call_quietly(listening: socket.socket) -> None:
    """Status 130 and no traceback, in a call that went past the proxy."""
    answer = httpx.Response(200, json=models(MODEL))
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(answer.content)}\r\n"
    head += "Content-Type: application/json\r\n\r\n"
    url = "http://{}:{}".format(*listening.getsockname())
    with start(url) as client, listening.accept()[0] as connection:
        connection.recv(65536)
        connection.sendall(head.encode() + answer.content)
        assert b"POST /v1/chat/completions" in connection.recv(65536)
        client.send_signal(signal.SIGINT)
        out, err = client.communicate(timeout=30)
    assert (130, f"{MODEL}\n  regular   \n", "") == (client.returncode, out, err)


def test_a_failed_tls_handshake_is_told(listening: socket.socket) -> None:
    """A server with a certificate of an unknown authority is not "not running"."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(tls)
    url = "https://{}:{}".format(*listening.getsockname())
    with start(url) as client, listening.accept()[0] as connection:
        with pytest.raises(ssl.SSLError):
            tls.wrap_socket(connection, server_side=True)
        out, err = client.communicate(timeout=30)
    told = f"TLS handshake with {url} failed: [SSL: CERTIFICATE_VERIFY_FAILED]"
    assert (2, "", told) == (client.returncode, out, err[: len(told)])
