"""A connection without progress on the client's side ends after `client_timeout`."""

import time
from contextlib import ExitStack
from itertools import repeat

from tests.support.http import (
    CHAT,
    CHAT_BODY,
    HEADERS_WITHOUT_KEY,
    HEALTH_REQUEST,
    MEBIBYTE,
    MODELS,
    STREAMING_REQUEST,
    RawConnection,
    chat,
    eventually,
    request,
    to_json,
)
from tests.support.run_yaml import CLIENT_TIMEOUT, SMALL_LIMITS
from tests.support.server import Server
from tests.support.upstream import Upstream
from tests.support.wire import JSON, Gate, respond, response_head, stream

pytestmark = SMALL_LIMITS
CHAT_HEADERS = request(body=CHAT_BODY).removesuffix(CHAT_BODY)
UPGRADE = b"Connection: upgrade", b"Upgrade: h2c"
# The client sends this, and then nothing.
UNFINISHED = {
    "nothing": b"",
    "half-of-headers": STREAMING_REQUEST[:40],
    "headers-without-body": CHAT_HEADERS,
    "half-of-a-body": CHAT_HEADERS + CHAT_BODY[:-3],
    "half-of-a-body-after-upgrade": request(b"POST", CHAT, *UPGRADE, body=CHAT_BODY)[
        :-3
    ],
    "complete-request": HEALTH_REQUEST,
    "line-break-after-request": HEALTH_REQUEST + b"\r\n",
}
# The server has responded before the whole body arrives.
UNFINISHED_AFTER_RESPONSE = {
    "invalid-http": b"\x00",
    "half-of-body-after-200": request(b"GET", MODELS, body=CHAT_BODY)[:-3],
    "half-of-body-after-404": request(path="/v1/files", body=CHAT_BODY)[:-3],
    "half-of-body-after-413": request(b"POST", CHAT, b"Content-Length: 999999999")
    + b"x",
    "half-of-body-after-401": request(body=CHAT_BODY, headers=HEADERS_WITHOUT_KEY)[:-3],
}


def test_idle_connection_is_closed_after_the_timeout_and_not_before(
    server: Server, upstream: Upstream
) -> None:
    """All connections at once, for the test mostly waits."""
    sent = UNFINISHED | UNFINISHED_AFTER_RESPONSE
    open_files = server.open_files()
    start, seconds = time.monotonic(), {}
    with ExitStack() as stack:
        connections = {
            name: stack.enter_context(RawConnection(server.port)) for name in sent
        }
        for name, connection in connections.items():
            connection.send(sent[name])
        for name, connection in connections.items():
            connection.read_to_end()
            seconds[name] = time.monotonic() - start
        eventually(
            lambda: server.open_files() <= open_files,
            "the server has closed all sockets",
            4 * CLIENT_TIMEOUT,
        )

    assert max(seconds.values()) < 4 * CLIENT_TIMEOUT, seconds
    assert min(seconds[name] for name in UNFINISHED) > CLIENT_TIMEOUT / 2, seconds
    assert upstream.requests == []


def seconds_until_closed(connection: RawConnection) -> float:
    """Send a byte every tenth of a second until the peer closes."""
    start = time.monotonic()
    while not connection.is_closed_within(0.1):
        connection.send(b"a")
        assert time.monotonic() - start < 4 * CLIENT_TIMEOUT, "still open"
    return time.monotonic() - start


def test_trickled_headers_time_out(server: Server) -> None:
    with RawConnection(server.port) as connection:
        connection.send(HEALTH_REQUEST[:-4])

        assert seconds_until_closed(connection) > CLIENT_TIMEOUT / 2


def test_trickled_body_of_rejected_request_times_out(server: Server) -> None:
    length = b"Content-Length: 99999"
    with RawConnection(server.port) as connection:
        connection.send(request(b"POST", CHAT, length, headers=HEADERS_WITHOUT_KEY))
        assert connection.read_response().status == 401

        assert seconds_until_closed(connection) > CLIENT_TIMEOUT / 2


def test_client_that_does_not_read_its_response_is_disconnected(
    server: Server, upstream: Upstream
) -> None:
    upstream.openai.script(*stream(*[b"x" * MEBIBYTE] * 64))
    growth = server.measure_growth()
    with RawConnection(server.port) as connection:
        connection.send(STREAMING_REQUEST)
        (call,) = upstream.openai.wait_requests()
        assert not call.disconnected.wait(CLIENT_TIMEOUT / 2)
        assert call.disconnected.wait(5 * CLIENT_TIMEOUT)
    assert growth() < 8 * MEBIBYTE


def test_client_that_sends_slowly_is_not_disconnected(server: Server) -> None:
    """16 KiB of a body within each timeout are progress."""
    call = request(body=to_json(chat(user="x" * 50_000)))
    with RawConnection(server.port) as connection:
        for part in (call[:17_000], call[17_000:34_000], call[34_000:]):
            time.sleep(0.6 * CLIENT_TIMEOUT)
            connection.send(part)

        assert connection.read_response().status == 200


def test_client_that_reads_slowly_is_not_disconnected(
    server: Server, upstream: Upstream
) -> None:
    size = 14 * MEBIBYTE
    head = response_head(200, JSON | {"content-length": str(size)})
    upstream.openai.script(head, repeat(b"x" * 65536, size // 65536))

    with RawConnection(server.port) as connection:
        connection.send(request(body=CHAT_BODY))
        connection.read_until(b"\r\n\r\n")
        received = 0
        while part := connection.read(min(2 * MEBIBYTE, size - received)):
            time.sleep(0.5 * CLIENT_TIMEOUT)
            received += len(part)

    assert received == size


def test_client_that_waits_for_a_slow_upstream_is_not_disconnected(
    server: Server, upstream: Upstream
) -> None:
    before, inside = Gate(), Gate()
    upstream.gemini.script(before, respond()[:-1], inside, respond()[-1:])

    with RawConnection(server.port) as connection:
        connection.send(request(body=to_json(chat("gemini/any"))))
        for gate in (before, inside):
            gate.wait_reached()
            assert not connection.is_closed_within(1.2 * CLIENT_TIMEOUT)
            gate.open()

        assert connection.read_response().status == 200
