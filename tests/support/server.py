"""The real server as a subprocess, on run.yaml or a variation of it."""

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from string import Template
from typing import IO

import httpx

from tests.support.http import eventually
from tests.support.run_yaml import IS_OGX, VARIABLE, Variation
from tests.support.wire import Json

# Llama Stack needs 3 to 4 s; a machine under load much longer.
_BOOT_SECONDS = 60
# Variables that change how a test runs: keys, proxies, TLS trust, and the settings of
# this project, Llama Stack, OpenTelemetry and Python.
_UNWANTED_VARIABLES = re.compile(
    r".*_API_KEY|.*_UPSTREAM_URL|(HTTPS?|ALL|NO)_PROXY|SSL_CERT_(FILE|DIR)"
    r"|(LLS|LLAMA_STACK|OGX|OTEL|SQLITE_STORE)_.*|PYTHON.+",
    re.IGNORECASE,
)


def clean_environment() -> dict[str, str]:
    """Return this machine's environment without variables that affect tests."""
    return {
        name: value
        for name, value in os.environ.items()
        if not _UNWANTED_VARIABLES.fullmatch(name)
    }


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return not probe.connect_ex(("127.0.0.1", port))


def free_port() -> int:
    """Return a free port below those that the system gives to connections."""
    while True:
        port = random.randint(20000, 32000)  # noqa: S311 - no secret
        if not listens(port):
            return port


class ServerError(Exception):
    """The server did not start; the message holds its output."""


class Server:
    """A server process; `wait_ready` returns once it listens."""

    def __init__(
        self,
        directory: Path,
        variation: Variation,
        env: Mapping[str, str],
        port: int | None = None,
    ) -> None:
        """Start it with separate directories for home, work and temporary files."""
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.client = httpx.Client(
            base_url=self.url,
            trust_env=False,
            timeout=15,
            verify=False,  # noqa: S501 - no TLS here, and loading authorities is slow
            # uvicorn closes idle connections after 5 s; never reuse one just then.
            limits=httpx.Limits(keepalive_expiry=2),
        )
        self._directory = directory
        self.files = directory / "files"
        home, work, temporary = (self.files / name for name in ("home", "work", "tmp"))
        for path in (home, work, temporary):
            path.mkdir(parents=True)
        variables = {
            "HOME": str(home),
            "TMPDIR": str(temporary),
            f"{VARIABLE}_PORT": str(self.port),
            "PYTHONUNBUFFERED": "1",
        }
        # `make ogx` has no other way to start it.
        if variation.as_module or IS_OGX:
            command = [sys.executable, "-m", "lls_openai"]
        else:
            command = [str(Path(sys.executable).with_name("llama")), "stack", "run"]
            # `python -m lls_openai` chooses the format itself.
            variables[f"{VARIABLE}_LOG_FORMAT"] = "json"
        self.command = [*variation.prefix, *command, str(variation.write(directory))]
        own = {
            name: Template(value).safe_substitute(env)
            for name, value in variation.env.items()
        }
        with self._output("stdout") as stdout, self._output("stderr") as stderr:
            self._process = subprocess.Popen(
                self.command,
                cwd=variation.cwd or work,
                env={**clean_environment(), **variables, **env, **own},
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                # A process group, which a test may signal.
                start_new_session=True,
            )
        self.pid = self._process.pid

    def _output(self, name: str) -> IO[bytes]:
        return (self._directory / name).open("wb")

    def read(self, name: str) -> str:
        """Return the output so far on "stdout" or "stderr"."""
        return (self._directory / name).read_text(errors="replace")

    @property
    def log(self) -> str:
        """All output so far."""
        return self.read("stdout") + self.read("stderr")

    def has_exited(self) -> bool:
        return self._process.poll() is not None

    def wait_ready(self) -> None:
        with suppress(AssertionError):
            eventually(
                lambda: self.has_exited() or listens(self.port),
                "the server listens",
                _BOOT_SECONDS,
            )
        if not listens(self.port):
            self.kill()
            raise ServerError(f"the server has not started:\n{self.log}")

    def wait_exit(self, seconds: float = 15) -> int:
        """Wait until the process has exited; return its status."""
        eventually(self.has_exited, "the server exits", seconds)
        return self._process.wait()

    def kill(self) -> None:
        """Kill the server and its workers."""
        self.client.close()
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.wait_exit()

    def access_log(self, **fields: object) -> list[Json]:
        """Return the access log entries so far that have these fields."""
        lines = [line for line in self.log.split("\n")[:-1] if line.startswith("{")]
        entries: list[Json] = [json.loads(line) for line in lines]
        wanted = {"logger": "lls_openai.access"} | fields
        return [entry for entry in entries if wanted.items() <= entry.items()]

    def log_entries(self, since: int) -> list[Json]:
        """Return the entries behind a position in the log; each line is JSON."""
        lines = self.log[since:].split("\n")[:-1]
        assert [line for line in lines if not line.startswith("{")] == []
        return [json.loads(line) for line in lines]

    def wait_access_log(self, count: int = 1, **fields: object) -> list[Json]:
        """Wait for `count` access log entries with these fields, and return them."""

        def logged() -> list[Json]:
            entries = self.access_log(**fields)
            return entries if len(entries) >= count else []

        return eventually(logged, f"{count} access log entries with {fields}")

    def wait_log_line(self, *parts: str) -> str:
        """Wait for a line of output with all these parts, and return it."""

        def logged() -> str:
            lines = self.log.split("\n")[:-1]
            return next((x for x in lines if all(part in x for part in parts)), "")

        return eventually(logged, f"a log line with {parts}")

    def memory(self, field: str = "VmRSS") -> int:
        """Return the process's memory in bytes; "VmHWM" is the peak."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition(f"{field}:")[2].split()[0]) * 1024

    def measure_growth(self) -> Callable[[], int]:
        """Return a function that returns the peak growth in bytes since this call."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")
        before = self.memory()
        return lambda: self.memory("VmHWM") - before

    def open_files(self) -> int:
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def children(self) -> list[int]:
        """Return the process ids of its workers and helpers."""
        tasks = Path(f"/proc/{self.pid}/task").glob("*/children")
        return [int(pid) for task in tasks for pid in task.read_text().split()]


class Servers:
    """Servers that tests share: one for each variation."""

    def __init__(self, directory: Path, env: Mapping[str, str]) -> None:
        """Set up; each server gets its own directory in `directory`."""
        self._directory = directory
        self._env = env
        self._started: list[Server] = []
        self._booting: dict[str, Future[Server]] = {}
        # Two at a time: a boot keeps a core busy.
        self._pool = ThreadPoolExecutor(2, "boot")

    def start(
        self, variation: Variation, port: int | None = None, *, ready: bool = True
    ) -> Server:
        """Start another server, and wait until it is ready."""
        directory = self._directory / str(time.monotonic_ns())
        server = Server(directory, variation, self._env, port)
        self._started.append(server)
        if ready:
            server.wait_ready()
        return server

    def boot(self, variation: Variation) -> Future[Server]:
        """Start the server of a variation in the background, once."""
        if variation.key not in self._booting:
            self._booting[variation.key] = self._pool.submit(
                self.start, variation, ready=variation.serves
            )
        return self._booting[variation.key]

    def get(self, variation: Variation) -> Server:
        return self.boot(variation).result()

    def close(self) -> None:
        """Kill every server."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        # Twice, for a server that was just being started the first time.
        for _ in range(2):
            for server in list(self._started):
                server.kill()
            self._pool.shutdown()
