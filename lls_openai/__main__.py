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

from lls_openai.server.access_log import choose_format
from lls_openai.server.config_check import read_run_yaml
from lls_openai.server.lifecycle import TAKEN_PORT
from lls_openai.settings import give_up
from lls_openai.stack import (
    DISTRIBUTION,
    IS_OGX,
    RUN_COMMAND,
    VARIABLE,
    StackConfig,
    import_command,
)

# How long a worker may take to answer its parent, in seconds: on a busy machine it
# boots for longer than uvicorn's 5, and would be replaced before it ever served.
PATIENCE = 60


def main() -> None:
    """Check the configuration and the port, then run Llama Stack's own command."""
    parser = argparse.ArgumentParser(prog="python -m lls_openai", description=__doc__)
    parser.add_argument("config", type=Path, help="the run.yaml to serve")
    parser.add_argument("--port", help="the port (8321)")
    own = f"lls-openai {version('lls-openai')}, {DISTRIBUTION} {version(DISTRIBUTION)}"
    parser.add_argument("--version", action="version", version=own)
    options = parser.parse_args()
    port = _port(options.port or os.environ.get(f"{VARIABLE}_PORT") or "8321")
    config = read_run_yaml(options.config)
    if config.server.workers < 1:
        give_up(f"{options.config}: server.workers (LLS_WORKERS) is less than 1")
    _try_to_listen(config.server.host or "", port)
    _run(options.config, port, config)


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


def _insecure(config: StackConfig) -> list[str]:
    """OGX does not serve without a certificate unless it is told to."""
    return ["--insecure"] if IS_OGX and not config.server.tls_certfile else []


def _run(path: Path, port: int, config: StackConfig) -> None:
    sys.argv[1:] = [*RUN_COMMAND, str(path), "--port", str(port), *_insecure(config)]
    # The level of the command line itself, which says that HTTPS is on when it is not.
    os.environ.setdefault(f"{VARIABLE}_LOGGING", "cli=warning")
    choose_format()
    # With several workers uvicorn takes SIGHUP for a wish to replace them.
    Multiprocess.handle_hup = Multiprocess.handle_term  # type: ignore[method-assign]
    uvicorn.run = partial(uvicorn.run, timeout_worker_healthcheck=PATIENCE)
    # Imported here: it sets up logging and reads the environment as it is loaded.
    llama = import_command()

    try:
        llama()
    except Exception as error:  # noqa: BLE001 (whatever Llama Stack finds wrong)
        give_up(f"{path}: {' '.join(str(error).split())}")


if __name__ == "__main__":
    main()
