"""Demonstration with a mock upstream, the real server and the real client.

`make demo`, or `python -m tools.demo` in the project's folder. Needs no key and no
internet.
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from tools.cli import exit_on_signals

if __name__ == "__main__":
    # Before the imports below, which take a second.
    exit_on_signals()

from tests.support.http import KEYS
from tests.support.run_yaml import Variation
from tests.support.server import ServerError, Servers, clean_environment
from tests.support.upstream import in_background

say = partial(print, flush=True)

NEXT_STEPS = """\
Next:
  cp .env.example .env    add your own keys to this file
  make server
  make client             in another terminal"""


def free_port() -> int:
    """Return LLAMA_STACK_PORT, or 8321; exit if the port is in use or not a port."""
    text = os.environ.get("LLAMA_STACK_PORT") or "8321"
    try:
        with socket.create_server(("127.0.0.1", int(text))):
            return int(text)
    except (OSError, OverflowError, ValueError) as error:
        hint = "choose another: LLAMA_STACK_PORT=8399 make demo"
        sys.exit(f"Cannot listen on port {text}: {error}\n{hint}")


def run_demo(port: int) -> int:
    """Start the mock and the server, run the client; return its exit status."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.callback(say, "\nThe server and the mock are stopped.")
        say("Starting a mock of OpenAI, Gemini and Anthropic.")
        upstream = stack.enter_context(in_background())
        for vendor in upstream.vendors:
            # Slow enough to watch a streamed response arrive.
            vendor.pause = 0.05
        say(f"Starting the server on port {port}: llama stack run run.yaml")
        servers = Servers(directory, upstream.environment)
        stack.callback(servers.close)
        server = servers.start(Variation(), port)
        say("Calling its models with made-up keys: python main.py\n")
        return _run_client(directory, server.url)


def _run_client(directory: Path, url: str) -> int:
    # A copy outside the project does not read .env, whose keys are real.
    client = shutil.copy("main.py", directory)
    keys = {f"{name.upper()}_API_KEY": key for name, key in KEYS.items()}
    command, env = [sys.executable, client, f"--url={url}"], clean_environment() | keys
    return subprocess.run(command, env=env, check=False).returncode


if __name__ == "__main__":
    try:
        status = run_demo(free_port())
    except ServerError as error:
        sys.exit(f"The server did not start: {error}")
    if status == 0:
        say(NEXT_STEPS)
    sys.exit(status)
