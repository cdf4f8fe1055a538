"""The demonstration: mock upstream, real server, real client; no key, no internet.

`make demo`, or `python -m tools.demo` in the project's folder.
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

from tools.cli import end_on_signals

if __name__ == "__main__":
    # Before the imports below, which take a moment.
    end_on_signals()

from tests.support.http import KEYS
from tests.support.run_yaml import Variation
from tests.support.server import ServerError, Servers, clean_environment
from tests.support.upstream import in_background
from tools.mock.vendors import DIALECTS

say = partial(print, flush=True)


def free_port() -> int:
    """Return LLAMA_STACK_PORT, or 8321, when nobody listens there."""
    text = os.environ.get("LLAMA_STACK_PORT") or "8321"
    try:
        with socket.create_server(("127.0.0.1", int(text))):
            return int(text)
    except (OSError, OverflowError, ValueError) as error:
        other = "choose another: LLAMA_STACK_PORT=8399 make demo"
        sys.exit(f"Port {text} cannot be used, {other} ({error})")


def demonstrate(port: int) -> int:
    """Show it all, with the server on `port`; return the client's exit status."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.callback(say, "\nThe server and the mock are stopped.")
        say("Starting a mock of OpenAI, Gemini and Anthropic.")
        upstream = stack.enter_context(in_background(**DIALECTS))
        for vendor in upstream.vendors:
            # So that one sees a streamed answer arrive.
            vendor.pause = 0.05
        say(f"Starting the server on port {port}: llama stack run run.yaml")
        servers = Servers(directory, upstream.environment)
        stack.callback(servers.close)
        server = servers.start(Variation(), port)
        say("Asking its models, with made-up keys: python main.py\n")
        keys = {f"{name.upper()}_API_KEY": key for name, key in KEYS.items()}
        # Away from .env: a real key in it is for a vendor that has no mock.
        client = shutil.copy("main.py", directory)
        command = [sys.executable, client, f"--url={server.url}"]
        env = clean_environment() | keys
        return subprocess.run(command, env=env, check=False).returncode


if __name__ == "__main__":
    try:
        status = demonstrate(free_port())
    except ServerError as error:
        sys.exit(f"The server did not start: {error}")
    if status == 0:
        say("Next: cp .env.example .env, put your keys into it, run `make server`, and")
        say("`make client` in another terminal.")
    sys.exit(status)
