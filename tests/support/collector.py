"""A collector of OpenTelemetry, and the data points that it has received."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)

from tests.support.http import eventually
from tests.support.upstream import Upstream

DURATION = "gen_ai.client.operation.duration"
FIRST_CHUNK = "gen_ai.client.operation.time_to_first_chunk"
TOKENS = "gen_ai.client.token.usage"
REJECTED = "lls_openai.request.rejected"

ERROR = "error.type"


class Point(NamedTuple):
    """A data point with the name, unit and attributes of its series."""

    name: str
    unit: str
    is_counter: bool
    attributes: dict[str, str]
    data: Any

    @property
    def number(self) -> int:
        """How many values a histogram has counted, or a counter's value."""
        return int(getattr(self.data, "count", 0) or getattr(self.data, "as_int", 0))


class Collector:
    """The exports of one server, by default `EXPORTING_METRICS`, as they arrived."""

    def __init__(self, upstream: Upstream, path: str = "/metrics-test/") -> None:
        self._requests = upstream.collector.requests
        self._path = path

    def exports(self) -> list[bytes]:
        own = [each for each in self._requests if self._path in each.path]
        return [each.body for each in own if each.complete]

    def last(self) -> ExportMetricsServiceRequest:
        exports = eventually(self.exports, "an export")
        export: ExportMetricsServiceRequest
        export = ExportMetricsServiceRequest.FromString(exports[-1])
        return export

    def wait_export(self) -> None:
        """Wait for an export that has all calls so far."""
        number = len(self.exports()) + 2
        eventually(lambda: len(self.exports()) >= number, "another export")

    def points(self, name: str | None = None) -> list[Point]:
        """Return the points of the last export, or those with this name."""
        return [p for p in _points(self.last()) if name in (None, p.name)]

    def wait(
        self, name: str, number: int = 1, attribute: tuple[str, str] | None = None
    ) -> list[Point]:
        """Wait for points with this attribute that have this number together."""

        def counted() -> list[Point]:
            points = self.points(name)
            if attribute:
                points = [p for p in points if attribute in p.attributes.items()]
            return points if sum(p.number for p in points) >= number else []

        return eventually(counted, f"{number} in {name} with {attribute}")


def _points(export: ExportMetricsServiceRequest) -> Iterator[Point]:
    (resource,) = export.resource_metrics
    for metric in (m for scope in resource.scope_metrics for m in scope.metrics):
        for point in getattr(metric, metric.WhichOneof("data")).data_points:
            attributes = {
                each.key: each.value.string_value for each in point.attributes
            }
            is_counter = metric.sum.is_monotonic
            yield Point(metric.name, metric.unit, is_counter, attributes, point)
