"""Clients that attack the server, each with a well-behaved client beside it."""

import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import product
from typing import NamedTuple

from tests.support.http import (
    CHAT,
    CHAT_BODY,
    GEMINI_MODEL,
    HEADERS_WITHOUT_KEY,
    STREAMING_REQUEST,
    RawConnection,
    chat,
    exchange,
    request,
    to_json,
)
from tests.support.run_yaml import PROVIDERS, Variation
from tests.support.server import Server, Servers
from tests.support.upstream import Upstream
from tests.support.wire import FIRST_EVENT, SILENCE, Gate, Step, chunk, respond, stream
from tools.soak.report import MIB, Bystander, Line, at_most, exactly, info, title

# Short, so that the soak waits little.
CLIENT_TIMEOUT = 5.0
MAX_BYTES_IN_FLIGHT = 256 * MIB
_SETTINGS = {
    "client_timeout": CLIENT_TIMEOUT,
    "max_bytes_in_flight": MAX_BYTES_IN_FLIGHT,
}
VARIATION = Variation(providers=dict.fromkeys(PROVIDERS, _SETTINGS))
# The server checks a few times per timeout, and a busy machine delays that.
_DROPPED_WITHIN = CLIENT_TIMEOUT * 2 + 3
_KEY = b"x-api-key: not-a-real-key"
_LONG_HEADERS = [b"a%03d: %b" % (number, b"x" * 294) for number in range(190)]


class Attack(NamedTuple):
    """An attack, the memory it may cost in MiB, and whether others may see 503."""

    run: Callable[[Server, Upstream, Bystander], Iterator[Line]]
    memory: int
    others_may_fail: bool = False


def attacks(servers: Servers, upstream: Upstream) -> Iterator[Line]:
    """Run each attack on a separate server, and report what it did to it."""
    for attack in ATTACKS:
        server = servers.start(VARIATION)
        bystander = Bystander(server.port)
        # The first calls of a process allocate memory that stays.
        for _ in range(50):
            bystander.call()
        growth = server.measure_growth()
        with bystander:
            yield from attack.run(server, upstream, bystander)
        yield at_most("memory at most", growth() // MIB, attack.memory, " MiB")
        yield from bystander.report(may_fail=attack.others_may_fail)
        yield exactly("tracebacks in the log", server.log.count("Traceback"), 0)
        server.kill()
        upstream.reset()


def _hanging_vendor(
    server: Server, upstream: Upstream, _bystander: Bystander
) -> Iterator[Line]:
    count = 100
    yield title(f"{count} calls to a vendor that hangs")
    gate = Gate()
    upstream.gemini.script(gate, respond(), times=None)
    call = request(body=to_json(chat(GEMINI_MODEL)))
    with ExitStack() as stack:
        hanging = _connect(stack, server, count)
        for connection in hanging:
            connection.send(call)
        upstream.gemini.wait_requests(count, 30)
        time.sleep(3)
        gate.open()
        statuses = [connection.read_response().status for connection in hanging]
    yield exactly("answered once the vendor is back", statuses.count(200), count)


def _disconnects(
    server: Server, upstream: Upstream, _bystander: Bystander
) -> Iterator[Line]:
    openai, times = upstream.openai, list[float]()
    during: list[tuple[bytes, list[Step]]] = [(b"", [SILENCE])]
    during.append((FIRST_EVENT, stream(FIRST_EVENT, Gate())))
    cases = list(product([1, 300, 1000, 5000, 20_000] * 4, during))
    yield title(f"{len(cases)} clients disconnect after bodies of 1 KB to 20 MB")
    for kilobytes, (received, steps) in cases:
        openai.script(*steps)
        body = to_json(chat(stream=True, user="x" * kilobytes * 1000))
        with RawConnection(server.port) as connection:
            connection.send(request(body=body))
            (seen,) = openai.wait_requests()
            if received:
                connection.read_until(received)
            start = time.monotonic()
        noticed = seen.disconnected.wait(3)
        times.append(time.monotonic() - start if noticed else math.inf)
        openai.reset()
    yield at_most("until their upstream requests end", max(times), 1.0, " s")


def _slow_readers(
    server: Server, upstream: Upstream, _bystander: Bystander
) -> Iterator[Line]:
    count, size, event = 50, 64 * MIB, chunk(b"x" * 16_000 + b"\n\n")
    yield title(f"{count} clients read nothing of a stream of {size // MIB} MiB")
    start, events = stream()[0], [event] * (size // len(event))
    upstream.openai.script(start, events, times=None)
    with ExitStack() as stack:
        for connection in _connect(stack, server, count):
            connection.send(STREAMING_REQUEST)
        began, seen = time.monotonic(), upstream.openai.wait_requests(count, 30)
        dropped = [each.disconnected.wait(_DROPPED_WITHIN) for each in seen]
        seconds = time.monotonic() - began
    read = sum(each.written for each in seen) // count // 1024
    yield at_most("read from the upstream for each", read, size // 2048, " KiB")
    yield exactly("dropped", sum(dropped), count)
    yield at_most("the last one after", seconds, _DROPPED_WITHIN, " s")


def _large_bodies(
    server: Server, _upstream: Upstream, _bystander: Bystander
) -> Iterator[Line]:
    count, size = 40, 60_000_000
    fit = MAX_BYTES_IN_FLIGHT // size
    yield title(f"{count} bodies of 60 MB at once, where {fit} fit")
    with ThreadPoolExecutor(count) as pool:
        statuses = list(pool.map(_send_large_body, [(server.port, size)] * count))
    accepted = count - statuses.count(b"HTTP/1.1 503")
    yield at_most("not rejected with 503", accepted, fit)
    body = to_json(chat(user="x" * 20 * MIB))
    after = exchange(server.port, request(body=body)).status
    yield exactly("status of a body of 20 MiB afterwards", after, 200)


def _send_large_body(target: tuple[int, int]) -> bytes:
    """Send all of a body but its end; return the status line, if there is one."""
    port, size = target
    with RawConnection(port) as connection:
        connection.send(_body_headers(size, _KEY))
        connection.send(*[b"x" * MIB] * (size // MIB))
        return connection.read(12)


def _body_headers(size: int, *lines: bytes) -> bytes:
    length = b"Content-Length: %d" % size
    return request(b"POST", CHAT, length, *lines, headers=HEADERS_WITHOUT_KEY)


def _trickle(server: Server, key: tuple[bytes, ...]) -> tuple[float, float]:
    """Hold `max_bytes_in_flight` with bodies that get one more byte now and then.

    Returns the MiB that were held, and the seconds until the last client was dropped.
    """
    size, missing = 64 * MIB, 4096
    count = MAX_BYTES_IN_FLIGHT // size
    with ThreadPoolExecutor(count) as pool, ExitStack() as stack:
        connections, before = _connect(stack, server, count), server.memory()
        for connection in connections:
            connection.send(_body_headers(size, *key))
            connection.send(*[b"x" * MIB] * (size // MIB - 1), b"x" * (MIB - missing))
        held, start = server.memory() - before, time.monotonic()
        ends = [pool.submit(connection.read_to_end) for connection in connections]
        while not all(end.done() for end in ends):
            if (seconds := time.monotonic() - start) > _DROPPED_WITHIN * 2:
                seconds = math.inf
                break
            for connection in connections:
                connection.send(b"x")
            time.sleep(0.2)
    return held / MIB, seconds


def _trickled_bodies(
    server: Server, _upstream: Upstream, bystander: Bystander
) -> Iterator[Line]:
    yield title("4 bodies of 64 MiB, their last 4 KiB a byte at a time")
    held, seconds = _trickle(server, (_KEY,))
    yield info("held", f"{held:.0f} MiB")
    yield at_most("dropped after", seconds, _DROPPED_WITHIN, " s")
    after = bystander.wait_success(_DROPPED_WITHIN)
    yield at_most("then a call of another client succeeds after", after, 1.0, " s")


def _trickled_bodies_without_key(
    server: Server, _upstream: Upstream, _bystander: Bystander
) -> Iterator[Line]:
    yield title("The same without a key")
    held, seconds = _trickle(server, ())
    yield at_most("held", round(held), 8, " MiB")
    yield at_most("dropped after", seconds, _DROPPED_WITHIN, " s")


def _tiny_headers(
    server: Server, upstream: Upstream, _bystander: Bystander
) -> Iterator[Line]:
    yield title("20 running calls, behind each 32 requests with 13,000 headers")
    yield from _pipelined(server, upstream, [b"aa:"] * 13_000)


def _many_headers(
    server: Server, upstream: Upstream, _bystander: Bystander
) -> Iterator[Line]:
    yield title("The same with 190 headers of 300 bytes")
    yield from _pipelined(server, upstream, _LONG_HEADERS)


def _pipelined(
    server: Server, upstream: Upstream, headers: list[bytes]
) -> Iterator[Line]:
    gate, count = Gate(), 20
    upstream.openai.script(gate, respond(), times=count)
    call = request(body=CHAT_BODY)
    attack = request(b"POST", CHAT, *headers, body=CHAT_BODY)
    with ThreadPoolExecutor(count) as pool, ExitStack() as stack:
        connections = _connect(stack, server, count)
        for connection in connections:
            connection.send(call)
        upstream.openai.wait_requests(count)
        before = server.memory()
        # In threads, since the server stops reading until the call ends.
        for connection in connections:
            pool.submit(connection.send, *[attack] * 32)
        time.sleep(3)
        held = (server.memory() - before) // 1024 // count
        gate.open()
        statuses = [connection.read_response().status for connection in connections]
    yield exactly("running calls that were answered", statuses.count(200), count)
    yield at_most("held for each connection", held, 300, " KiB")


def _headers_of_streams(
    server: Server, upstream: Upstream, _bystander: Bystander
) -> Iterator[Line]:
    count = 200
    yield title(f"{count} running streams with 190 request headers of 300 bytes")
    gate = Gate()
    upstream.openai.script(*stream(FIRST_EVENT, gate), times=count)
    body = to_json(chat(stream=True))
    with ExitStack() as stack:
        connections, before = _connect(stack, server, count), server.memory()
        for connection in connections:
            connection.send(request(b"POST", CHAT, *_LONG_HEADERS, body=body))
            connection.read_until(FIRST_EVENT)
        held = (server.memory() - before) // 1024 // count
        gate.open()
    yield at_most("held for each stream", held, 40, " KiB")


def _connect(stack: ExitStack, server: Server, count: int) -> list[RawConnection]:
    return [
        stack.enter_context(RawConnection(server.port, timeout=30))
        for _ in range(count)
    ]


ATTACKS = (
    Attack(_hanging_vendor, 16),
    Attack(_disconnects, 256),
    Attack(_slow_readers, 100),
    Attack(_large_bodies, MAX_BYTES_IN_FLIGHT // MIB + 64, others_may_fail=True),
    Attack(_trickled_bodies, MAX_BYTES_IN_FLIGHT // MIB + 64, others_may_fail=True),
    Attack(_trickled_bodies_without_key, 16),
    Attack(_tiny_headers, 16),
    Attack(_many_headers, 16),
    Attack(_headers_of_streams, 32),
)
