"""How long an upstream is waited for is what `network.timeout` says."""

import json
import time

import httpx
import pytest

from tests.calls import call, chat, open_call
from tests.scripts import DONE, JSON, streaming
from tests.server import Server
from tests.upstream import Connection, Gate, Request, Upstream

pytest_plugins = ["tests.variants"]

FIRST = b"data: 1\n\n"
MESSAGE = "The upstream was silent for longer than its timeout in run.yaml"
ERROR = {
    "message": MESSAGE,
    "type": "server_error",
    "param": None,
    "code": "upstream_timeout",
}


@pytest.mark.parametrize(("provider", "seconds"), [("impatient", 0.5), ("brief", 1)])
def test_an_upstream_silent_for_too_long_is_a_timeout(
    various_server: Server,
    upstream: Upstream,
    http: httpx.Client,
    provider: str,
    seconds: float,
) -> None:
    """504, soon after the time given, and the call is closed upstream."""

    async def script(_request: Request, _connection: Connection) -> None:
        await Gate().wait()

    upstream.openai.answer_with(script)
    began = time.monotonic()
    answer = call(http, various_server.url, chat(f"{provider}/m-1"))
    took = time.monotonic() - began

    (arrived,) = upstream.openai.calls
    upstream.openai.wait_until(lambda: arrived.peer_closed_at is not None)
    assert (answer.status, answer.error) == (504, ERROR)
    assert seconds <= took < seconds + 5


def test_an_upstream_silent_inside_an_answer_is_a_timeout(
    various_server: Server, upstream: Upstream, http: httpx.Client
) -> None:
    """Nothing of it has gone to the caller yet: it gets an error, and not half."""

    async def script(_request: Request, connection: Connection) -> None:
        await connection.head(200, JSON)
        await connection.chunk(b'{"half":')
        await Gate().wait()

    upstream.openai.answer_with(script)

    answer = call(http, various_server.url, chat("impatient/m-1"))
    assert (answer.status, answer.error) == (504, ERROR)


def test_an_upstream_silent_inside_a_stream_is_an_error_event(
    various_server: Server, upstream: Upstream, http: httpx.Client
) -> None:
    """After the events that have come; there is no `[DONE]`."""
    upstream.openai.answer_with(streaming(FIRST + b"data: ha", Gate(), DONE))

    answer = call(http, various_server.url, chat("impatient/m-1", stream=True))

    event = answer.body.removeprefix(FIRST)
    assert (
        answer.status,
        json.loads(event.removeprefix(b"data: ")),
    ) == (200, {"error": ERROR})


def test_a_stream_may_last_longer_than_the_timeout(
    various_server: Server, upstream: Upstream, http: httpx.Client
) -> None:
    """It is the time without a byte that counts, and not that of the whole answer."""
    gates = [Gate() for _ in range(4)]
    steps = [step for gate in gates for step in (FIRST, gate)]
    upstream.openai.answer_with(streaming(*steps, DONE))
    began = time.monotonic()

    with open_call(http, various_server.url, chat("brief/m-1", stream=True)) as stream:
        seen = b""
        for gate in gates:
            seen += stream.read(len(FIRST))
            # Below the timeout of a second: the time that passes is what is tested.
            time.sleep(0.3)
            gate.open()
        seen += stream.rest()

    assert FIRST * len(gates) + DONE == seen
    assert time.monotonic() - began > 1


def test_an_upstream_that_answers_no_connection_is_a_timeout(
    various_server: Server, http: httpx.Client
) -> None:
    """`connect` ends the attempt, long before `read` would."""
    began = time.monotonic()
    answer = call(http, various_server.url, chat("deaf/m-1"))

    assert (answer.status, answer.error) == (504, ERROR)
    assert 0.2 <= time.monotonic() - began < 5


def test_other_providers_keep_their_own_time(
    various_server: Server, upstream: Upstream, http: httpx.Client
) -> None:
    """A timeout is a provider's, though all share one pool and this one upstream."""
    gate = Gate()
    upstream.openai.answer_with(streaming(FIRST, gate, DONE))

    with open_call(http, various_server.url, chat(stream=True)) as patient:
        first = patient.read(1)
        brief = call(http, various_server.url, chat("brief/m-1", stream=True))
        gate.open()
        rest = patient.rest()

    assert (first, rest) == (FIRST, DONE)
    assert brief.body.removeprefix(FIRST).startswith(b'data: {"error"')
