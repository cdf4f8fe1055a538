"""Bodies of running calls may take `max_bytes_in_flight` bytes together."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.http import (
    CHAT_REQUEST,
    MESSAGES,
    RawConnection,
    chat,
    eventually,
    exchange,
    request,
    to_json,
)
from tests.support.run_yaml import MAX_BYTES_IN_FLIGHT, SMALL_LIMITS
from tests.support.server import Server
from tests.support.upstream import Upstream
from tests.support.wire import DONE, FIRST_EVENT, RESET, Gate, Step, respond, stream

pytestmark = SMALL_LIMITS
# Two of these are too many.
LARGE_BODY = to_json(chat(user="x" * 600_000))
LARGE_REQUEST = request(body=LARGE_BODY)


@contextmanager
def large_call(server: Server, upstream: Upstream) -> Iterator[None]:
    """Hold a large request at the upstream until the context ends."""
    upstream.openai.script(gate := Gate())
    with RawConnection(server.port) as connection:
        connection.send(LARGE_REQUEST)
        gate.wait_reached()
        yield


def status_of_large_request(server: Server) -> int:
    return exchange(server.port, LARGE_REQUEST).status


def test_too_many_bytes_in_flight_return_503(
    server: Server, upstream: Upstream
) -> None:
    with large_call(server, upstream):
        openai = exchange(server.port, LARGE_REQUEST)
        anthropic = exchange(server.port, request(path=MESSAGES, body=LARGE_BODY))

    assert openai.status_and_code == (503, "server_busy")
    assert openai.error["type"] == "server_error"
    assert openai.headers["retry-after"] == "1"
    assert (anthropic.status, anthropic.error["type"]) == (503, "overloaded_error")
    assert anthropic.headers["retry-after"] == "1"


def test_small_body_is_accepted_while_large_ones_are_rejected(
    server: Server, upstream: Upstream
) -> None:
    with large_call(server, upstream):
        assert status_of_large_request(server) == 503
        assert exchange(server.port, CHAT_REQUEST).status == 200


def test_bytes_are_released_when_the_response_begins(
    server: Server, upstream: Upstream
) -> None:
    before, inside = Gate(), Gate()
    upstream.openai.script(before, *stream(FIRST_EVENT, inside, DONE))

    with RawConnection(server.port) as connection:
        connection.send(LARGE_REQUEST)
        before.wait_reached()
        assert status_of_large_request(server) == 503
        before.open()
        connection.read_until(FIRST_EVENT)
        assert status_of_large_request(server) == 200
        inside.open()
        connection.read_until(DONE)


@pytest.mark.parametrize(
    ("body", "steps", "status"),
    [
        pytest.param(LARGE_BODY, [], 200, id="200"),
        pytest.param(LARGE_BODY, [respond(status=404)], 404, id="upstream-error"),
        pytest.param(LARGE_BODY, [RESET], 502, id="upstream-reset"),
        pytest.param(b"x" * 600_000, [], 400, id="invalid-body"),
        pytest.param(b" " * MAX_BYTES_IN_FLIGHT + LARGE_BODY, [], 503, id="too-large"),
    ],
)
def test_bytes_are_released_after(
    server: Server, upstream: Upstream, body: bytes, steps: list[Step], status: int
) -> None:
    if steps:
        upstream.openai.script(*steps)

    assert exchange(server.port, request(body=body)).status == status
    assert status_of_large_request(server) == 200
    # uvicorn logs so an exception that an application does not catch.
    assert "Exception in ASGI application" not in server.log


def test_bytes_are_released_when_client_disconnects_inside_its_body(
    server: Server,
) -> None:
    with RawConnection(server.port) as connection:
        connection.send(LARGE_REQUEST[:-10])
        eventually(lambda: status_of_large_request(server) == 503, "it is counted")

    eventually(lambda: status_of_large_request(server) == 200, "it is released")
    assert "Exception in ASGI application" not in server.log


def test_bytes_are_released_when_client_disconnects_before_the_response(
    server: Server, upstream: Upstream
) -> None:
    with large_call(server, upstream):
        assert status_of_large_request(server) == 503

    eventually(lambda: status_of_large_request(server) == 200, "it is released")
    assert "Exception in ASGI application" not in server.log
