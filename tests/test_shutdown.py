"""Stopping: the port is closed, running answers end whole, and the status is 0."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lls_openai.provider import get_adapter_impl
from lls_openai.settings import ProviderConfig
from tests.support import http
from tests.support.http import RawConnection, eventually
from tests.support.run_yaml import PROVIDERS, Variation
from tests.support.server import Servers, listens
from tests.support.upstream import Upstream
from tests.support.wire import DONE, FIRST_EVENT, LAST_CHUNK, chunk, respond, stream

TERM, INT, HUP, KILL = signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL
# With a pause of 0.1 s it runs for 3 s.
STREAM = stream(*[FIRST_EVENT] * 28, DONE)
REST = b"\r\n" + chunk(FIRST_EVENT) * 27 + chunk(DONE) + LAST_CHUNK
AT_ONCE = {name: {"drain_timeout": 1} for name in PROVIDERS}


@dataclass(frozen=True)
class Stop:
    """Signals to a server, each with the pause after it, and what comes of them."""

    signals: tuple[tuple[signal.Signals, float], ...]
    group: bool = True
    workers: int = 1
    providers: dict[str, dict[str, int]] = field(default_factory=dict)
    status: int = 0
    ends_whole: bool = True

    def variation(self, name: str) -> Variation:
        """The server that is stopped so.

        Two workers need `python -m lls_openai`: without its patience, uvicorn replaces
        them on a busy machine before they serve.
        """
        # Nobody else's, for the name in it.
        env = {"LLS_WORKERS": str(self.workers), "STOPPED_BY": name}
        return Variation({}, self.providers, env, as_module=self.workers > 1)


STOPS = {
    # However often and whatever it is, it is one wish.
    "every signal": Stop(((HUP, 0.1), (INT, 0.1), (TERM, 0.1), (TERM, 0))),
    "SIGHUP, two workers": Stop(((HUP, 0),), group=False, workers=2),
    # More than a second after the first one.
    "Ctrl-C, and again later": Stop(
        ((INT, 1.3), (INT, 0)), status=130, ends_whole=False
    ),
    # It is the workers that were busy.
    "likewise, two workers": Stop(((INT, 1.3), (INT, 0)), workers=2, ends_whole=False),
    "the drain time is over": Stop(((TERM, 0),), providers=AT_ONCE, ends_whole=False),
    # Nobody could stop its workers any more.
    "the parent is killed": Stop(((KILL, 0),), group=False, workers=2, status=-KILL),
}


def is_serving(worker: int) -> bool:
    """Whether a worker has come so far that it handles SIGHUP."""
    status = Path(f"/proc/{worker}/status").read_text()
    caught = int(status.partition("SigCgt:")[2].split()[0], 16)
    return bool(caught & 1 << (HUP - 1))


def check(servers: Servers, name: str) -> None:
    stop = STOPS[name]
    server = servers.get(stop.variation(name))
    if stop.workers > 1:
        eventually(
            lambda: sum(map(is_serving, server.children())) == 2,
            "two workers serve",
            60,
        )
    paths = [Path(f"/proc/{each}/exe") for each in server.children()]
    with (
        RawConnection(server.port, timeout=20) as running,
        RawConnection(server.port) as idle,
    ):
        idle.send(http.HEALTH_REQUEST)
        idle.read_response()
        running.send(http.STREAMING_REQUEST)
        running.read_until(FIRST_EVENT)
        for number, pause in stop.signals:
            (os.killpg if stop.group else os.kill)(server.pid, number)
            time.sleep(pause)
        assert idle.is_closed_within(1)
        eventually(lambda: not listens(server.port), "the port is closed", 1.5)
        rest = running.read_to_end()

    assert rest == REST if stop.ends_whole else LAST_CHUNK not in rest
    assert server.wait_exit(20) == stop.status
    eventually(lambda: not any(path.exists() for path in paths), "all workers exit")
    wrong = ("Traceback", "exc_info", "refresh task")
    assert [each for each in wrong if each in server.log] == []


@pytest.fixture(scope="module")
def checks(
    servers: Servers, running_upstream: Upstream
) -> Iterator[dict[str, Future[None]]]:
    """All stops run at a time, for they mostly wait."""
    running_upstream.reset()
    running_upstream.openai.pause = 0.1
    running_upstream.openai.script(*STREAM, times=None)
    with ThreadPoolExecutor(len(STOPS)) as pool:
        yield {name: pool.submit(check, servers, name) for name in STOPS}
    running_upstream.reset()


# The mark has them booted in the background, long before.
@pytest.mark.usefixtures("server")
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.server(**vars(stop.variation(name))))
        for name, stop in STOPS.items()
    ],
)
def test_a_stop_frees_the_port_and_ends_what_runs(
    checks: dict[str, Future[None]], name: str
) -> None:
    """Whole, unless it is cut short; quietly in any case."""
    checks[name].result()


def test_a_stop_closes_the_connections_to_an_upstream(upstream: Upstream) -> None:
    """Llama Stack asks each provider to shut down."""
    upstream.openai.drop_connections()
    upstream.openai.script(respond())
    sent = b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n"

    async def call_and_stop() -> None:
        config = ProviderConfig(base_url=upstream.openai.url)
        adapter = await get_adapter_impl(config, {})
        response = await adapter.upstream.pool.send(sent, b"{}")
        await response.read()
        assert upstream.openai.open_connections == 1
        await adapter.shutdown()

    asyncio.run(call_and_stop())
    eventually(lambda: upstream.openai.open_connections == 0, "it is closed")
