"""A process off which servers are forked, once it has imported what they are made of.

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
from contextlib import suppress
from pathlib import Path

MODULES = (
    "llama_stack_api mcp openai uvicorn fastapi aiohttp rich.console structlog yaml "
    "sqlalchemy.ext.asyncio opentelemetry.sdk.metrics cryptography.x509 jwt msgspec"
)


class Launcher:
    """The process; it ends with the one that has started it."""

    def __init__(self, modules: str = "") -> None:
        """Start it; it imports the modules beside what comes next."""
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, *modules.split()],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # Ctrl-C goes to the tests alone.
            start_new_session=True,
        )

    def start(
        self, command: list[str], cwd: Path, env: Mapping[str, str], directory: Path
    ) -> int:
        """Run a script or a module of Python; gives the id of the process.

        Its output and, once it has ended, its status are files in the directory.
        """
        assert self._process.stdin
        assert self._process.stdout
        job = command, str(cwd), dict(env), str(directory)
        with self._lock:
            print(json.dumps(job), file=self._process.stdin, flush=True)
            return int(self._process.stdout.readline())


def _serve(command: list[str], cwd: str, env: dict[str, str], directory: str) -> None:
    """Fork, and stay to note how the server has ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if not (pid := os.fork()):
        _become(command, cwd, env, directory)
        return
    signal.signal(signal.SIGTERM, lambda *_: os.killpg(pid, signal.SIGKILL))
    print(pid, flush=True)
    # The pipes are the launcher's, which may end first.
    os.closerange(0, 3)
    _, status = os.waitpid(pid, 0)
    Path(directory, "status").write_text(str(os.waitstatus_to_exitcode(status)))
    os._exit(0)


def _become(command: list[str], cwd: str, env: dict[str, str], directory: str) -> None:
    # A group of its own, as of a server that is started by itself.
    os.setsid()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    for number, name in enumerate((os.devnull, "stdout", "stderr")):
        os.dup2(os.open(Path(directory, name), os.O_RDWR | os.O_CREAT), number)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # (a file)
    sys.argv = command
    if command[0].startswith("/"):
        runpy.run_path(command[0], run_name="__main__")
    else:
        runpy.run_module(command[0], run_name="__main__", alter_sys=True)


def main() -> None:
    """Fork for each line of standard input, and answer it with the new one's id."""
    for name in sys.argv[1:]:
        __import__(name)
    # Those that stay are not waited for.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    watching = list[int]()
    for line in sys.stdin:
        if not (pid := os.fork()):
            _serve(*json.loads(line))
            return
        watching.append(pid)
    # Whoever wanted these servers has ended.
    for pid in watching:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)


if __name__ == "__main__":
    main()
