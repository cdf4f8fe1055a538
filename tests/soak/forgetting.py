"""What the process still refers to when every call is over."""

import socket

from tests.calls import chat
from tests.polling import poll
from tests.raw import HOST, request
from tests.scripts import streaming
from tests.soak.figures import Figure, none_of
from tests.soak.kinds import MARK
from tests.soak.stage import Stage, progress
from tests.upstream import Gate

_PART = "keys"
_BEARER = f"Authorization: Bearer sk-{MARK}-held".encode()
# A search takes seconds, and what is over may take one to be let go of.
_SECONDS = 20.0


def forgetting(stage: Stage) -> list[Figure]:
    """Look for used keys in the process, with the connections of all callers closed.

    A search that found nothing ever would show nothing: it also looks during a call.

    Args:
        stage: What it runs on.
    """
    progress(f"{_PART}: looking for the key of a call that runs")
    running = len(_held_by_a_call(stage))
    progress(f"{_PART}: looking for all that were used")
    holders: list[str] = []

    def forgotten() -> bool:
        holders[:] = stage.inside.holders(MARK)
        return holders == []

    poll(forgotten, _SECONDS)
    for holder in sorted(set(holders)):
        progress(f"{_PART}: a key is in a {holder}")
    return [
        Figure(
            _PART,
            "objects that hold the key of a running call",
            f"{running:,}",
            bound="1 or more",
            holds=running > 0,
        ),
        none_of(_PART, "objects that hold a used key", len(holders)),
        none_of(_PART, "used keys in the log", stage.server.log.count(MARK)),
    ]


def _held_by_a_call(stage: Stage) -> list[str]:
    openai = stage.upstream.openai
    openai.reset()
    openai.answer_with(streaming(Gate()))
    address = ("127.0.0.1", stage.server.port)
    with socket.create_connection(address, timeout=10) as caller:
        caller.sendall(request(body=chat(stream=True), own=(HOST, _BEARER)))
        openai.wait_until(lambda: bool(openai.calls))
        found = stage.inside.holders(MARK)
    openai.reset()
    return found
