"""`python -m lls_openai run.yaml`: `llama stack run`, after a look at what it is given.

Llama Stack answers a wrong configuration with a traceback, and a taken port, with
several workers, with status 0. What is wrong is one line here, and status 3.
"""

import argparse
import os
import socket
import sys
from functools import partial
from importlib.metadata import version
from pathlib import Path

import uvicorn
from uvicorn.supervisors.multiprocess import Multiprocess

from lls_openai.server.lifecycle import TAKEN_PORT
from lls_openai.server.logs import choose_format
from lls_openai.server.run_yaml import read_run_yaml
from lls_openai.settings import give_up

# How long a worker may take to answer its parent, in seconds: on a busy machine it
# boots for longer than uvicorn's 5, and would be replaced before it ever served.
PATIENCE = 60


def main() -> None:
    """Check the configuration and the port, then run Llama Stack's own command."""
    parser = argparse.ArgumentParser(prog="python -m lls_openai", description=__doc__)
    parser.add_argument("config", type=Path, help="the run.yaml to serve")
    parser.add_argument("--port", help="the port (LLAMA_STACK_PORT, or 8321)")
    own = f"lls-openai {version('lls-openai')}, llama-stack {version('llama-stack')}"
    parser.add_argument("--version", action="version", version=own)
    options = parser.parse_args()
    port = _port(options.port or os.environ.get("LLAMA_STACK_PORT") or "8321")
    config = read_run_yaml(options.config)
    if config.server.workers < 1:
        give_up(f"{options.config}: server.workers (LLS_WORKERS) is less than 1")
    _try_to_listen(config.server.host or "", port)
    _run(options.config, port)


def _port(text: str) -> int:
    if not (text.isdecimal() and 0 < int(text) < 2**16):
        give_up("the port (LLAMA_STACK_PORT or --port) is not a number up to 65535")
    return int(text)


def _try_to_listen(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError:
        give_up(f"cannot listen on {host}:{port}: {TAKEN_PORT}")


def _run(path: Path, port: int) -> None:
    sys.argv[1:] = ["stack", "run", str(path), "--port", str(port)]
    # The level of the command line itself, which says that HTTPS is on when it is not.
    os.environ.setdefault("LLAMA_STACK_LOGGING", "cli=warning")
    choose_format()
    # With several workers uvicorn takes SIGHUP for a wish to replace them.
    Multiprocess.handle_hup = Multiprocess.handle_term  # type: ignore[method-assign]
    uvicorn.run = partial(uvicorn.run, timeout_worker_healthcheck=PATIENCE)
    # Imported here: it sets up logging and reads the environment as it is loaded.
    from llama_stack.cli.llama import main as llama  # noqa: PLC0415 (see above)

    try:
        llama()
    except Exception as error:  # noqa: BLE001 (whatever Llama Stack finds wrong)
        give_up(f"{path}: {' '.join(str(error).split())}")


if __name__ == "__main__":
    main()
