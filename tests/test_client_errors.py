"""main.py when a call fails, or none can be made: its messages and exit status."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

import main
from tests.support.client import (
    KEY,
    MODEL,
    URL,
    Client,
    chunk,
    completion,
    error_response,
    event_stream,
    mocked_server,
    model_list,
)
from tests.support.network import Network

MALFORMED = "the response is not in OpenAI's format"


@pytest.fixture
def client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Client]:
    with mocked_server(tmp_path, monkeypatch, capsys) as mocked:
        yield mocked


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
