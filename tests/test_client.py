"""What the client asks, with which key, and what it shows of the answers."""

import json
from collections.abc import Iterator
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


@pytest.fixture
def llama() -> Iterator[Llama]:
    """The server."""
    with playing() as llama:
        yield llama


@pytest.fixture
def client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Client:
    """The client, with a key for every vendor."""
    client = Client(tmp_path, monkeypatch, capsys)
    client.set(**KEYS)
    return client


def key_header(key: str) -> str:
    """The header with `key`."""
    return json.dumps({"passthrough_api_key": key})


def test_every_registered_model_is_called_both_ways(
    client: Client, llama: Llama
) -> None:
    """Each model gets a regular and a streamed call; a table sums up."""
    llama.lists("openai/gpt-4o", "gemini/flash")
    llama.answers("Hel", "lo\nthere")
    expected = """\
openai/gpt-4o
  regular   Hello
            there
  streamed  Hello
            there
gemini/flash
  regular   Hello
            there
  streamed  Hello
            there

model          regular  streamed     time
openai/gpt-4o  ok       ok          0.0 s
gemini/flash   ok       ok          0.0 s
"""
    assert (0, expected, "") == client.run()


def test_each_provider_gets_its_own_key(client: Client, llama: Llama) -> None:
    """A key travels with the calls of its provider alone, as provider data."""
    client.run()
    assert {
        "openai/gpt-4o": key_header("key-of-openai"),
        "openai-mini/gpt-4o-mini": key_header("key-of-openai"),
        "gemini/flash": key_header("key-of-gemini"),
        "anthropic/haiku": key_header("key-of-anthropic"),
    } == llama.keys


def test_the_model_list_is_asked_without_a_key(client: Client, llama: Llama) -> None:
    """Nothing that needs no key gets one."""
    client.run()
    sent = llama.models.calls.last.request.headers
    assert [value for value in sent.values() if "key-of" in value] == []


def test_an_added_provider_has_a_key_of_its_own(client: Client, llama: Llama) -> None:
    """`my-vendor` in run.yaml has its key in MY_VENDOR_API_KEY."""
    llama.lists("my-vendor/model")
    client.set(MY_VENDOR_API_KEY="key-of-mine")
    client.run()
    assert {"my-vendor/model": key_header("key-of-mine")} == llama.keys


def test_only_language_models_are_called(client: Client, llama: Llama) -> None:
    """An embedding model that an operator registered completes no chat."""
    llama.lists("openai/embedding", kind="embedding")
    client.run()
    assert llama.bodies == []


def test_model_options_name_the_models(client: Client, llama: Llama) -> None:
    """--model, once or several times, calls these, registered or not."""
    client.run("--model", "gemini/flash", "--model", "openai/unlisted")
    called = [body["model"] for body in llama.bodies]
    assert called == ["gemini/flash"] * 2 + ["openai/unlisted"] * 2


@pytest.mark.parametrize(
    ("option", "streams", "row"),
    [
        ("--regular", [None], "gemini/flash  ok       -           0.0 s"),
        ("--stream", [True], "gemini/flash  -        ok          0.0 s"),
    ],
)
def test_one_way_of_calling_can_be_left_out(
    client: Client, llama: Llama, option: str, streams: list[bool | None], row: str
) -> None:
    """--regular and --stream make only such calls."""
    outcome = client.run(option, "--model=gemini/flash")
    called = [body.get("stream") for body in llama.bodies]
    assert (streams, row) == (called, outcome.out.splitlines()[-1])


def test_the_prompt_can_be_chosen(client: Client, llama: Llama) -> None:
    """--prompt is what the models are asked."""
    client.run("--prompt", "Why?", "--model=gemini/flash", "--regular")
    messages = [{"role": "user", "content": "Why?"}]
    assert [{"model": "gemini/flash", "messages": messages}] == llama.bodies


@pytest.mark.parametrize("url", ["http://far:1", "http://far:1/", "http://far:1/v1"])
def test_the_server_can_be_elsewhere(client: Client, llama: Llama, url: str) -> None:
    """--url is the server's address, with or without the path of OpenAI's clients."""
    listed = llama.router.get("http://far:1/v1/models")
    listed.respond(json={"data": [{"id": "gemini/flash"}]})
    elsewhere = llama.router.post("http://far:1/v1/chat/completions")
    elsewhere.respond(json=completion("Hi"))
    client.run("--url", url, "--regular")
    assert (elsewhere.call_count, llama.bodies) == (1, [])


def test_the_port_can_be_another(client: Client, llama: Llama) -> None:
    """LLAMA_STACK_PORT means the same to the client as to the server."""
    other = llama.router.get("http://127.0.0.1:9000/v1/models")
    other.respond(json={"data": []})
    client.set(LLAMA_STACK_PORT="9000")
    client.run()
    assert other.called


def test_streamed_text_is_shown_as_it_arrives(client: Client, llama: Llama) -> None:
    """A piece is on the screen before the next one is there."""
    seen = []

    class Stream(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            for piece in ("One", " two", " three"):
                yield f"data: {chunk(piece)}\n\n".encode()
                seen.append(client.printed())

    llama.chat.respond(headers=EVENTS, stream=Stream())
    client.run("--model=gemini/flash", "--stream")
    assert seen == ["gemini/flash\n  streamed  One", " two", " three"]


def test_an_answer_without_text_is_no_failure(client: Client, llama: Llama) -> None:
    """Vendors send chunks and answers without choices and without content."""
    empty = sse('{"choices": []}', chunk(None), "[DONE]")
    regular = httpx.Response(200, json=completion(None))
    llama.chat.mock(side_effect=[regular, empty])
    assert client.run("--model=gemini/flash").status == 0


def test_a_provider_without_a_key_is_skipped_and_named(
    client: Client, llama: Llama, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are called all the same, and that is a success."""
    llama.lists("gemini/flash", "anthropic/haiku")
    monkeypatch.delenv("GEMINI_API_KEY")
    expected = """\
gemini/flash
  skipped   GEMINI_API_KEY is not set
anthropic/haiku
  regular   Hello
  streamed  Hello

model            regular  streamed     time
gemini/flash     skipped  skipped         -
anthropic/haiku  ok       ok          0.0 s
"""
    assert (0, expected, "") == client.run()


def test_help_tells_all_that_the_client_reads(client: Client) -> None:
    """--help names the options, the variables and the exit statuses."""
    told = client.run("--help").out
    wanted = ["--model", "--prompt", "--regular", "--stream", "--url", URL]
    wanted += [*KEYS, "<PROVIDER>_API_KEY", "LLAMA_STACK_PORT", ".env", "exit status"]
    assert [word for word in wanted if word not in told] == []
