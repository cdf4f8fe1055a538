"""`make demo`: it needs no key and no internet, and leaves nothing behind."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import environment
from tests.server import PROJECT, free_port

SECONDS = 120
DEMO = [sys.executable, "-m", "tests.demo"]
STOPPED = "The server and the mock are stopped."


def start(port: int) -> subprocess.Popen[str]:
    """Start the demonstration, in a process group as a terminal would."""
    return subprocess.Popen(
        DEMO,
        cwd=PROJECT,
        env=environment.clean() | {"LLAMA_STACK_PORT": str(port)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def left_on(port: int) -> list[str]:
    """The command lines of what a demonstration on `port` has running."""
    mark = f"LLAMA_STACK_PORT={port}".encode()
    left = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (process / "environ").read_bytes().split(b"\0"):
                left.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:  # it has just ended, or is another user's
            continue
    return left


def server_boots(port: int) -> bool:
    """Wait until the server's process is there."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        if any("stack run" in command for command in left_on(port)):
            return True
        time.sleep(0.05)
    return False


def client_asks(demo: subprocess.Popen[str]) -> bool:
    """Wait until the client has shown its first answer."""
    return any(line.startswith("  regular") for line in demo.stdout or ())


def test_all_five_models_answer_without_a_key() -> None:
    """Mock, server and client: five rows of ok, and then all is gone."""
    port = free_port()
    with start(port) as demo:
        output, _ = demo.communicate(timeout=SECONDS)
    rows = [line.split()[1:3] for line in output.splitlines() if line.endswith(" s")]
    status = demo.returncode, STOPPED in output
    assert (status, rows, left_on(port)) == ((0, True), [["ok", "ok"]] * 5, [])


@pytest.mark.parametrize("stage", ["boot", "calls"])
def test_ctrl_c_takes_everything_down(stage: str) -> None:
    """While the server boots and while the client asks, Ctrl-C leaves nothing."""
    port = free_port()
    with start(port) as demo:
        reached = server_boots(port) if stage == "boot" else client_asks(demo)
        os.killpg(demo.pid, signal.SIGINT)
        rest, _ = demo.communicate(timeout=SECONDS)
    ended = reached, demo.returncode, STOPPED in rest, "Traceback" in rest
    assert (ended, left_on(port)) == ((True, 130, True, False), [])


def test_a_taken_port_is_told() -> None:
    """It says which port, and how to take another, and starts nothing."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with start(port) as demo:
            output, _ = demo.communicate(timeout=SECONDS)
    told = (
        f"Port {port}: Address already in use. Stop the program that uses it, or "
        "choose another port: LLAMA_STACK_PORT=8399 make demo\n"
    )
    assert (demo.returncode, output) == (1, told)
