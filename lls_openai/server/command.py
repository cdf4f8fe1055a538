"""`llama stack run`, behind a check of run.yaml, the port and the address.

Llama Stack itself reports a wrong configuration by a traceback, and a port in use, with
several workers, by status 0. Here each is one line and status 3.
"""

import argparse
import os
import signal
import sys
from functools import partial
from importlib.metadata import version
from pathlib import Path

import uvicorn
from uvicorn.supervisors.multiprocess import Multiprocess

from lls_openai.server.config_check import abort_startup, check_address, read_run_yaml
from lls_openai.server.logging_setup import choose_format, set_up_logging
from lls_openai.server.ogx import serve_on_ogx
from lls_openai.stack import DISTRIBUTION, IS_OGX, VARIABLE, StackConfig, import_command

_PORT_VARIABLE = f"{VARIABLE}_PORT"

# The time that a worker has to respond to its parent, in seconds. On a busy machine it
# boots for longer than uvicorn's 5 s, and would be replaced before it has ever served.
WORKER_HEALTHCHECK_TIMEOUT = 60


def run() -> None:
    """Check what the operator has configured, then run Llama Stack's own command."""
    parser = argparse.ArgumentParser(prog="lls-openai", description=__doc__)
    parser.add_argument("config", type=Path, help="path of run.yaml")
    parser.add_argument("--port", help="port to listen on (8321)")
    own = f"lls-openai {version('lls-openai')}, {DISTRIBUTION} {version(DISTRIBUTION)}"
    parser.add_argument("--version", action="version", version=own)
    options = parser.parse_args()
    port = _read_port(options.port)
    config = read_run_yaml(options.config)
    check_address(config.server.host or "", port)
    _run_stack(options.config, port, config)


def _read_port(option: str | None) -> int:
    # Llama Stack would fail at an empty variable, which means the default here.
    variable = os.environ.pop(_PORT_VARIABLE, "")
    text = option or variable or "8321"
    if not (text.isdecimal() and 0 < int(text) < 2**16):
        name = "--port" if option else _PORT_VARIABLE
        abort_startup(f"invalid port {text!r} in {name}: must be 1-65535")
    return int(text)


def _run_stack(path: Path, port: int, config: StackConfig) -> None:
    # The command line itself logs at `info` that HTTPS is on when it is not.
    os.environ.setdefault(f"{VARIABLE}_LOGGING", "cli=warning")
    choose_format()
    _set_up_uvicorn()
    try:
        if IS_OGX:
            serve_on_ogx(path, port, config)
        else:
            _run_llama_stack(path, port)
    except Exception as error:  # noqa: BLE001 (whatever Llama Stack finds wrong)
        abort_startup(f"{path}: {' '.join(str(error).split())}")


def _run_llama_stack(path: Path, port: int) -> None:
    sys.argv[1:] = ["stack", "run", str(path), "--port", str(port)]
    # Importing it sets up logging and reads the environment.
    command = import_command()
    set_up_logging()
    command()


def _set_up_uvicorn() -> None:
    """Set what Llama Stack does not pass on to uvicorn."""
    uvicorn.run = partial(
        uvicorn.run,
        timeout_worker_healthcheck=WORKER_HEALTHCHECK_TIMEOUT,
        # Of several workers, the parent would get uvicorn's own format.
        log_config=None,
    )
    # At a SIGHUP, uvicorn's parent process would replace its workers.
    Multiprocess.handle_hup = Multiprocess.handle_term  # type: ignore[method-assign]
    signals = signal.SIGINT, signal.SIGHUP
    ignored = [each for each in signals if signal.getsignal(each) is signal.SIG_IGN]
    start_workers = Multiprocess.init_processes

    def init_processes(parent: Multiprocess) -> None:
        # `nohup` has SIGHUP ignored, and uvicorn has just begun to handle it.
        for each in ignored:
            signal.signal(each, signal.SIG_IGN)
        # Ctrl-C would end workers that are booting with a traceback each.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        start_workers(parent)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

    Multiprocess.init_processes = init_processes  # type: ignore[assignment, method-assign]
