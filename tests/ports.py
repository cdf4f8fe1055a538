"""Ports of the loopback interface where a connection does not come about."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

_HOST = "127.0.0.1"


@contextmanager
def refusing_port() -> Iterator[int]:
    """A port that refuses every connection: it is taken, and nobody listens."""
    with socket.socket() as taken:
        taken.bind((_HOST, 0))
        yield taken.getsockname()[1]


@contextmanager
def deaf_port() -> Iterator[int]:
    """A port that answers no connection: the queue of those that wait is full."""
    with ExitStack() as opened:
        deaf = opened.enter_context(socket.socket())
        deaf.bind((_HOST, 0))
        deaf.listen(0)
        for _ in range(3):
            waiting = opened.enter_context(socket.socket())
            waiting.setblocking(False)  # noqa: FBT003 - there is no other way to say it
            waiting.connect_ex(deaf.getsockname())
        yield deaf.getsockname()[1]
