"""Waiting for something that comes about by itself."""

import time
from collections.abc import Callable


def poll(condition: Callable[[], bool], seconds: float = 10) -> bool:
    """Say whether something comes about in time.

    Args:
        condition: True when it has; asked again and again.
        seconds: How long to wait for it at most.
    """
    deadline = time.monotonic() + seconds
    while not (came := condition()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return came
