"""Stopping: the port is closed, running answers end whole, and the status is 0."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from tests.support.http import Raw, chat, encoded, eventually, request
from tests.support.network import Network
from tests.support.server import (
    PROJECT,
    Server,
    Servers,
    Variation,
    clean_environment,
    free_port,
)
from tests.support.upstream import Upstream
from tests.support.wire import DONE, LAST_CHUNK, chunk, event, stream

TERM, INT, HUP, KILL = signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL
FIRST = event({"n": 1})
PAUSE = 0.15
# It runs for 4 s.
STREAM = stream(*[FIRST] * 26, DONE)
WHOLE = b"\r\n" + chunk(FIRST) * 25 + chunk(DONE) + LAST_CHUNK
PROVIDERS = ("openai", "openai-mini", "gemini", "anthropic")
AT_ONCE = {name: {"drain_timeout": 1} for name in PROVIDERS}


@dataclass(frozen=True)
class Stop:
    """A server, and how it is asked to stop: signals, each with the pause after it.

    Two workers need `python -m lls_openai`: without its patience, uvicorn replaces
    them on a busy machine before they serve.
    """

    signals: tuple[tuple[signal.Signals, float], ...]
    group: bool
    workers: int = 1
    drains: bool = True


@dataclass(frozen=True)
class Outcome:
    """What was seen of a stop."""

    refused: bool
    idle_closed: bool
    rest: bytes
    status: int
    seconds: float
    gone: bool
    log: str


GRACEFUL = {
    "every signal": Stop(((HUP, 0.1), (TERM, 0.1), (TERM, 0)), group=True),
    "SIGTERM twice, two workers": Stop(((TERM, 0.2), (TERM, 0)), group=True, workers=2),
    "SIGHUP, two workers": Stop(((HUP, 0),), group=False, workers=2),
}
OTHERS = {
    "Ctrl-C, and again later": Stop(((INT, 1.3), (INT, 0)), group=True),
    "the drain time is over": Stop(((TERM, 0),), group=True, drains=False),
    "the parent is killed": Stop(((KILL, 0),), group=False, workers=2),
}


def refuses(port: int) -> bool:
    """Whether nobody takes a new connection."""
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except ConnectionRefusedError:
        return True
    return False


def soon_refuses(port: int) -> bool:
    """Whether that is so within a second and a half of a wish to stop."""
    deadline = time.monotonic() + 1.5
    while not (refused := refuses(port)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return refused


def send(server: Server, stop: Stop) -> None:
    """Send the signals."""
    for number, pause in stop.signals:
        if stop.group:
            os.killpg(server.pid, number)
        else:
            server.signal(number)
        time.sleep(pause)


def observe(servers: Servers, stop: Stop) -> Outcome:
    """Start a server, have a stream run on it, stop it, and see."""
    server = servers.start(
        Variation(
            providers={} if stop.drains else AT_ONCE,
            env={"LLS_WORKERS": str(stop.workers)},
            checked=stop.workers > 1,
        )
    )
    if stop.workers > 1:
        eventually(lambda: sum(map(handles_hup, server.children())) == 2, 60)
    workers = server.children()
    with Raw(server.port, timeout=20) as running, Raw(server.port) as idle:
        idle.send(request(b"GET", "/v1/health"))
        idle.answer()
        running.send(request(body=encoded(chat(stream=True))))
        running.read_until(FIRST)
        began = time.monotonic()
        send(server, stop)
        closed = idle.closed(1)
        refused = soon_refuses(server.port)
        rest = running.rest()
        status = server.wait(20)
        seconds = time.monotonic() - began
    gone = eventually(partial(all_gone, workers))
    return Outcome(refused, closed, rest, status, seconds, gone, server.log)


def handles_hup(process: int) -> bool:
    """Whether a worker has come so far that it serves."""
    status = Path(f"/proc/{process}/status").read_text()
    caught = int(status.partition("SigCgt:")[2].split()[0], 16)
    return bool(caught & 1 << (HUP - 1))


def all_gone(processes: list[int]) -> bool:
    """Whether none of these processes runs any more."""
    return not any(Path(f"/proc/{each}/exe").exists() for each in processes)


@pytest.fixture(scope="module")
def outcomes(
    servers: Servers, running_upstream: Upstream
) -> Iterator[dict[str, Outcome]]:
    """All of them, several at a time."""
    running_upstream.reset()
    running_upstream.openai.pause = PAUSE
    running_upstream.openai.script(*STREAM, times=None)
    stops = GRACEFUL | OTHERS
    with ThreadPoolExecutor(2) as pool:
        observed = pool.map(partial(observe, servers), stops.values())
        yield dict(zip(stops, observed, strict=True))
    running_upstream.reset()


@pytest.mark.parametrize("name", GRACEFUL)
def test_a_stop_ends_what_runs_whole(outcomes: dict[str, Outcome], name: str) -> None:
    """Whatever the signal, its number and whom it reaches; the port is free at once."""
    outcome = outcomes[name]

    assert outcome.rest == WHOLE
    assert (outcome.refused, outcome.idle_closed, outcome.gone) == (True, True, True)
    assert outcome.status == 0


@pytest.mark.parametrize("name", GRACEFUL | OTHERS)
def test_a_stop_is_quiet(outcomes: dict[str, Outcome], name: str) -> None:
    """There is no traceback, and nothing that sounds like a fault."""
    wrong = ("Traceback", "exc_info", "refresh task")

    assert [each for each in wrong if each in outcomes[name].log] == []


def test_another_ctrl_c_ends_all_at_once(outcomes: dict[str, Outcome]) -> None:
    """A person means it: more than a second later it is no echo of the first."""
    outcome = outcomes["Ctrl-C, and again later"]

    assert LAST_CHUNK not in outcome.rest
    assert outcome.status == 128 + INT
    assert outcome.gone


def test_the_drain_time_bounds_a_stop(outcomes: dict[str, Outcome]) -> None:
    """What still runs then ends as broken off."""
    outcome = outcomes["the drain time is over"]

    assert LAST_CHUNK not in outcome.rest
    assert outcome.seconds > 1
    assert outcome.status == 0


def test_workers_end_when_their_parent_is_killed(outcomes: dict[str, Outcome]) -> None:
    """Nobody could stop them any more; what runs ends whole."""
    outcome = outcomes["the parent is killed"]

    assert outcome.rest == WHOLE
    assert (outcome.refused, outcome.gone) == (True, True)


def test_ctrl_c_at_make_server_ends_what_runs_whole(
    network: Network, upstream: Upstream
) -> None:
    """It reaches make, uv and the server, and uv passes it on once more."""
    upstream.openai.pause = PAUSE
    upstream.openai.script(*STREAM)
    port = free_port()
    make = subprocess.Popen(
        ["make", "-C", PROJECT, "server"],  # noqa: S607 - the PATH's
        env=clean_environment() | network.env | {"LLAMA_STACK_PORT": str(port)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        eventually(lambda: not refuses(port), 60)
        with Raw(port, timeout=20) as running:
            running.send(request(body=encoded(chat(stream=True))))
            running.read_until(FIRST)
            for _ in range(2):
                os.killpg(make.pid, INT)
                time.sleep(0.3)
            refused = soon_refuses(port)
            rest = running.rest()
        make.wait(10)
    finally:
        if make.poll() is None:
            os.killpg(make.pid, KILL)
            make.wait()

    assert (refused, rest) == (True, WHOLE)
