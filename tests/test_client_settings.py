"""Where the client finds its keys: .env, and the environment before it."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client_run import Client, Llama, playing

MODEL = "gemini/flash"


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
    """The client, without a key."""
    return Client(tmp_path, monkeypatch, capsys)


def key_sent(llama: Llama) -> str:
    """The key that came with the calls of the model."""
    data: dict[str, str] = json.loads(llama.keys[MODEL])
    return data["passthrough_api_key"]


@pytest.mark.parametrize(
    "line",
    [
        "GEMINI_API_KEY=from-file",
        "GEMINI_API_KEY='from-file'",
        'GEMINI_API_KEY="from-file"  # of the team',
        "  GEMINI_API_KEY = from-file  ",
        "export GEMINI_API_KEY=from-file",
        "# two words: it's mine\n\nOTHER=a b c\nGEMINI_API_KEY=from-file",
        "GEMINI_API_KEY=from-file\r",
    ],
)
def test_a_key_is_read_from_the_file(client: Client, llama: Llama, line: str) -> None:
    """Quotes, spaces, comments and line ends of .env are not part of a key."""
    (client.folder / ".env").write_text(f"{line}\n")
    client.run()
    assert key_sent(llama) == "from-file"


def test_the_file_of_the_current_folder_comes_before_the_project_s(
    client: Client, llama: Llama, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are read; what the current folder says about a variable wins."""
    (client.folder / ".env").write_text("GEMINI_API_KEY=of-project\n")
    here = client.folder / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    client.run()
    alone = key_sent(llama)
    (here / ".env").write_text("GEMINI_API_KEY=of-folder\n")
    client.run()
    assert (alone, key_sent(llama)) == ("of-project", "of-folder")


def test_the_environment_comes_before_the_file(client: Client, llama: Llama) -> None:
    """`GEMINI_API_KEY=… make client` tries another key."""
    (client.folder / ".env").write_text("GEMINI_API_KEY=from-file\n")
    client.set(GEMINI_API_KEY="from-environment")
    client.run()
    assert key_sent(llama) == "from-environment"


def test_an_empty_variable_counts_as_unset(client: Client, llama: Llama) -> None:
    """An exported but empty variable does not hide the key in .env."""
    (client.folder / ".env").write_text("GEMINI_API_KEY=from-file\n")
    client.set(GEMINI_API_KEY="")
    client.run()
    assert key_sent(llama) == "from-file"


def test_quotes_that_a_shell_left_are_dropped(client: Client, llama: Llama) -> None:
    """`export $(cat .env)` keeps the quotes of .env in the value."""
    client.set(GEMINI_API_KEY='"exported"')
    client.run()
    assert key_sent(llama) == "exported"


def test_the_port_is_read_from_the_file(client: Client, llama: Llama) -> None:
    """One .env serves both the server and the client."""
    (client.folder / ".env").write_text("LLAMA_STACK_PORT=9000\n")
    other = llama.router.get("http://127.0.0.1:9000/v1/models")
    other.respond(json={"data": []})
    client.run()
    assert other.called
