"""The parent of several workers: what uvicorn's (`Multiprocess`) leaves open.

While its workers end their last answers, that one keeps the port, where new callers
then wait for nobody, and hears no second signal.
"""

import os
import signal
from functools import partial
from typing import NoReturn

import uvicorn
from uvicorn.supervisors.multiprocess import Multiprocess, Process

# How long a worker may take to answer its parent, in seconds: on a busy machine it
# boots for longer than uvicorn's 5, and would be replaced before it ever served.
PATIENCE = 60

_start_process = Process.start
_terminate_all = Multiprocess.terminate_all


def mend_parent() -> None:
    """Have the parent of workers that this process may become start and leave well."""
    uvicorn.run = partial(uvicorn.run, timeout_worker_healthcheck=PATIENCE)
    for owner, name, ours in (
        (Process, "start", start_deaf),
        (Multiprocess, "terminate_all", leave),
    ):
        setattr(owner, name, ours)


def start_deaf(process: Process) -> None:
    """Start a worker that is deaf to Ctrl-C until it serves.

    The terminal sends Ctrl-C to the workers as well; one that boots would show where
    it was. Its parent tells it to end.

    Args:
        process: the worker.
    """
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        _start_process(process)
    finally:
        signal.signal(signal.SIGINT, handler)


def leave(parent: Multiprocess) -> None:
    """Let go of the port and ask the workers to end; at a second signal, end all.

    Args:
        parent: the parent, told to end by a first signal.
    """

    def end(number: int, _frame: object) -> NoReturn:
        for worker in parent.processes:
            worker.process.kill()
        os._exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    for listening in parent.sockets:
        listening.close()
    _terminate_all(parent)
