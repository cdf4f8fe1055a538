"""A fuzzer: damaged requests get complete responses, cost little and log no error."""

import asyncio
import os
import random
import re
from collections.abc import Iterator
from pathlib import Path

import h11

from tests.support.http import (
    CHAT,
    CHAT_BODY,
    CHAT_REQUEST,
    CHUNKED,
    HEALTH_REQUEST,
    STREAMING_REQUEST,
    eventually,
    exchange,
    request,
)
from tests.support.run_yaml import CLIENT_TIMEOUT, SMALL_LIMITS
from tests.support.server import Server
from tests.support.upstream import Upstream
from tests.support.wire import LAST_CHUNK, READ_BODY, chunk, respond

EXPECT = b"Expect: 100-continue"
UPGRADE = (b"Connection: upgrade", b"Upgrade: a")

SEED = 20261129
CASES = 2_000
AT_A_TIME = 400
CPU_SECONDS_PER_CASE = 0.005

SEEDS = (
    CHAT_REQUEST,
    CHAT_REQUEST * 3,
    HEALTH_REQUEST * 12,
    STREAMING_REQUEST,
    request(b"POST", CHAT, CHUNKED) + b"Z",
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
    assert {entry["level"] for entry in server.log_entries(before)} <= {
        "info",
        "warning",
    }
    eventually(lambda: upstream.openai.running_calls == 0, "the calls to end")
