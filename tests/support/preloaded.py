"""Servers forked off a process that has imported what Llama Stack is made of.

That takes 3 of the 4 seconds of CPU of a start. Llama Stack itself and this project are
imported by each server, by its own `llama`, in its own environment.
"""

import json
import os
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

MODULES = (
    "llama_stack_api mcp openai uvicorn fastapi aiohttp rich.console structlog yaml "
    "sqlalchemy.ext.asyncio opentelemetry.sdk.metrics cryptography.x509 jwt msgspec"
)


class Preloaded:
    """The process: it ends with the tests, or when it is closed."""

    def __init__(self) -> None:
        """Start it; it imports beside what comes next."""
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(
        self,
        command: list[str],
        cwd: Path,
        env: Mapping[str, str],
        outputs: tuple[Path, Path],
    ) -> int:
        """Run a Python script with arguments as `subprocess` would; gives its id."""
        assert self._process.stdin
        assert self._process.stdout
        job = command, str(cwd), dict(env), list(map(str, outputs))
        with self._lock:
            print(json.dumps(job), file=self._process.stdin, flush=True)
            return int(self._process.stdout.readline())

    def close(self) -> None:
        """End the process; servers that run are not touched."""
        self._process.communicate()


def _become(
    command: list[str], cwd: str, env: dict[str, str], outputs: list[str]
) -> None:
    # A group of its own, as of a server that is started by itself.
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    for number, path in enumerate((os.devnull, *outputs)):
        os.dup2(os.open(path, os.O_RDWR), number)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # (a file)
    sys.argv = command
    runpy.run_path(command[0], run_name="__main__")


def main() -> None:
    """Fork for each line of standard input, and answer it with the new one's id."""
    for name in MODULES.split():
        __import__(name)
    # Who ends is gone, and waits for nobody to ask how.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in iter(sys.stdin.readline, ""):
        if not (pid := os.fork()):
            _become(*json.loads(line))
            return
        print(pid, flush=True)


if __name__ == "__main__":
    main()
