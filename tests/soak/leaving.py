"""Callers that leave: how soon the upstream sees its own connection closed."""

import math
import socket
import time
from contextlib import suppress
from functools import partial

from tests.calls import chat
from tests.raw import request
from tests.scripts import streaming
from tests.soak.figures import Figure, all_of, milliseconds
from tests.soak.latency import percentile
from tests.soak.stage import Stage, progress
from tests.upstream import Connection, Gate, Request

LEAVERS = 50
# The bound of a caller that leaves, in seconds.
MOST = 1.0

_PART = "leaving"
_MOST_WAITED = 3 * MOST
_FIRST = b"data: 1\n\n"


def leaving(stage: Stage) -> list[Figure]:
    """Let callers leave one after the other, every second one before any answer.

    It ends with the first whose leaving the upstream never sees.

    Args:
        stage: What it runs on.
    """
    progress(f"{_PART}: {LEAVERS} callers")
    times: list[float] = []
    while len(times) < LEAVERS and math.inf not in times:
        times.append(_leave(stage, in_stream=bool(len(times) % 2)))
    stage.upstream.openai.reset()
    largest, bound = max(times), f"under {milliseconds(MOST)}"
    what = "until the upstream sees it closed, ms: {}"
    return [
        all_of(_PART, "callers, half of them inside a stream", len(times), LEAVERS),
        Figure(_PART, what.format("p50"), milliseconds(percentile(times, 0.5))),
        Figure(_PART, what.format("p95"), milliseconds(percentile(times, 0.95))),
        Figure(
            _PART,
            what.format("largest"),
            milliseconds(largest),
            bound=bound,
            holds=largest < MOST,
        ),
    ]


def _leave(stage: Stage, *, in_stream: bool) -> float:
    """Call, leave, and give the seconds until the upstream noticed; `inf`: it never."""
    openai = stage.upstream.openai
    openai.reset()
    openai.answer_with(streaming(_FIRST, Gate()) if in_stream else _is_silent)
    address = ("127.0.0.1", stage.server.port)
    with socket.create_connection(address, timeout=10) as caller:
        caller.sendall(request(body=chat(stream=True)))
        openai.wait_until(lambda: bool(openai.calls))
        if in_stream:
            _read_first(caller)
        left = time.monotonic()
    (arrived,) = openai.calls
    with suppress(TimeoutError):
        openai.wait_until(partial(_is_closed, arrived), _MOST_WAITED)
    return (arrived.peer_closed_at or math.inf) - left


def _is_closed(arrived: Request) -> bool:
    return arrived.peer_closed_at is not None


def _read_first(caller: socket.socket) -> None:
    received = b""
    while _FIRST not in received:
        part = caller.recv(65536)
        if not part:
            message = "the server ended a stream that goes on"
            raise ConnectionError(message)
        received += part


async def _is_silent(_request: Request, _connection: Connection) -> None:
    await Gate().wait()
