"""The client as a person starts it: a process, a shell, the real server."""

import os
import select
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests import environment
from tests.scripts import DONE, streaming
from tests.server import PROJECT, Server
from tests.upstream import Gate, Upstream

MAIN = PROJECT / "main.py"
KEYS = {
    "OPENAI_API_KEY": "sk-good-openai",
    "GEMINI_API_KEY": "good-gemini",
    "ANTHROPIC_API_KEY": "sk-good-anthropic",
}
MODELS = [
    "openai/gpt-4o",
    "openai-mini/gpt-4o-mini",
    "openai-mini/gpt-4.1-nano",
    "gemini/gemini-2.5-flash-lite",
    "anthropic/claude-haiku-4-5-20251001",
]
SECONDS = 60


def client(
    *arguments: str, folder: Path, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run main.py in `folder`, with `variables` in its environment."""
    return subprocess.run(
        [sys.executable, MAIN, *arguments],
        cwd=folder,
        env=environment.clean() | variables,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def table(output: str) -> list[list[str]]:
    """The rows of the summary: model, regular, streamed."""
    _, _, rows = output.partition("\n\n")
    return [row.split()[:3] for row in rows.splitlines()[1:]]


def test_all_five_models_answer(server: Server, tmp_path: Path) -> None:
    """With three keys the real server answers for every model, both ways."""
    ended = client("--url", server.url, folder=tmp_path, **KEYS)
    expected = [[model, "ok", "ok"] for model in MODELS]
    assert (ended.returncode, table(ended.stdout), ended.stderr) == (0, expected, "")


def test_each_vendor_s_own_message_is_shown(server: Server, tmp_path: Path) -> None:
    """What a vendor says about a bad key reaches the person who sent it."""
    keys = {name: f"wrong-{key}" for name, key in KEYS.items()}
    ended = client("--url", server.url, folder=tmp_path, **keys)
    messages = ("401 Incorrect API key", "400 API key not valid", "401 Invalid Anth")
    told = [message in ended.stdout for message in messages]
    given_away = [key for key in keys.values() if key in ended.stdout + ended.stderr]
    assert (ended.returncode, told, given_away) == (1, [True] * 3, [])


def filled_in_example() -> str:
    """What .env.example becomes in the hands of a user."""
    example = (PROJECT / ".env.example").read_text()
    for name, key in KEYS.items():
        example = example.replace(f"{name}=", f"{name}={key}")
    return example


def in_shell(shell: str, command: str, folder: Path) -> tuple[int, str, str]:
    """Run `command`; return its exit status and what it printed."""
    ended = subprocess.run(
        [shell, "-c", command],
        cwd=folder,
        env=environment.clean(),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    return ended.returncode, ended.stdout, ended.stderr


@pytest.mark.parametrize("shell", ["bash", "sh"])
@pytest.mark.parametrize("load", ["export $(cat .env)", "set -a; . ./.env; set +a"])
def test_shells_take_a_filled_in_example(tmp_path: Path, shell: str, load: str) -> None:
    """Each usual way of loading a .env exports what .env.example has in it."""
    (tmp_path / ".env").write_text(filled_in_example())
    names = [line.partition("=")[0] for line in filled_in_example().splitlines()]
    ended = in_shell(shell, f"{load} && printenv {' '.join(names)}", tmp_path)
    values = "".join(
        line.partition("=")[2] + "\n" for line in filled_in_example().splitlines()
    )
    assert ended == (0, values, "")


def test_exported_keys_are_used(server: Server, tmp_path: Path) -> None:
    """`export $(cat .env) && python main.py` works as users know it."""
    (tmp_path / "keys").write_text(filled_in_example())
    command = shlex.join([sys.executable, str(MAIN), "--regular", "--url", server.url])
    ended = in_shell("bash", f"export $(cat keys) && {command}", tmp_path)
    expected = [[model, "ok", "-"] for model in MODELS]
    assert (ended[0], table(ended[1]), ended[2]) == (0, expected, "")


def test_no_key_is_in_the_debug_log(server: Server, tmp_path: Path) -> None:
    """Not even llama-stack-client's own debug log of each request shows it."""
    ended = client(
        "--url",
        server.url,
        folder=tmp_path,
        LLAMA_STACK_CLIENT_LOG="debug",
        OPENAI_API_KEY="sk-good-marked",
    )
    logged = ended.stdout + ended.stderr
    seen = "Request options" in logged, "sk-good-marked" in logged
    assert (ended.returncode, seen) == (0, (True, False))


def test_streamed_text_is_not_kept_back(
    server: Server, upstream: Upstream, tmp_path: Path
) -> None:
    """Also in a pipe a piece is there before the upstream has sent the next one."""
    gate = Gate()
    piece = b'data: {"choices": [{"index": 0, "delta": {"content": "One"}}]}\n\n'
    upstream.openai.answer_with(streaming(piece, gate, DONE))
    with subprocess.Popen(
        [sys.executable, MAIN, "--stream", f"--model={MODELS[0]}", "--url", server.url],
        cwd=tmp_path,
        env=environment.clean() | KEYS,
        stdout=subprocess.PIPE,
    ) as process:
        shown = read_until(b"One", process)
        gate.open()
        process.communicate(timeout=SECONDS)
    assert (shown, process.returncode) == (b"openai/gpt-4o\n  streamed  One", 0)


def read_until(text: bytes, process: subprocess.Popen[bytes]) -> bytes:
    """Read what `process` prints, as far as `text` if it gets there in time."""
    seen, pipe = b"", process.stdout
    assert pipe
    while text not in seen and select.select([pipe], [], [], SECONDS)[0]:
        seen += os.read(pipe.fileno(), 1000) or text
    return seen


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A socket of the loopback interface that takes connections and says nothing."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        listening.settimeout(SECONDS)
        yield listening


def address(listening: socket.socket) -> str:
    """The address of a socket."""
    return "http://{}:{}".format(*listening.getsockname())


def test_a_proxy_gets_to_see_nothing(
    server: Server, silent: socket.socket, tmp_path: Path
) -> None:
    """A proxy that the environment names for other programs gets no key."""
    proxies = dict.fromkeys(("HTTP_PROXY", "http_proxy", "ALL_PROXY"), address(silent))
    ended = client("--url", server.url, folder=tmp_path, **KEYS, **proxies)
    silent.settimeout(0)
    with pytest.raises(BlockingIOError):
        silent.accept()
    assert ended.returncode == 0


def test_ctrl_c_ends_it_without_a_traceback(
    silent: socket.socket, tmp_path: Path
) -> None:
    """While it waits for an answer, Ctrl-C ends it with the status of shells."""
    with subprocess.Popen(
        [sys.executable, MAIN, "--url", address(silent)],
        cwd=tmp_path,
        env=environment.clean() | KEYS,
        stderr=subprocess.PIPE,
    ) as process:
        connection, _ = silent.accept()
        with connection:
            os.kill(process.pid, signal.SIGINT)
            _, told = process.communicate(timeout=SECONDS)
    assert (process.returncode, told) == (130, b"\n")
