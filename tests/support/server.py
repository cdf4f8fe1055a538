"""The real server in a process of its own, on run.yaml or a variation of it."""

import json
import os
import random
import re
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.support.http import eventually
from tests.support.launcher import Launcher
from tests.support.wire import Json

PROJECT = Path(__file__).parents[2]
RUN_YAML = PROJECT / "run.yaml"
# Those of run.yaml, and what another is unless a variation says otherwise.
PROVIDERS = "openai", "openai-mini", "gemini", "anthropic"
_ADDED: Json = {
    "provider_type": "remote::passthrough",
    "module": "lls_openai",
    "config": {"base_url": "${env.OPENAI_UPSTREAM_URL}"},
}

# Marks of tests: tokens of the server's own, and a log that is as large as can be.
_AUTH = {"provider_config": {"type": "custom", "endpoint": "${env.GATEKEEPER_URL}"}}
WITH_AUTH = pytest.mark.server({"server": {"auth": _AUTH}})
TALKATIVE = pytest.mark.server(
    {"logging_config": {"category_levels": {"all": "debug"}}},
    env={"LLAMA_STACK_LOG_FORMAT": "text", "LLAMA_STACK_LOGGING": "all=debug"},
)

# Llama Stack needs 3 to 4 s; a machine under load much longer.
_BOOT_SECONDS = 60
# Keys, proxies, trust, and what this project, Llama Stack, OpenTelemetry and Python
# read: without bytecode, for one, a server takes five times as long to start.
_FOREIGN = re.compile(
    r".*_API_KEY|.*_UPSTREAM_URL|(HTTPS?|ALL|NO)_PROXY|SSL_CERT_(FILE|DIR)"
    r"|(LLS|LLAMA_STACK|OTEL|SQLITE_STORE)_.*|PYTHON.+",
    re.IGNORECASE,
)


def clean_environment() -> dict[str, str]:
    """The environment of this machine, without what changes how a test goes."""
    return {n: value for n, value in os.environ.items() if not _FOREIGN.fullmatch(n)}


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return not probe.connect_ex(("127.0.0.1", port))


def free_port() -> int:
    """A free port that no outgoing connection is given in the meantime."""
    while True:
        # Below the ephemeral ports of Linux and macOS.
        port = random.randint(20000, 32000)  # noqa: S311 - no secret
        if not listens(port):
            return port


@dataclass(frozen=True)
class Variation:
    """How a server differs from run.yaml as it is: what the marks of a test say."""

    run_yaml: Json = field(default_factory=dict)
    providers: Json = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    checked: bool = False
    cwd: Path | None = None

    @property
    def key(self) -> str:
        return json.dumps(vars(self), sort_keys=True, default=str)

    def write(self, directory: Path) -> Path:
        """Write the run.yaml of this variation; run.yaml itself if it is that."""
        if not self.run_yaml and not self.providers:
            return RUN_YAML
        config = merged(yaml.safe_load(RUN_YAML.read_text()), self.run_yaml)
        for name, settings in self.providers.items():
            own = {} if name in PROVIDERS else _ADDED
            entry = merged(own, {"provider_id": name, "config": settings})
            config = merged(config, {"providers": {"inference": [entry]}})
        path = directory / "run.yaml"
        path.write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
        return path


def merged(there: Any, added: Any) -> Any:  # noqa: ANN401 - any YAML
    """Put lines where their keys are; an entry to the others, or into the same."""
    if isinstance(there, dict) and isinstance(added, dict):
        both = there | {n: merged(there.get(n), value) for n, value in added.items()}
        return {name: value for name, value in both.items() if value is not None}
    if not there or not isinstance(there, list) or "provider_id" not in there[0]:
        return added
    for entry in added:
        names = "provider_id", "model_id"
        same = [e for e in there if all(e.get(n) == entry.get(n) for n in names)]
        there = [merged(e, entry) if e in same else e for e in there]
        there += [] if same else [entry]
    return there


class ServerError(Exception):
    """The server did not start; the message holds its output."""


class Server:
    """A server; `wait_ready` says when it answers."""

    def __init__(
        self,
        directory: Path,
        variation: Variation,
        env: Mapping[str, str],
        launcher: Launcher,
        port: int | None = None,
    ) -> None:
        """Start it with directories of its own for home, work and temporary files."""
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.client = httpx.Client(
            base_url=self.url,
            trust_env=False,
            timeout=15,
            verify=False,  # noqa: S501 - there is no TLS, and to load authorities is slow
            # uvicorn closes idle connections after 5 s: no call on one just then.
            limits=httpx.Limits(keepalive_expiry=2),
        )
        self.files = directory / "files"
        home, work, temporary = (self.files / each for each in ("home", "work", "tmp"))
        for path in (home, work, temporary):
            path.mkdir(parents=True)
        own = {
            "HOME": str(home),
            "TMPDIR": str(temporary),
            "LLAMA_STACK_PORT": str(self.port),
        }
        if variation.checked:
            start = ["lls_openai"]
        else:
            start = [str(Path(sys.executable).parent / "llama"), "stack", "run"]
            # With a check of run.yaml it chooses for itself.
            own["LLAMA_STACK_LOG_FORMAT"] = "json"
        self.command = [*start, str(variation.write(directory))]
        own = {**clean_environment(), **own, **env, **variation.env}
        self._directory = directory
        self.pid = launcher.start(self.command, variation.cwd or work, own, directory)

    def read(self, name: str) -> str:
        """What "stdout" or "stderr" has so far, or "status" in the end."""
        path = self._directory / name
        return path.read_text(errors="replace") if path.exists() else ""

    def wait_ready(self) -> None:
        with suppress(AssertionError):
            eventually(lambda: self.read("status") or listens(self.port), _BOOT_SECONDS)
        if not listens(self.port):
            self.kill()
            raise ServerError(f"the server has not started:\n{self.log}")

    @property
    def log(self) -> str:
        """All that it has printed so far."""
        return self.read("stdout") + self.read("stderr")

    def access(self) -> list[Json]:
        """The access lines in JSON so far."""
        lines = [line for line in self.log.splitlines() if line.startswith("{")]
        found: list[Json] = [json.loads(line) for line in lines]
        return [line for line in found if line.get("logger") == "lls_openai.access"]

    def wait_access(self, count: int = 1, **fields: object) -> list[Json]:
        """Wait until so many access lines have these fields, and give those."""

        def found() -> list[Json]:
            lines = [line for line in self.access() if fields.items() <= line.items()]
            return lines if len(lines) >= count else []

        return eventually(found)

    def wait(self, seconds: float = 15) -> int:
        """Wait until it has ended; its status."""
        return int(eventually(lambda: self.read("status"), seconds))

    def kill(self) -> None:
        """End it and its workers at once."""
        self.client.close()
        if not self.read("status"):
            # It may be just ending.
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        self.wait()

    def memory(self, field: str = "VmRSS") -> int:
        """How many bytes it holds; of "VmHWM" the most so far."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition(f"{field}:")[2].split()[0]) * 1024

    def growth(self) -> Callable[[], int]:
        """Give what says by how many bytes it has grown at most since now."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")
        before = self.memory()
        return lambda: self.memory("VmHWM") - before

    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def children(self) -> list[int]:
        tasks = Path(f"/proc/{self.pid}/task").glob("*/children")
        return [int(pid) for task in tasks for pid in task.read_text().split()]


class Servers:
    """The servers that tests share: each variation is started once."""

    def __init__(
        self, directory: Path, env: Mapping[str, str], launcher: Launcher | None = None
    ) -> None:
        """Begin with none; each will have a directory in `directory`."""
        self._directory = directory
        self._env = env
        self._started: list[Server] = []
        self._booting: dict[str, Future[Server]] = {}
        self._launcher = launcher or Launcher()
        # Two at a time: a boot keeps a core busy.
        self._pool = ThreadPoolExecutor(2, "boot")

    def start(
        self, variation: Variation, port: int | None = None, *, ready: bool = True
    ) -> Server:
        """Start a further server and wait until it is ready."""
        directory = self._directory / str(time.monotonic_ns())
        server = Server(directory, variation, self._env, self._launcher, port)
        self._started.append(server)
        if ready:
            server.wait_ready()
        return server

    def boot(self, variation: Variation) -> Future[Server]:
        """Start one in the background, unless that is done."""
        if variation.key not in self._booting:
            self._booting[variation.key] = self._pool.submit(self.start, variation)
        return self._booting[variation.key]

    def get(self, variation: Variation) -> Server:
        return self.boot(variation).result()

    def close(self) -> None:
        """Kill every server that has been started."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        # Twice: what was just being started has been by then.
        for _ in range(2):
            for server in list(self._started):
                server.kill()
            self._pool.shutdown()
