"""A client that disconnects ends its call at the upstream."""

import json

import pytest

from tests.support.http import (
    CHAT_REQUEST,
    GEMINI_MODEL,
    HEADERS_WITHOUT_KEY,
    RawConnection,
    chat,
    eventually,
    exchange,
    request,
    to_json,
)
from tests.support.run_yaml import WITH_AUTH
from tests.support.server import Server
from tests.support.upstream import USERS, Upstream
from tests.support.wire import (
    FIRST_EVENT,
    READ_BODY,
    SILENCE,
    Gate,
    Step,
    respond,
    response_head,
    stream,
)

GEMINI_BODY = to_json(chat(GEMINI_MODEL))
LARGE_REQUEST = request(body=to_json(chat(user="x" * 20_000_000)))


@pytest.mark.parametrize("is_reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize(
    ("sent", "pipelined"),
    [
        pytest.param(CHAT_REQUEST, b"", id="small-body"),
        pytest.param(LARGE_REQUEST, b"", id="large-body"),
        pytest.param(
            CHAT_REQUEST, CHAT_REQUEST * 10 + b"POST / HTT", id="pipelined-requests"
        ),
    ],
)
@pytest.mark.parametrize(
    ("steps", "received"),
    [
        pytest.param([SILENCE], b"", id="before-response"),
        pytest.param(
            [response_head(200, {"content-length": "99"}) + b'{"half":', SILENCE],
            b"",
            id="in-buffered-response",
        ),
        pytest.param(
            [*stream(FIRST_EVENT * 2 + b"data: ha")[:-1], SILENCE],
            FIRST_EVENT * 2,
            id="in-stream",
        ),
    ],
)
def test_disconnect_closes_the_call_while_upstream_is_silent(
    server: Server,
    upstream: Upstream,
    steps: list[Step],
    received: bytes,
    sent: bytes,
    pipelined: bytes,
    *,
    is_reset: bool,
) -> None:
    upstream.openai.script(*steps)

    with RawConnection(server.port) as connection:
        connection.send(sent)
        upstream.openai.wait_requests()
        connection.send(pipelined)
        connection.read_until(received)
        if is_reset:
            connection.reset()

    # `request` fails if a pipelined one was sent, too.
    assert upstream.openai.request.disconnected.wait(2)


def test_disconnect_stops_the_body_on_its_way_to_the_upstream(
    server: Server, upstream: Upstream
) -> None:
    gate = Gate()
    upstream.openai.script(gate, READ_BODY, respond())

    with RawConnection(server.port) as connection:
        connection.send(LARGE_REQUEST)
        gate.wait_reached()
        open_files = server.open_files()
    eventually(
        lambda: server.open_files() <= open_files - 2,
        "the client's and the upstream's connection are closed",
    )
    gate.open()

    assert upstream.openai.request.disconnected.wait(2)
    assert not upstream.openai.request.complete


def test_disconnect_right_behind_a_large_body_leaves_no_call_open(
    server: Server, upstream: Upstream
) -> None:
    """The server learns of it between the steps that the body takes."""
    upstream.openai.script(SILENCE, times=None)
    before = len(server.access_log(status=499))

    with RawConnection(server.port) as connection:
        connection.send(LARGE_REQUEST)

    server.wait_access_log(before + 1, status=499)
    # Once this is answered, the upstream has read what came before.
    assert exchange(server.port, request(body=GEMINI_BODY)).status == 200
    eventually(lambda: upstream.openai.running_calls == 0, "no call is open")


@WITH_AUTH
def test_disconnect_during_authentication_calls_no_upstream(
    server: Server, upstream: Upstream
) -> None:
    gate = Gate()
    user = json.dumps(USERS["token-of-bob"]).encode()
    upstream.authenticator.script(gate, respond(user))
    headers = (*HEADERS_WITHOUT_KEY, b"Authorization: Bearer token-of-bob")
    sent = request(
        path="/v1/chat/completions",
        body=to_json(chat()),
        headers=(*headers, b"x-api-key: sk-client"),
    )

    with RawConnection(server.port) as connection:
        connection.send(sent)
        gate.wait_reached()
        open_files = server.open_files()
    eventually(lambda: server.open_files() < open_files, "it is disconnected", 2)
    gate.open()

    server.wait_access_log(status=499)
    assert "sk-client" not in [each.key for each in upstream.openai.requests]
