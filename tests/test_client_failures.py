"""What the client does when something is missing, fails, or gives a key away."""

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.client_run import (
    EVENTS,
    KEYS,
    URL,
    Client,
    Llama,
    chunk,
    completion,
    playing,
    sse,
)

MODEL = "openai/gpt-4o"
KEY = KEYS["OPENAI_API_KEY"]


@pytest.fixture
def llama() -> Iterator[Llama]:
    """The server, with one model."""
    with playing() as llama:
        llama.lists(MODEL)
        yield llama


@pytest.fixture
def client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Client:
    """The client, with the key of that model."""
    client = Client(tmp_path, monkeypatch, capsys)
    client.set(OPENAI_API_KEY=KEY)
    return client


def refusal(status: int, message: str) -> httpx.Response:
    """An error in OpenAI's form."""
    return httpx.Response(status, json={"error": {"message": message, "code": "x"}})


def test_without_any_key_nothing_is_called(
    client: Client, llama: Llama, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line names the variables of the registered models; status 2."""
    monkeypatch.delenv("OPENAI_API_KEY")
    llama.lists(MODEL, "openai-mini/gpt-4o-mini", "gemini/flash")
    told = (
        "no API key: set OPENAI_API_KEY or GEMINI_API_KEY in .env or in the "
        "environment\n"
    )
    assert (2, "", told) == client.run()


def test_without_a_server_one_line_says_what_to_do(
    client: Client, llama: Llama
) -> None:
    """Status 2, the address that was tried, and the command that starts it."""
    llama.models.mock(side_effect=httpx.ConnectError("Connection refused"))
    told = (
        f"server not running at {URL}: start it with `make server` "
        "(Connection refused)\n"
    )
    assert (2, "", told) == client.run()


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (httpx.Response(200, html="<p>Hi</p>"), "the answer is not in OpenAI's format"),
        (refusal(426, "Client version 1"), "426 Client version 1"),
        (httpx.Response(404), "404"),
    ],
)
def test_another_server_is_told_apart(
    client: Client, llama: Llama, answer: httpx.Response, told: str
) -> None:
    """A program that is no Llama Stack of this version ends it with status 2."""
    llama.models.mock(return_value=answer)
    outcome = client.run()
    start = f"no Llama Stack server at {URL}: {told}"
    assert (2, start) == (outcome.status, outcome.err[: len(start)])


def test_a_server_without_models_is_told(client: Client, llama: Llama) -> None:
    """There is nothing to call, and that is not for want of a key."""
    llama.lists()
    told = f"the server at {URL} has no language model\n"
    assert client.run() == (2, "", told)


@pytest.mark.parametrize("url", ["http://127.0.0.1:x", "http://[::1", "nowhere:1"])
def test_an_address_that_is_none_is_named(client: Client, url: str) -> None:
    """A slip in --url is one line, not a traceback."""
    outcome = client.run("--url", url)
    assert (outcome.status, url in outcome.err, outcome.err.count("\n")) == (2, True, 1)


def test_a_model_needs_its_provider(client: Client) -> None:
    """`--model gpt-4o` is told to be `openai/gpt-4o`."""
    outcome = client.run("--model", "gpt-4o")
    assert (outcome.status, "such as openai/gpt-4o" in outcome.err) == (2, True)


def test_a_failed_call_shows_the_upstream_s_message(
    client: Client, llama: Llama
) -> None:
    """Status 1 and no traceback, and the other calls are made all the same."""
    llama.lists(MODEL, "openai-mini/gpt-4o-mini")
    answers = [
        refusal(429, "Rate limit\nreached"),
        sse(chunk("Hel"), '{"error": {"message": "Overloaded"}}'),
        httpx.Response(200, json=completion("Hello")),
        sse(chunk("Hello"), "[DONE]"),
    ]
    llama.chat.mock(side_effect=answers)
    expected = """\
openai/gpt-4o
  regular   failed: 429 Rate limit reached
  streamed  Hel
            failed: Overloaded
openai-mini/gpt-4o-mini
  regular   Hello
  streamed  Hello

model                    regular  streamed     time
openai/gpt-4o            failed   failed      0.0 s
openai-mini/gpt-4o-mini  ok       ok          0.0 s
"""
    assert (1, expected, "") == client.run()


class Broken(httpx.SyncByteStream):
    """A stream that ends in the middle of the connection."""

    def __iter__(self) -> Iterator[bytes]:
        """Send one chunk and break off."""
        yield f"data: {chunk('Hel')}\n\n".encode()
        message = "peer closed connection"
        raise httpx.RemoteProtocolError(message)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (httpx.ReadTimeout("timed out"), "failed: timed out"),
        (httpx.Response(502, html="<h1>Bad</h1>"), "failed: 502 <h1>Bad</h1>"),
        (httpx.Response(503), "failed: 503 Error code: 503"),
        (httpx.Response(400, json={"detail": "why"}), "failed: 400 {'detail': 'why'}"),
        (httpx.Response(400, json={"error": "why"}), "failed: 400 why"),
        (httpx.Response(307, headers={"location": "/x"}), "failed: 307 "),
        (httpx.Response(200, headers=EVENTS, stream=Broken()), "failed: peer closed"),
        (sse("no JSON"), "failed: the answer is not in OpenAI's format"),
        (sse('{"choices": null}'), "failed: the answer is not in OpenAI's format"),
    ],
)
def test_no_failure_ends_in_a_traceback(
    client: Client, llama: Llama, answer: httpx.Response | Exception, told: str
) -> None:
    """Whatever comes instead of an answer is one line and status 1."""
    llama.chat.mock(side_effect=[answer])
    outcome = client.run("--stream")
    assert (outcome.status, told in outcome.out) == (1, True)


def test_a_long_error_is_cut(client: Client, llama: Llama) -> None:
    """A page of HTML does not push everything else off the screen."""
    llama.chat.respond(502, text="long " * 1000)
    shown = client.run("--stream").out.splitlines()[1]
    start = "  streamed  failed: "
    assert (shown[: len(start)], len(shown)) == (start, len(start) + 500)


def test_a_failed_call_is_not_repeated(client: Client, llama: Llama) -> None:
    """A person waits for the outcome, and can try again."""
    llama.chat.mock(return_value=refusal(500, "Later"))
    client.run("--regular")
    assert llama.chat.call_count == 1


def echo_whole() -> httpx.Response:
    """A regular answer with the key in it."""
    return httpx.Response(200, json=completion(f"You sent {KEY}, {KEY}."))


def echo_pieces(size: int) -> Callable[[], httpx.Response]:
    """A streamed answer with the key in it, cut into pieces of `size` characters."""
    text = f"You sent {KEY}, {KEY}."
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    return lambda: sse(*map(chunk, pieces), "[DONE]")


@pytest.mark.parametrize(
    ("option", "answer"),
    [
        ("--regular", echo_whole),
        *[("--stream", echo_pieces(size)) for size in (1, 2, 3, 5, 13, 100)],
    ],
)
def test_a_key_in_an_answer_is_masked(
    client: Client, llama: Llama, option: str, answer: Callable[[], httpx.Response]
) -> None:
    """A model that repeats the key does not bring it to the screen, however cut."""
    llama.chat.mock(side_effect=[answer()])
    shown = client.run(option).out.splitlines()[1]
    assert shown[12:] == "You sent [key], [key]."


def test_the_start_of_a_key_alone_is_shown(client: Client, llama: Llama) -> None:
    """Text that only begins like the key is not lost."""
    llama.answers("A ke", "y, a key-", "of")
    shown = client.run("--stream").out.splitlines()[1]
    assert shown[12:] == "A key, a key-of"


@pytest.mark.parametrize(
    "answer",
    [
        refusal(401, f"Incorrect API key provided: {KEY}."),
        httpx.Response(401, text=f"Incorrect API key provided: {KEY}."),
        sse(f'{{"error": {{"message": "Incorrect API key provided: {KEY}."}}}}'),
        httpx.Response(401, json={"error": {"message": "x" * 490 + KEY}}),
        httpx.ConnectError(f"Incorrect API key provided: {KEY}."),
    ],
)
def test_a_key_in_an_error_is_masked(
    client: Client, llama: Llama, answer: httpx.Response | Exception
) -> None:
    """A vendor that repeats the key in its error does not bring it to the screen."""
    llama.chat.mock(side_effect=[answer])
    outcome = client.run("--stream")
    shown = (KEY in outcome.out, "[key]" in outcome.out)
    assert (outcome.status, shown, outcome.err) == (1, (False, True), "")


def test_a_redirect_is_not_followed(client: Client, llama: Llama) -> None:
    """The key goes to the server, and nowhere that the server points to."""
    target = llama.router.post("http://elsewhere/v1/chat/completions")
    headers = {"location": "http://elsewhere/v1/chat/completions"}
    llama.chat.respond(307, headers=headers)
    client.run()
    assert not target.called
