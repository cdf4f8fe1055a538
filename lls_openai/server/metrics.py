"""Starts the metrics of this process, if a collector is configured."""

import atexit
import os
from collections.abc import Callable, Mapping
from typing import NamedTuple

from lls_openai.context import RequestContext
from lls_openai.settings import ProviderConfig

# Where a collector is; without one of them, nothing is measured.
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT")

_measures: list[Callable[[RequestContext], None]] = []

type Number = Callable[[], int]


class Numbers(NamedTuple):
    """Functions that return the numbers of the process."""

    client_connections: Number
    bytes_in_flight: Number
    dropped_log_lines: Number


def start_metrics(providers: Mapping[str, ProviderConfig], numbers: Numbers) -> None:
    """Measure all calls from now on, if a collector is configured.

    Args:
        providers: the settings of this project's providers, by their ids.
        numbers: the numbers of the process.
    """
    if not any(os.environ.get(name) for name in _ENDPOINTS):
        return
    # OpenTelemetry's SDK takes 4 MiB, which a server without a collector saves.
    from lls_openai.server.instruments import Instruments  # noqa: PLC0415 (see above)

    instruments = Instruments(providers, numbers)
    _measures.append(instruments.measure)
    atexit.register(instruments.stop)


def measure(context: RequestContext) -> None:
    """Record a request that has ended, if a collector is configured."""
    for each in _measures:
        each(context)
