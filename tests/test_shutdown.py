"""Stopping: the port is closed, running answers end whole, and the status is 0."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from tests.support.http import Raw, chat, encoded, eventually, request
from tests.support.server import Servers, Variation
from tests.support.upstream import Upstream
from tests.support.wire import DONE, LAST_CHUNK, chunk, event, stream

TERM, INT, HUP, KILL = signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL
FIRST = event({"n": 1})
# With a pause of 0.1 s it runs for 3 s.
STREAM = stream(*[FIRST] * 28, DONE)
REST = b"\r\n" + chunk(FIRST) * 27 + chunk(DONE) + LAST_CHUNK
AT_ONCE = {
    name: {"drain_timeout": 1}
    for name in ("openai", "openai-mini", "gemini", "anthropic")
}


@dataclass(frozen=True)
class Stop:
    """Signals to a server, each with the pause after it."""

    signals: tuple[tuple[signal.Signals, float], ...]
    group: bool = True
    workers: int = 1
    providers: dict[str, dict[str, int]] = field(default_factory=dict)

    def variation(self, name: str) -> Variation:
        """The server that is stopped so.

        Two workers need `python -m lls_openai`: without its patience, uvicorn replaces
        them on a busy machine before they serve.
        """
        workers = {"LLS_WORKERS": str(self.workers)}
        several = self.workers > 1
        return Variation({}, self.providers, workers, checked=several, alone=name)


@dataclass(frozen=True)
class Outcome:
    """What was seen of a stop."""

    refused: bool
    idle_closed: bool
    rest: bytes
    status: int
    gone: bool
    log: str


GRACEFUL = {
    "every signal": Stop(((HUP, 0.1), (INT, 0.1), (TERM, 0.1), (TERM, 0))),
    "SIGHUP, two workers": Stop(((HUP, 0),), group=False, workers=2),
}
STOPS = GRACEFUL | {
    "Ctrl-C, and again later": Stop(((INT, 1.3), (INT, 0))),
    "the drain time is over": Stop(((TERM, 0),), providers=AT_ONCE),
    "the parent is killed": Stop(((KILL, 0),), group=False, workers=2),
}


def soon_refuses(port: int) -> bool:
    """Whether nobody takes a new connection within a second and a half."""
    deadline = time.monotonic() + 1.5
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 5).close()
        except ConnectionRefusedError:
            return True
        time.sleep(0.05)
    return False


def is_serving(worker: int) -> bool:
    """Whether a worker has come so far that it handles SIGHUP."""
    status = Path(f"/proc/{worker}/status").read_text()
    caught = int(status.partition("SigCgt:")[2].split()[0], 16)
    return bool(caught & 1 << (HUP - 1))


def observe(servers: Servers, name: str) -> Outcome:
    """Have a stream run on a server, stop it, and see."""
    stop = STOPS[name]
    server = servers.get(stop.variation(name))
    if stop.workers > 1:
        eventually(lambda: sum(map(is_serving, server.children())) == 2, 60)
    paths = [Path(f"/proc/{each}/exe") for each in server.children()]
    with Raw(server.port, timeout=20) as running, Raw(server.port) as idle:
        idle.send(request(b"GET", "/v1/health"))
        idle.answer()
        running.send(request(body=encoded(chat(stream=True))))
        running.read_until(FIRST)
        for number, pause in stop.signals:
            (os.killpg if stop.group else os.kill)(server.pid, number)
            time.sleep(pause)
        closed = idle.closed(1)
        refused = soon_refuses(server.port)
        rest = running.rest()
        status = server.wait(20)
    gone = eventually(lambda: not any(path.exists() for path in paths))
    return Outcome(refused, closed, rest, status, gone, server.log)


@pytest.fixture(scope="module")
def outcomes(
    servers: Servers, running_upstream: Upstream
) -> Iterator[dict[str, Outcome]]:
    """What was seen of each stop; they run at a time, for they mostly wait."""
    running_upstream.reset()
    running_upstream.openai.pause = 0.1
    running_upstream.openai.script(*STREAM, times=None)
    with ThreadPoolExecutor(len(STOPS)) as pool:
        yield dict(zip(STOPS, pool.map(partial(observe, servers), STOPS), strict=True))
    running_upstream.reset()


@pytest.mark.parametrize("name", GRACEFUL)
def test_a_stop_ends_what_runs_whole(outcomes: dict[str, Outcome], name: str) -> None:
    """Whatever the signal, its number and whom it reaches; the port is free at once."""
    outcome = outcomes[name]

    assert outcome.rest == REST
    assert (outcome.refused, outcome.idle_closed, outcome.gone) == (True, True, True)
    assert outcome.status == 0


# The mark has them booted in the background, long before.
@pytest.mark.usefixtures("server")
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.server(**vars(stop.variation(name))))
        for name, stop in STOPS.items()
    ],
)
def test_a_stop_is_quiet(outcomes: dict[str, Outcome], name: str) -> None:
    """There is no traceback, and no error that is none."""
    wrong = ("Traceback", "exc_info", "refresh task")

    assert [each for each in wrong if each in outcomes[name].log] == []


@pytest.mark.parametrize(
    ("name", "status"),
    [("Ctrl-C, and again later", 130), ("the drain time is over", 0)],
)
def test_a_stop_is_bounded(
    outcomes: dict[str, Outcome], name: str, status: int
) -> None:
    """By who presses Ctrl-C again, more than a second later, and by run.yaml."""
    assert LAST_CHUNK not in outcomes[name].rest
    assert outcomes[name].status == status


def test_workers_end_when_their_parent_is_killed(outcomes: dict[str, Outcome]) -> None:
    """Nobody could stop them any more; what runs ends whole."""
    outcome = outcomes["the parent is killed"]

    assert (outcome.rest, outcome.refused, outcome.gone) == (REST, True, True)
