"""Starting and leaving: what `llama stack run` and uvicorn leave open about both."""

import atexit
import gc
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

import uvicorn
from uvicorn.config import STARTUP_FAILURE

from lls_openai.connection import accept_with_bounds

# How many new objects there may be before the collector looks at them (CPython: 700).
YOUNG_OBJECTS = 10_000

TAKEN_PORT = (
    "stop what listens there, or choose another port with LLAMA_STACK_PORT "
    "or another interface with LLS_HOST"
)


def give_up(message: str) -> NoReturn:
    """End the process before it serves, with one line that says why.

    `llama stack run` takes SystemExit for an interrupt and ends with status 0
    (`llama_stack.cli.stack.run`); nothing runs after this that could.

    Args:
        message: what is wrong and what to do.
    """
    sys.stdout.flush()
    print(f"lls-openai: {message}", file=sys.stderr, flush=True)  # noqa: T201 (for a person)
    os._exit(STARTUP_FAILURE)


@contextmanager
def serving() -> Iterator[None]:
    """Wrap the lifespan of the server that runs in this process, if it is uvicorn's.

    Inside, a second signal ends the process at once, and connections are bounded. At
    the end, a server that never listened makes the exit status say so.
    """
    # Llama Stack's 200,000 objects stay: the collector need not look at them
    # again while requests wait (as CPython's documentation of `gc.freeze` advises).
    # Of what calls leave behind, so little is in cycles that it can wait, too.
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS)
    server = _running_server()
    if server is None:
        yield
        return
    accept_with_bounds(server.config)
    seen: set[int] = set()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _second_ends(server, seen))
    yield
    if not server.started:
        place = f"{server.config.host}:{server.config.port}"
        atexit.register(give_up, f"cannot listen on {place}: {TAKEN_PORT}")


def _running_server() -> uvicorn.Server | None:
    """Find the server by the signal handler it has set: it is handed out nowhere."""
    owner = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return owner if isinstance(owner, uvicorn.Server) else None


def _second_ends(
    server: uvicorn.Server, seen: set[int]
) -> Callable[[int, FrameType | None], None]:
    """Make a handler that leaves the first signal to the server and exits on another.

    A worker gets Ctrl-C from the terminal and SIGTERM from its parent for one wish of
    one person, so there the second must be of the same kind.
    """
    is_worker = multiprocessing.parent_process() is not None

    def handle(number: int, frame: FrameType | None) -> None:
        if number in seen or (seen and not is_worker):
            os._exit(128 + number)
        seen.add(number)
        server.handle_exit(number, frame)

    return handle
