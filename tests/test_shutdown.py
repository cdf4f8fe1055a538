"""Graceful shutdown: the port closes, running responses end, then the server exits."""

import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import SIGHUP, SIGINT, SIGKILL, SIGTERM

import pytest

from lls_openai.provider import get_adapter_impl
from lls_openai.settings import ProviderConfig
from tests.support.http import (
    HEALTH_REQUEST,
    STREAMING_REQUEST,
    RawConnection,
    eventually,
)
from tests.support.run_yaml import PROVIDERS, UNDER_NOHUP
from tests.support.server import Server, listens
from tests.support.upstream import Upstream
from tests.support.wire import (
    DONE,
    FIRST_EVENT,
    LAST_CHUNK,
    Gate,
    chunk,
    respond,
    stream,
)

REST_OF_STREAM = b"\r\n" + chunk(DONE) + LAST_CHUNK
# More than the second in which signals count as one.
LATER = 1.3


def own_server(
    name: str, workers: int = 1, providers: object = None
) -> pytest.MarkDecorator:
    """Return a mark for a server that no other test has, since the test stops it.

    Two workers need `python -m lls_openai`: under `llama stack run`, uvicorn replaces
    workers that a busy machine starts slowly.
    """
    return pytest.mark.server(
        providers=providers or {},
        env={"LLS_WORKERS": str(workers), "STOPPED_BY": name},
        as_module=workers > 1,
    )


def has_signal(number: int, field: str, process: int) -> bool:
    """Return whether a signal is in one of the sets of signals that proc(5) has."""
    status = Path(f"/proc/{process}/status").read_text()
    signals = int(status.partition(f"{field}:")[2].split()[0], 16)
    return bool(signals & 1 << (number - 1))


def serves(worker: int) -> bool:
    """Return whether a worker has set up its signals; SIGINT is blocked until then."""
    is_booting = has_signal(SIGINT, "SigBlk", worker)
    return has_signal(SIGTERM, "SigCgt", worker) and not is_booting


def wait_for_workers(server: Server, count: int) -> list[Path]:
    """Wait until all workers serve; return files that exist as long as they run."""
    if count > 1:
        eventually(
            lambda: sum(map(serves, server.children())) == count,
            f"{count} workers serve",
            60,
        )
    return [Path(f"/proc/{child}/exe") for child in server.children()]


@contextmanager
def running_stream(
    server: Server, upstream: Upstream
) -> Iterator[tuple[RawConnection, Gate]]:
    """Start a stream, which ends when the gate is opened."""
    gate = Gate()
    upstream.openai.script(*stream(FIRST_EVENT, gate, DONE))
    with RawConnection(server.port, timeout=20) as connection:
        connection.send(STREAMING_REQUEST)
        connection.read_until(FIRST_EVENT)
        yield connection, gate


def wait_until_port_is_closed(server: Server) -> None:
    eventually(lambda: not listens(server.port), "the port is closed")


def wait_until_gone(processes: list[Path]) -> None:
    eventually(lambda: not any(each.exists() for each in processes), "workers exit")


def check_exit(server: Server, status: int) -> None:
    assert server.wait_exit(20) == status, server.log
    for unwanted in ("Traceback", "exc_info", "refresh task"):
        assert unwanted not in server.log


@own_server("repeated signals")
def test_repeated_signals_are_one_shutdown_that_begins_no_pipelined_request(
    server: Server, upstream: Upstream
) -> None:
    """The whole process group gets a signal, and make and uv pass it on once more."""
    with (
        RawConnection(server.port) as idle,
        running_stream(server, upstream) as (connection, gate),
    ):
        idle.send(HEALTH_REQUEST)
        assert idle.read_response().status == 200
        with running_stream(server, upstream) as (pipelining, other_gate):
            pipelining.send(STREAMING_REQUEST * 3)
            for number in (SIGINT, SIGINT, SIGHUP, SIGTERM, SIGTERM):
                os.killpg(server.pid, number)
            assert idle.is_closed_within()
            wait_until_port_is_closed(server)
            gate.open()
            other_gate.open()

            assert pipelining.read_to_end() == REST_OF_STREAM
        assert connection.read_to_end() == REST_OF_STREAM
        # Clients with a pool may leave the connection open.
        check_exit(server, 0)
    assert len(upstream.openai.requests) == 2


@own_server("upload")
def test_request_whose_body_arrives_during_shutdown_is_served(
    server: Server, upstream: Upstream
) -> None:
    upstream.openai.script(*stream(FIRST_EVENT, DONE))
    headers, body = STREAMING_REQUEST.split(b"\r\n\r\n")
    with RawConnection(server.port) as connection:
        connection.send(headers + b"\r\nExpect: 100-continue\r\n\r\n")
        connection.read_until(b"100 Continue\r\n\r\n")
        os.kill(server.pid, SIGTERM)
        wait_until_port_is_closed(server)
        # The second request is not begun.
        connection.send(body, STREAMING_REQUEST)

        assert connection.read_to_end().endswith(LAST_CHUNK)
        # The client does not close: the server waits for it, but not for long.
        check_exit(server, 0)
    assert len(upstream.openai.requests) == 1


@UNDER_NOHUP
def test_sighup_that_nohup_ignores_stops_neither_parent_nor_workers(
    server: Server,
) -> None:
    wait_for_workers(server, 2)

    os.killpg(server.pid, SIGHUP)

    assert server.client.get("/v1/health").status_code == 200
    processes = [server.pid, *server.children()]
    assert {has_signal(SIGHUP, "SigIgn", each) for each in processes} == {True}


@pytest.mark.parametrize(
    ("number", "status"),
    [
        pytest.param(
            SIGHUP, 0, marks=own_server("SIGHUP to parent", workers=2), id="SIGHUP"
        ),
        # No one could stop the workers otherwise.
        pytest.param(SIGKILL, -SIGKILL, marks=UNDER_NOHUP, id="SIGKILL"),
    ],
)
def test_signal_to_the_parent_stops_two_workers_gracefully(
    server: Server, upstream: Upstream, number: int, status: int
) -> None:
    workers = wait_for_workers(server, 2)
    with running_stream(server, upstream) as (connection, gate):
        os.kill(server.pid, number)
        wait_until_port_is_closed(server)
        gate.open()

        assert connection.read_to_end() == REST_OF_STREAM

    check_exit(server, status)
    wait_until_gone(workers)


@pytest.mark.parametrize(
    ("workers", "status"),
    [
        pytest.param(1, 130, marks=own_server("Ctrl-C"), id="one-worker"),
        pytest.param(2, 0, marks=own_server("Ctrl-C", workers=2), id="two-workers"),
    ],
)
def test_second_ctrl_c_ends_running_stream_at_once(
    server: Server, upstream: Upstream, workers: int, status: int
) -> None:
    processes = wait_for_workers(server, workers)
    with running_stream(server, upstream) as (connection, _):
        os.killpg(server.pid, SIGINT)
        wait_until_port_is_closed(server)
        time.sleep(LATER)
        os.killpg(server.pid, SIGINT)

        assert LAST_CHUNK not in connection.read_to_end()

    check_exit(server, status)
    wait_until_gone(processes)


@own_server(
    "drain timeout", providers={name: {"drain_timeout": 1} for name in PROVIDERS}
)
def test_running_stream_is_cut_after_the_drain_timeout(
    server: Server, upstream: Upstream
) -> None:
    with running_stream(server, upstream) as (connection, _):
        start = time.monotonic()
        os.killpg(server.pid, SIGTERM)

        assert LAST_CHUNK not in connection.read_to_end()
        assert time.monotonic() - start > 0.9

    check_exit(server, 0)


def test_provider_shutdown_closes_upstream_connections(upstream: Upstream) -> None:
    upstream.openai.drop_connections()
    upstream.openai.script(respond())
    sent = b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n"

    async def call_and_shut_down() -> None:
        config = ProviderConfig(base_url=upstream.openai.url)
        adapter = await get_adapter_impl(config, {})
        response = await adapter.upstream.pool.send(sent, b"{}")
        await response.read()
        assert upstream.openai.open_connections == 1
        await adapter.shutdown()

    asyncio.run(call_and_shut_down())
    eventually(lambda: upstream.openai.open_connections == 0, "it is closed")
