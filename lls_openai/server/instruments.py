"""The instruments of every call, by OpenTelemetry's conventions for generative AI.

https://github.com/open-telemetry/semantic-conventions-genai. `gen_ai.response.model` is
left out: an upstream may send any name.
"""

import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version

from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import Metric, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import OTELResourceDetector, Resource

from lls_openai.context import RequestContext
from lls_openai.server.histograms import Histogram, HistogramExporter, Series
from lls_openai.server.metrics import Number, Numbers
from lls_openai.settings import ProviderConfig

# How long the last export may take at a shutdown, in milliseconds.
LAST_EXPORT_MS = 1500

# As the conventions give them.
SECONDS = tuple(0.01 * 2**power for power in range(14))
TOKENS = tuple(4**power for power in range(14))

FIRST_ERROR_STATUS = 400


class Instruments:
    """The instruments of this process.

    Args:
        providers: the settings of this project's providers, by their ids.
        numbers: the numbers of the process.
    """

    def __init__(
        self, providers: Mapping[str, ProviderConfig], numbers: Numbers
    ) -> None:
        self._upstreams = {
            name: _upstream_attributes(name, config)
            for name, config in providers.items()
        }
        self._duration = Histogram(
            "gen_ai.client.operation.duration", "s", "GenAI operation duration", SECONDS
        )
        self._first_chunk = Histogram(
            "gen_ai.client.operation.time_to_first_chunk",
            "s",
            "Time to the first chunk of a stream",
            SECONDS,
        )
        self._tokens = Histogram(
            "gen_ai.client.token.usage", "{token}", "Tokens used", TOKENS
        )
        reader = PeriodicExportingMetricReader(HistogramExporter(self.read))
        self._provider = MeterProvider([reader], _resource(), shutdown_on_exit=False)
        self._observe(numbers)

    def _observe(self, numbers: Numbers) -> None:
        meter = self._provider.get_meter("lls_openai", version("lls-openai"))
        meter.create_observable_up_down_counter(
            "lls_openai.client.connections",
            [_observe(numbers.client_connections)],
            "{connection}",
            "Open connections of clients",
        )
        meter.create_observable_up_down_counter(
            "lls_openai.request.body.in_flight",
            [_observe(numbers.bytes_in_flight)],
            "By",
            "Bytes of request bodies in memory",
        )
        meter.create_observable_counter(
            "lls_openai.log.dropped",
            [_observe(numbers.dropped_log_lines)],
            "{line}",
            "Log lines dropped because they could not be written in time",
        )
        self._rejected = meter.create_counter(
            "lls_openai.request.rejected",
            "{request}",
            "Requests that were answered with an error without calling an upstream",
        )

    def measure(self, context: RequestContext) -> None:
        """Record a request that has ended."""
        if context.model is None:
            if context.status >= FIRST_ERROR_STATUS:
                self._rejected.add(1, {"error.type": error_type(context) or ""})
            return
        series = context.operation, context.model, context.provider
        taken = time.perf_counter() - context.started
        self._duration.record((*series, error_type(context)), taken)
        if context.stream and context.first:
            first_chunk = context.first - context.started
            self._first_chunk.record(series, first_chunk)
        if context.input_tokens:
            self._tokens.record((*series, None, "input"), context.input_tokens)
        if context.tokens:
            self._tokens.record((*series, None, "output"), context.tokens)

    def read(self) -> list[Metric]:
        """Return the histograms as they are now."""
        histograms = self._duration, self._first_chunk, self._tokens
        return [histogram.read(self._attributes) for histogram in histograms]

    def _attributes(self, series: Series) -> dict[str, str]:
        operation, model, provider, *more = series
        named = zip(("error.type", "gen_ai.token.type"), more, strict=False)
        return {
            "gen_ai.operation.name": operation or "",
            "gen_ai.request.model": model or "",
            **self._upstreams[provider or ""],
            **{name: value for name, value in named if value},
        }

    def stop(self) -> None:
        """Export for the last time; do not wait for a collector that hangs."""
        self._provider.shutdown(LAST_EXPORT_MS)


def error_type(context: RequestContext) -> str | None:
    """Return the server's own code, or else the status of a failure.

    499 is a client that disconnected, also in the middle of a response.
    """
    if context.code or context.success:
        return context.code
    return str(context.status if context.status >= FIRST_ERROR_STATUS else 499)


def _observe(number: Number) -> Callable[[CallbackOptions], Iterable[Observation]]:
    return lambda _options: [Observation(number())]


def _upstream_attributes(name: str, config: ProviderConfig) -> dict[str, str]:
    return {
        "gen_ai.provider.name": config.metrics_provider_name or name,
        "server.address": config.base_url.host or "",
    }


def _resource() -> Resource:
    """Return what tells this process from others; the environment takes precedence."""
    own = {
        "service.name": "lls-openai",
        "service.version": version("lls-openai"),
        "service.instance.id": str(uuid.uuid4()),
    }
    return Resource.create(own).merge(OTELResourceDetector().detect())
