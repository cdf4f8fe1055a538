"""Servers that a tool starts for one measurement and stops afterwards."""

import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import DEVNULL, Popen
from typing import IO, NamedTuple

from tests.support.http import eventually
from tests.support.run_yaml import PROJECT
from tests.support.server import clean_environment, free_port, listens

BIN = Path(sys.executable).parent
_START_SECONDS = 90
_TICKS = os.sysconf("SC_CLK_TCK")


class Server(NamedTuple):
    """A running server, with what its whole process tree uses."""

    name: str
    port: int
    process: Popen[bytes]

    def cpu(self) -> float:
        """Return the seconds of CPU used so far."""
        return sum(map(_cpu, _tree(self.process.pid)))

    def memory(self) -> int:
        """Return the resident memory in bytes."""
        return sum(map(_memory, _tree(self.process.pid)))


def _tree(pid: int) -> Iterator[int]:
    yield pid
    # A thread or a child may end between the two look-ups.
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from _tree(int(child))


def _cpu(pid: int) -> float:
    with suppress(OSError):
        # Split behind the process name, which may contain spaces.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS
    return 0


def _memory(pid: int) -> int:
    with suppress(OSError):
        pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")
    return 0


@contextmanager
def running(
    name: str,
    command: Sequence[str | Path],
    env: dict[str, str],
    stderr: int | IO[bytes] | None = None,
) -> Iterator[Server]:
    """Run a server until the context ends, and wait until it listens.

    It reads its port from LLAMA_STACK_PORT. Its stderr is a temporary file by default.
    """
    env = clean_environment() | {"LLAMA_STACK_PORT": str(free_port())} | env
    port = int(env["LLAMA_STACK_PORT"])
    with tempfile.TemporaryFile() as log:
        process = Popen(
            command,
            cwd=PROJECT,
            env=env,
            stdin=DEVNULL,
            stdout=log,
            stderr=log if stderr is None else stderr,
            # Ctrl-C reaches the tool alone, which then stops its servers.
            start_new_session=True,
        )
        try:
            eventually(
                lambda: process.poll() is not None or listens(port),
                f"{name} listens",
                _START_SECONDS,
            )
            log.seek(0)
            assert process.poll() is None, f"{name} ended:\n{log.read().decode()}"
            yield Server(name, port, process)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def upstream_variables(url: str) -> dict[str, str]:
    """Return the variables that point every provider of run.yaml at one upstream."""
    return {f"{name}_UPSTREAM_URL": url for name in ("OPENAI", "GEMINI", "ANTHROPIC")}
