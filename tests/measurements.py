"""What a collector has been told: OpenTelemetry's metrics, as OTLP over HTTP."""

from dataclasses import dataclass

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric

from tests.endpoint import Endpoint


@dataclass(frozen=True)
class Measurement:
    """One series of an instrument, as it stands now.

    Attributes:
        attributes: What the series is about.
        count: How often something was recorded, or the counter's value.
        total: The sum of what was recorded; 0 for a counter.
    """

    attributes: dict[str, str]
    count: int
    total: float = 0.0


def measured(collector: Endpoint, name: str, **about: str) -> list[Measurement]:
    """The series of an instrument in the last export that has any.

    Args:
        collector: What the server exports to.
        name: The instrument's name, without "llama_stack.".
        about: Attributes that the series has to have.
    """
    for path, body in reversed(collector.posted):
        assert path == "/v1/metrics"
        found = [
            series
            for metric in _metrics(body)
            if metric.name == f"llama_stack.{name}"
            for series in _series(metric)
            if about.items() <= series.attributes.items()
        ]
        if found:
            return found
    return []


def _metrics(body: bytes) -> list[Metric]:
    export = ExportMetricsServiceRequest.FromString(body)
    return [
        metric
        for resource in export.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    ]


def _series(metric: Metric) -> list[Measurement]:
    counted = [
        Measurement(_attributes(point.attributes), point.as_int)
        for point in metric.sum.data_points
    ]
    recorded = [
        Measurement(_attributes(point.attributes), point.count, point.sum)
        for point in metric.histogram.data_points
    ]
    return counted + recorded


def _attributes(pairs: list[KeyValue]) -> dict[str, str]:
    return {pair.key: pair.value.string_value for pair in pairs}
