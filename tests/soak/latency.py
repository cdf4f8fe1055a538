"""How long calls take, measured by a process that does nothing else."""

import http.client
import math
import multiprocessing
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple
from urllib.parse import urlsplit

from tests.bench.payloads import HEADERS, MODEL, PATH, request_body

# The provider that stands for the vendor whose latency is measured.
PROVIDER = "quick"

_BODY = request_body("regular").replace(MODEL.encode(), f"{PROVIDER}/m".encode())
_SECONDS = 30.0


class Latency(NamedTuple):
    """What calls that followed each other on one connection took.

    Attributes:
        complete: How many were answered with 200 and a whole body.
        p50: The median, in seconds.
        p95: What 95 of 100 took at most, in seconds.
    """

    complete: int
    p50: float
    p95: float


def percentile(times: Sequence[float], share: float) -> float:
    """The smallest time that this share of them does not exceed (nearest rank).

    Args:
        times: In any order.
        share: Above 0, up to 1.
    """
    return sorted(times)[math.ceil(share * len(times)) - 1]


def measure(url: str, calls: int) -> Latency:
    """Make calls one after the other.

    Args:
        url: The server's address.
        calls: How many.

    Raises:
        OSError: The server does not answer.
    """
    address = urlsplit(url).netloc
    connection = http.client.HTTPConnection(address, timeout=_SECONDS)
    complete, times = 0, []
    for _ in range(calls):
        start = time.perf_counter()
        connection.request("POST", PATH, _BODY, HEADERS)
        answer = connection.getresponse()
        complete += bool(answer.read()) and answer.status == http.client.OK
        times.append(time.perf_counter() - start)
    connection.close()
    return Latency(complete, percentile(times, 0.5), percentile(times, 0.95))


@contextmanager
def measurer() -> Iterator[ProcessPoolExecutor]:
    """A process to run `measure` in: the loads of the soak are not in its way."""
    spawning = multiprocessing.get_context("spawn")
    # Ctrl-C goes to the soak, which ends this process in order.
    ignoring = partial(signal.signal, signal.SIGINT, signal.SIG_IGN)
    with ProcessPoolExecutor(1, spawning, ignoring) as pool:
        yield pool
