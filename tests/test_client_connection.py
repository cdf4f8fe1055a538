"""The invariants of a client connection, whatever bytes a client sends."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.support.http import (
    CHAT,
    CHAT_REQUEST,
    CHUNKED,
    HEALTH_REQUEST,
    STREAMING_REQUEST,
    RawConnection,
    chat,
    eventually,
    exchange,
    request,
    to_json,
)
from tests.support.run_yaml import CLIENT_TIMEOUT, SMALL_LIMITS, WITH_AUTH
from tests.support.server import Server
from tests.support.upstream import Upstream
from tests.support.wire import FIRST_EVENT, Gate, stream

EXPECT = b"Expect: 100-continue"
UPGRADE = (b"Connection: upgrade", b"Upgrade: a")
STREAM = to_json(chat(stream=True))
BROKEN_CHUNK = request(b"POST", CHAT, CHUNKED) + b"Z"


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(
            b"POST / HTTP/1.1\r\nTransfer-Encoding:chunked\r\n\r\nZ", id="bad-chunk"
        ),
        pytest.param(BROKEN_CHUNK, id="bad-chunk-of-call"),
        pytest.param(
            request(b"POST", CHAT, CHUNKED, EXPECT) + b"Z", id="bad-chunk-after-expect"
        ),
        pytest.param(
            request(b"GET", CHAT, *UPGRADE, b"Transfer-Encoding: x"),
            id="upgrade-with-unknown-encoding",
        ),
        pytest.param(
            request(b"POST", CHAT, b"Transfer-Encoding: x"), id="unknown-encoding"
        ),
    ],
)
def test_invalid_request_gets_one_400_and_one_warning(
    server: Server, sent: bytes
) -> None:
    before = len(server.log)
    with RawConnection(server.port) as connection:
        connection.send(sent)
        response = connection.read_response()
        assert response.status_and_code == (400, "invalid_http_request")
        assert response.headers["connection"] == "close"
        assert connection.read_to_end() == b""

    def levels() -> list[object]:
        return [entry["level"] for entry in server.log_entries(before)]

    eventually(lambda: "warning" in levels(), "a warning in the log")
    assert set(levels()) <= {"warning", "info"}
    assert levels().count("warning") == 1


@pytest.mark.parametrize(
    ("count", "status"),
    [pytest.param(200, 200, id="200"), pytest.param(201, 431, id="201")],
)
def test_more_than_200_headers_are_rejected(
    server: Server, count: int, status: int
) -> None:
    headers = [b"A: " for _ in range(count)]
    sent = request(b"GET", "/v1/health", headers=tuple(headers))

    assert exchange(server.port, sent).status == status


@WITH_AUTH
def test_401_is_complete_for_client_that_waits_for_100_continue(server: Server) -> None:
    """The client was never asked for its body, so it will not send one."""
    lines = (EXPECT, b"Content-Length: 2000000")
    with RawConnection(server.port) as connection:
        connection.send(request(b"POST", CHAT, *lines, headers=(b"Host: a",)))
        response = connection.read_response()

        assert response.status_and_code == (401, "invalid_token")
        assert response.headers["connection"] == "close"
        assert connection.is_closed_within(CLIENT_TIMEOUT)


@pytest.mark.parametrize(
    "behind",
    [
        pytest.param(request(body=b"x" * 100_000)[:-1], id="100-kb-of-a-body"),
        pytest.param(request(body=b"x" * 600_000)[:-1], id="600-kb-of-a-body"),
        pytest.param(HEALTH_REQUEST * 8, id="8-requests"),
        pytest.param(HEALTH_REQUEST * 100, id="100-requests"),
    ],
)
def test_client_that_disconnects_ends_its_call_with_bytes_behind_it(
    server: Server, upstream: Upstream, behind: bytes
) -> None:
    gate = Gate()
    upstream.openai.script(gate)
    with RawConnection(server.port) as connection:
        connection.send(CHAT_REQUEST)
        gate.wait_reached()
        connection.send(behind)

    assert upstream.openai.request.disconnected.wait(1)


@contextmanager
def open_streams(
    server: Server, upstream: Upstream, count: int, sent: bytes
) -> Iterator[list[RawConnection]]:
    """Send a request on each of `count` connections, and receive the first event."""
    gate = Gate()
    upstream.openai.script(*stream(FIRST_EVENT, gate), times=count)
    with ExitStack() as stack:
        connections = [
            stack.enter_context(RawConnection(server.port)) for _ in range(count)
        ]
        for connection in connections:
            connection.send(sent)
            connection.read_until(FIRST_EVENT)
        yield connections
        gate.open()


MANY_HEADERS = [b"%c: " % letter for letter in range(ord("a"), ord("z"))] * 7


@pytest.mark.parametrize(
    "waiting",
    [
        pytest.param(
            request(b"GET", "/v1/health", *MANY_HEADERS, b"Z: " + b"z" * 30_000) * 12,
            id="12-requests-with-headers",
        ),
        # More than the system buffers, so that the server has to read it.
        pytest.param(request(body=b"x" * 20_000_000), id="20-mb-of-a-body"),
    ],
)
def test_requests_behind_a_stream_are_bounded_in_memory(
    server: Server, upstream: Upstream, waiting: bytes
) -> None:
    growth = server.measure_growth()
    with open_streams(server, upstream, 5, STREAMING_REQUEST) as connections:
        for connection in connections:
            connection.send(waiting)
        exchange(server.port, HEALTH_REQUEST)
        grown = growth()

    assert grown < len(connections) * 700_000


def test_running_stream_does_not_keep_its_request_headers(
    server: Server, upstream: Upstream
) -> None:
    sent = request(b"POST", CHAT, *MANY_HEADERS, b"Z: " + b"z" * 50_000, body=STREAM)
    growth = server.measure_growth()
    with open_streams(server, upstream, 50, sent) as connections:
        grown = growth()

    assert grown < len(connections) * 40_000


@WITH_AUTH
def test_body_is_not_read_ahead_while_the_token_is_checked(
    server: Server, upstream: Upstream
) -> None:
    upstream.authenticator.script(gate := Gate())
    sent = request(b"POST", CHAT, b"Content-Length: 50000000")
    growth = server.measure_growth()
    with RawConnection(server.port, timeout=0.5) as connection:
        # More than the system buffers.
        with pytest.raises(TimeoutError):
            connection.send(sent, b"x" * 30_000_000)
        gate.wait_reached()
        grown = growth()

    assert grown < 3_000_000


@SMALL_LIMITS
def test_body_that_is_trickled_gives_its_bytes_back(
    server: Server, upstream: Upstream
) -> None:
    """Progress is 16 KiB, or the end of a body; a byte now and then is not."""
    call = request(body=to_json(chat(user="x" * 600_000)))
    with RawConnection(server.port) as connection:
        connection.send(call[:-10])
        assert exchange(server.port, call).status_and_code == (503, "server_busy")
        for byte in call[-10:-2]:
            if connection.is_closed_within(CLIENT_TIMEOUT / 5):
                break
            connection.send(bytes([byte]))
        assert connection.is_closed_within(CLIENT_TIMEOUT)

    assert exchange(server.port, call).status == 200
    assert len(upstream.openai.requests) == 1


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads Linux's /proc")
def test_client_connections_have_tcp_keep_alive(
    server: Server, upstream: Upstream
) -> None:
    """A client that has vanished is noticed while its call is silent (proc(5))."""
    gate = Gate()
    upstream.openai.script(gate)
    with RawConnection(server.port) as connection:
        connection.send(CHAT_REQUEST)
        gate.wait_reached()
        timers = [
            fields[5]
            for fields in map(str.split, Path("/proc/net/tcp").read_text().splitlines())
            if fields[1].endswith(f":{server.port:04X}") and fields[3] == "01"
        ]

    # A timer of the kind 2 is that of keep-alive.
    assert timers
    assert all(timer.startswith("02:") for timer in timers), timers
