"""How the server leaves: it ends what it has begun, takes nothing new, and is gone."""

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from tests.calls import call, chat, open_call
from tests.checked_server import CheckedServer
from tests.conftest import StartServer
from tests.marks import complaints
from tests.polling import poll
from tests.process import children, descriptors, is_running
from tests.scripts import DONE, streaming
from tests.server import Server
from tests.upstream import Gate, Upstream

FIRST = b"data: 1\n\n"
# The status with which the process ends: by the signal, or by itself.
ENDED = {signal.SIGTERM: -signal.SIGTERM, signal.SIGINT: 0}
BOTH = pytest.mark.parametrize("number", ENDED, ids=["SIGTERM", "SIGINT"])


class Running:
    """A stream that runs while the server is asked to leave.

    Attributes:
        rest: What came of it after its first event; None when it was broken off.
    """

    def __init__(self, server: Server, upstream: Upstream) -> None:
        self.rest: bytes | None = None
        self._gate = Gate()
        self._begun = threading.Event()
        upstream.openai.answer_with(streaming(FIRST, self._gate, DONE))
        self._thread = threading.Thread(target=self._read, args=(server.url,))
        self._thread.start()
        assert self._begun.wait(10)

    def _read(self, url: str) -> None:
        with (
            suppress(httpx.RemoteProtocolError, httpx.ReadError),
            httpx.Client(trust_env=False, timeout=30) as http,
            open_call(http, url, chat(stream=True)) as stream,
        ):
            stream.read(1)
            self._begun.set()
            self.rest = stream.rest()

    def go_on(self) -> None:
        """Let the upstream send the rest."""
        self._gate.open()

    def end(self) -> bytes | None:
        """Wait for its end; give what came of it."""
        self._thread.join(20)
        return self.rest


def _is_refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


@BOTH
def test_a_running_stream_ends_before_the_server_does(
    start_server: StartServer, upstream: Upstream, number: signal.Signals
) -> None:
    """New callers are refused by then; it leaves no traceback, and no stuck process."""
    server = start_server()
    running = Running(server, upstream)

    server.process.send_signal(number)
    refused = poll(lambda: _is_refused(server.port))
    during = server.process.poll()
    running.go_on()

    assert (refused, during, running.end()) == (True, None, DONE)
    assert ENDED[number] == server.process.wait(10)
    assert complaints(server.log) == []


def test_a_second_signal_ends_the_server_at_once(
    start_server: StartServer, upstream: Upstream
) -> None:
    """With it what still runs: its callers see a broken answer, not a whole one."""
    server = start_server()
    running = Running(server, upstream)

    server.process.send_signal(signal.SIGTERM)
    assert poll(lambda: _is_refused(server.port))
    server.process.send_signal(signal.SIGINT)

    assert server.process.wait(2) == 128 + signal.SIGINT
    assert running.end() is None
    assert complaints(server.log) == []


@contextmanager
def _two_workers(directory: Path, upstream: Upstream) -> Iterator[CheckedServer]:
    """A server of two workers, both ready, on an upstream."""
    variables = upstream.environment | {"LLS_WORKERS": "2"}
    with CheckedServer(directory, variables=variables) as server:
        assert poll(lambda: _ready(server) == 2, seconds=30)
        yield server


def _ready(server: Server) -> int:
    """How many workers have been ready so far."""
    return server.log.count("Application startup complete")


def _workers(server: Server) -> set[int]:
    """The workers: of the other children, one helps Python to share things."""
    return {
        child
        for child in children(server.pid)
        if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()
    }


def test_a_killed_worker_is_replaced(
    tmp_path: Path, upstream: Upstream, http: httpx.Client
) -> None:
    """The other one goes on meanwhile; then there are two again, and then none.

    They leave as one server does: the port is free while a stream still runs, and a
    second signal ends all.
    """
    with _two_workers(tmp_path, upstream) as server:
        before = _workers(server)
        killed = min(before)
        os.kill(killed, signal.SIGKILL)
        statuses = {call(http, server.url, chat()).status for _ in range(20)}
        assert poll(lambda: _ready(server) == 3, seconds=30)
        after = _workers(server)
        running = Running(server, upstream)
        server.process.send_signal(signal.SIGTERM)
        refused = poll(lambda: _is_refused(server.port))
        during = server.process.poll()
        server.process.send_signal(signal.SIGTERM)
        status = server.process.wait(5)
        gone = poll(lambda: not any(map(is_running, after)))

    assert (2, 2, {200}) == (len(before), len(after), statuses)
    assert killed not in after
    assert (refused, during, status, gone) == (True, None, 128 + signal.SIGTERM, True)
    assert running.end() is None
    assert complaints(server.log) == []


def test_ctrl_c_ends_workers_that_serve_and_that_start(
    tmp_path: Path, upstream: Upstream
) -> None:
    """From a terminal it reaches parent and workers at once.

    A stream still ends, and a worker that was only starting shows no traceback.
    """
    with _two_workers(tmp_path, upstream) as server:
        running = Running(server, upstream)
        idle = min(_workers(server), key=descriptors)
        os.kill(idle, signal.SIGKILL)
        assert poll(lambda: len(_workers(server) - {idle}) == 2)
        os.killpg(server.pid, signal.SIGINT)
        refused = poll(lambda: _is_refused(server.port))
        running.go_on()
        rest = running.end()
        status = server.process.wait(10)

    assert (refused, rest, status) == (True, DONE, 0)
    assert complaints(server.log) == []
