"""The demonstration: mock upstream, real server, real client; no key, no internet.

`make demo`, or `python -m tests.demo` in the project's folder.
"""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import NoReturn

if __name__ == "__main__":
    ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def leave(number: int, _frame: object) -> NoReturn:
        """End by taking everything down; a second signal does not cut that short."""
        for ending in ENDINGS:
            signal.signal(ending, signal.SIG_IGN)
        sys.exit(128 + number)

    # Before the imports below, which take a moment: Ctrl-C shows no traceback.
    for ending in ENDINGS:
        signal.signal(ending, leave)

from tests import environment
from tests.server import PROJECT, Server, ServerError
from tests.upstream import in_background

KEYS = {
    "OPENAI_API_KEY": "made-up-openai-key",
    "GEMINI_API_KEY": "made-up-gemini-key",
    "ANTHROPIC_API_KEY": "made-up-anthropic-key",
}
# No other provider is called: the mock upstream does not stand in for it.
MOCKED = {"openai", "openai-mini", "gemini", "anthropic"}
# Seconds between two pieces of a streamed answer, so that one sees them arrive.
PAUSE = 0.05

say = partial(print, flush=True)


def fail(message: str) -> NoReturn:
    """End with `message` and status 1."""
    print(message, file=sys.stderr)
    sys.exit(1)


def free_port() -> int:
    """Return LLAMA_STACK_PORT, or 8321, when nobody listens there."""
    text = os.environ.get("LLAMA_STACK_PORT") or "8321"
    try:
        with socket.create_server(("127.0.0.1", int(text))):
            return int(text)
    except (OverflowError, ValueError):
        fail(f"LLAMA_STACK_PORT is not a port: {text}")
    except OSError as error:
        fail(
            f"Port {text}: {os.strerror(error.errno or 0)}. Stop the program that uses "
            "it, or choose another port: LLAMA_STACK_PORT=8399 make demo"
        )


def client(port: int) -> int:
    """Let main.py call the models of the server on `port`; return its exit status."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/v1/models")
    names = [model["id"] for model in json.load(connection.getresponse())["data"]]
    connection.close()
    models = [f"--model={name}" for name in names if name.split("/")[0] in MOCKED]
    command = [sys.executable, "main.py", f"--url=http://127.0.0.1:{port}", *models]
    variables = environment.clean() | KEYS
    return subprocess.run(command, cwd=PROJECT, env=variables, check=False).returncode


def demonstrate(port: int) -> int:
    """Show it all, with the server on `port`; return the client's exit status.

    Raises:
        ServerError: The server did not start.
    """
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        stack.callback(say, "\nThe server and the mock are stopped.")
        say("Starting a mock of OpenAI, Gemini and Anthropic.")
        upstream = stack.enter_context(in_background())
        for vendor in upstream.vendors:
            vendor.pause = PAUSE
        say(f"Starting the server on port {port}: llama stack run run.yaml")
        server = Server(Path(directory), variables=upstream.environment, port=port)
        stack.enter_context(server)
        say("Asking its models, with made-up keys: python main.py\n")
        return client(server.port)


def main() -> int:
    """Run the demonstration.

    Returns:
        The exit status: 0 when every model answered, 1 when something failed, and
        128 + the signal's number after Ctrl-C or another signal.
    """
    try:
        status = demonstrate(free_port())
    except ServerError as error:
        fail(f"The server did not start: {error}")
    if status == 0:
        say("Next: cp .env.example .env, put your keys into it, run `make server`, and")
        say("`make client` in another terminal.")
    return status


if __name__ == "__main__":
    sys.exit(main())
