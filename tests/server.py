"""The real server: `llama stack run` in a process of its own."""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from tests import environment

PROJECT = Path(__file__).parent.parent
RUN_YAML = PROJECT / "run.yaml"

_HOST = "127.0.0.1"
# Llama Stack needs 3 to 4 s; a machine under load much longer.
_BOOT_SECONDS = 60.0
_STOP_SECONDS = 15.0
_POLL_SECONDS = 0.05
# Another process may take the free port before the server does.
_PORT_TRIES = 3


class ServerError(Exception):
    """The server did not start; the message holds its output."""


class Server:
    """A running server. As a context manager it is stopped at the end.

    Attributes:
        port: The port it listens on.
        url: Its address without "/v1", for example "http://127.0.0.1:8321".
        process: The process of the command line.
        home: Its home directory, empty at the start.
        work: Its working directory.
    """

    def __init__(
        self,
        directory: Path,
        *,
        run_yaml: Path = RUN_YAML,
        variables: Mapping[str, str] | None = None,
        port: int | None = None,
        work: Path | None = None,
    ) -> None:
        """Start a server and wait until it answers.

        Args:
            directory: An existing directory for its home, temporary files and output.
            run_yaml: The configuration.
            variables: Added to an environment without keys, proxies and settings.
            port: The port to listen on; a free one when left out.
            work: The working directory; an empty one when left out.

        Raises:
            ServerError: It ended, or did not answer within a minute.
        """
        self.home = directory / "home"
        self.work = work or directory / "work"
        self.temporary = directory / "tmp"
        self._output = directory / "output"
        for path in (self.home, self.work, self.temporary):
            path.mkdir(exist_ok=True)
        self._command = [_llama(), "stack", "run", str(run_yaml)]
        self._variables = dict(variables or {})
        for attempt in range(_PORT_TRIES):
            self.port = port or free_port()
            self.process = self._start()
            try:
                self._wait_until_ready()
            except ServerError:
                self.stop()
                if port or attempt == _PORT_TRIES - 1 or not self._lost_the_port():
                    raise
            except BaseException:
                # Ctrl-C while it boots.
                self.stop()
                raise
            else:
                return

    @property
    def url(self) -> str:
        """Its address, without "/v1"."""
        return f"http://{_HOST}:{self.port}"

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self.process.pid

    @property
    def log(self) -> str:
        """What it has printed so far, standard output and error together."""
        return self._output.read_text(errors="replace")

    def stop(self) -> int:
        """Ask it to end, and kill it with its workers when it does not.

        Returns:
            Its exit status.
        """
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            return self.process.wait()

    def __enter__(self) -> Self:
        """Use it as it runs."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop it."""
        self.stop()

    def _start(self) -> subprocess.Popen[bytes]:
        settings = {
            "HOME": str(self.home),
            "TMPDIR": str(self.temporary),
            "LLAMA_STACK_PORT": str(self.port),
            # So that the log is complete at any time.
            "PYTHONUNBUFFERED": "1",
        }
        with self._output.open("wb") as output:
            return subprocess.Popen(
                self._command,
                cwd=self.work,
                env=environment.clean() | settings | self._variables,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # A group of its own, so that workers can be killed with it and the
                # Ctrl-C of a terminal goes to the test alone.
                start_new_session=True,
            )

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _BOOT_SECONDS
        while time.monotonic() < deadline:
            if (status := self.process.poll()) is not None:
                message = f"the server ended with {status}:\n{self.log}"
                raise ServerError(message)
            if self._is_healthy():
                return
            time.sleep(_POLL_SECONDS)
        message = f"the server did not answer within {_BOOT_SECONDS} s:\n{self.log}"
        raise ServerError(message)

    def _is_healthy(self) -> bool:
        connection = http.client.HTTPConnection(_HOST, self.port, timeout=5)
        try:
            connection.request("GET", "/v1/health")
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _lost_the_port(self) -> bool:
        # The log breaks its lines at the width of a terminal.
        return "address already in use" in " ".join(self.log.split())


def free_port() -> int:
    """A port of the loopback interface that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _llama() -> str:
    return str(Path(sys.executable).parent / "llama")
