"""The invariants of a client connection, whatever bytes a client sends."""

import asyncio
import json
import os
import random
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import h11
import pytest

from tests.support.http import (
    CHAT,
    CHAT_BODY,
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
from tests.support.wire import (
    FIRST_EVENT,
    LAST_CHUNK,
    READ_BODY,
    Gate,
    chunk,
    respond,
    stream,
)

EXPECT = b"Expect: 100-continue"
UPGRADE = (b"Connection: upgrade", b"Upgrade: a")
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
        assert connection.read_to_end() == b""

    def levels() -> list[object]:
        return [entry["level"] for entry in _entries(server, before)]

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


def test_waiting_requests_are_bounded_in_memory(
    server: Server, upstream: Upstream
) -> None:
    """Each connection sends as many headers and bytes as may wait, and more."""
    gate, connections = Gate(), 20
    upstream.openai.script(*stream(FIRST_EVENT, gate), times=connections)
    headers = [b"%c: " % letter for letter in range(ord("a"), ord("z"))] * 7
    waiting = request(b"GET", "/v1/health", *headers, b"Z: " + b"z" * 30_000) * 12
    with ExitStack() as stack:
        growth = server.measure_growth()
        for _ in range(connections):
            connection = stack.enter_context(RawConnection(server.port))
            connection.send(STREAMING_REQUEST)
            connection.read_until(FIRST_EVENT)
            connection.send(waiting)
        exchange(server.port, HEALTH_REQUEST)
        grown = growth()
        gate.open()

    assert grown < connections * 700_000


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


# The fuzzer.

SEED = 20261129
CASES = 2_000
AT_A_TIME = 400
CPU_SECONDS_PER_CASE = 0.005

SEEDS = (
    CHAT_REQUEST,
    CHAT_REQUEST * 3,
    HEALTH_REQUEST * 12,
    STREAMING_REQUEST,
    BROKEN_CHUNK,
    request(b"POST", CHAT, CHUNKED) + chunk(CHAT_BODY) + LAST_CHUNK + CHAT_REQUEST,
    request(b"POST", CHAT, CHUNKED, EXPECT) + chunk(CHAT_BODY) + LAST_CHUNK,
    request(b"POST", CHAT, EXPECT, body=CHAT_BODY),
    request(b"POST", CHAT, *UPGRADE, body=CHAT_BODY) + HEALTH_REQUEST,
    request(b"POST", CHAT, *UPGRADE, CHUNKED) + chunk(CHAT_BODY) + LAST_CHUNK,
    request(b"GET", "/v1/models", b"Connection: close") + HEALTH_REQUEST,
    HEALTH_REQUEST.replace(b"HTTP/1.1", b"HTTP/1.0"),
    request(b"PUT", "/v1/models", body=b"x" * 70_000) + HEALTH_REQUEST,
    request(b"GET", "/v1/health", *[b"A: b"] * 190),
)
TOKENS = (
    b"\r\n",
    b"\n",
    b"\x00",
    b"\xff",
    b": ",
    b"chunked",
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Length: 5\r\n",
    b"Upgrade: h2c\r\nConnection: upgrade\r\n",
    b"Expect: 100-continue\r\n",
    b"0\r\n\r\n",
    b"ffffffffffffffff\r\n",
    b"HTTP/1.1",
)


def mutate(chance: random.Random) -> list[bytes]:
    """Return the segments of a valid request that has been damaged."""
    data = bytearray(chance.choice(SEEDS))
    for _ in range(chance.choice((0, 1, 1, 2, 5))):
        at = chance.randrange(len(data))
        match chance.randrange(4):
            case 0:
                data[at] = chance.randrange(256)
            case 1:
                data[at:at] = chance.choice(TOKENS)
            case 2:
                del data[at : at + chance.choice((1, 2, 10, 100))]
            case _:
                del data[at + 1 :]
        if not data:
            data += b"G"
    cuts = sorted(
        chance.randrange(len(data) + 1) for _ in range(chance.choice((0, 1, 4)))
    )
    return [
        bytes(data[a:b]) for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)
    ]


async def send_case(port: int, segments: list[bytes], *, leave: bool) -> bytes:
    """Send the segments; return what the server sends until it closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for segment in segments:
            writer.write(segment)
            await writer.drain()
        if leave:
            return b""
        return await asyncio.wait_for(reader.read(-1), 10 * CLIENT_TIMEOUT)
    except ConnectionError:
        return b""
    finally:
        writer.transport.abort()


def responses(received: bytes) -> Iterator[h11.Response]:
    """Parse complete responses; fail for anything else."""
    received = re.sub(rb"^HTTP/1.1 100 Continue\r\n\r\n", b"", received)
    while received:
        parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
        parser.send(h11.Request(method="GET", target="/", headers=[("host", "a")]))
        parser.send(h11.EndOfMessage())
        parser.receive_data(received)
        while not isinstance(event := parser.next_event(), h11.EndOfMessage):
            assert event is not h11.NEED_DATA, received
            if isinstance(event, h11.Response):
                yield event
        received = parser.trailing_data[0]
        received = re.sub(rb"^HTTP/1.1 100 Continue\r\n\r\n", b"", received)


def _entries(server: Server, since: int) -> list[dict[str, object]]:
    lines = server.log[since:].split("\n")[:-1]
    assert [line for line in lines if not line.startswith("{")] == []
    return [json.loads(line) for line in lines]


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@SMALL_LIMITS
def test_damaged_requests_get_complete_responses_and_log_no_error(
    server: Server, upstream: Upstream
) -> None:
    upstream.openai.script(READ_BODY, respond(), times=None)
    chance = random.Random(SEED)  # noqa: S311 (a fixed seed, no secret)
    cases = [(mutate(chance), chance.random() < 0.3) for _ in range(CASES)]
    before, cpu = len(server.log), _cpu_seconds(server.pid)

    async def run() -> list[bytes]:
        limit = asyncio.Semaphore(AT_A_TIME)

        async def one(segments: list[bytes], leave: bool) -> bytes:  # noqa: FBT001
            async with limit:
                return await send_case(server.port, segments, leave=leave)

        return await asyncio.gather(*(one(*case) for case in cases))

    for (segments, _), received in zip(cases, asyncio.run(run()), strict=True):
        statuses = [response.status_code for response in responses(received)]
        sent = b"".join(segments)
        assert len(statuses) <= sent.count(b"HTTP/1.") + 1, (segments, received)
        assert all(200 <= status < 500 for status in statuses), (segments, received)
    used = _cpu_seconds(server.pid) - cpu
    assert used < CASES * CPU_SECONDS_PER_CASE

    assert exchange(server.port, CHAT_REQUEST).status == 200
    assert {entry["level"] for entry in _entries(server, before)} <= {"info", "warning"}
    eventually(lambda: upstream.openai.open_connections < 100, "the calls to end")
