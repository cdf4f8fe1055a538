"""Histograms that cost a call next to nothing, in what OpenTelemetry exports.

The SDK's own histogram takes 10 us for each value with four attributes, which would be
30 us a call. These count in plain lists; the exporter adds them to the metrics that the
SDK has collected.
"""

import time
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    HistogramDataPoint,
    Metric,
    MetricExportResult,
    MetricsData,
    ResourceMetrics,
)
from opentelemetry.sdk.metrics.export import Histogram as HistogramData

# The values that tell a series from others; `attributes` in `Histogram` names them.
type Series = tuple[str | None, ...]


class _Buckets:
    __slots__ = ("counts", "largest", "smallest", "total")

    def __init__(self, size: int) -> None:
        self.counts = [0] * size
        self.total = self.largest = 0.0
        self.smallest = float("inf")


class Histogram:
    """Counts values by series and by bucket.

    Args:
        name: the metric's.
        unit: the metric's.
        description: the metric's.
        bounds: the upper bounds of the buckets, each inclusive; one more is unbounded.
    """

    def __init__(
        self, name: str, unit: str, description: str, bounds: Sequence[float]
    ) -> None:
        self._name, self._unit, self._description = name, unit, description
        self._bounds = bounds
        self._series: dict[Series, _Buckets] = {}
        self._start = time.time_ns()

    def record(self, series: Series, value: float) -> None:
        """Count one value; call it in one thread only."""
        buckets = self._series.get(series)
        if buckets is None:
            buckets = self._series[series] = _Buckets(len(self._bounds) + 1)
        buckets.counts[bisect_left(self._bounds, value)] += 1
        buckets.total += value
        # `max` and `min` would double the cost of the whole method.
        if value > buckets.largest:  # noqa: PLR1730 (see above)
            buckets.largest = value
        if value < buckets.smallest:  # noqa: PLR1730 (see above)
            buckets.smallest = value

    def read(self, attributes: Callable[[Series], Mapping[str, str]]) -> Metric:
        """Return all values so far; any thread may call it."""
        now = time.time_ns()
        points = [
            HistogramDataPoint(
                attributes=attributes(series),
                start_time_unix_nano=self._start,
                time_unix_nano=now,
                count=sum(counts := [*buckets.counts]),
                sum=buckets.total,
                bucket_counts=counts,
                explicit_bounds=self._bounds,
                min=buckets.smallest,
                max=buckets.largest,
            )
            # A copy, since calls add series meanwhile.
            for series, buckets in self._series.copy().items()
        ]
        data = HistogramData(points, AggregationTemporality.CUMULATIVE)
        return Metric(self._name, self._description, self._unit, data)


class HistogramExporter(OTLPMetricExporter):
    """Exports histograms together with the metrics that the SDK collects.

    Args:
        read: returns the histograms.
    """

    def __init__(self, read: Callable[[], list[Metric]]) -> None:
        super().__init__()
        self._read = read

    def export(
        self,
        metrics_data: MetricsData,
        timeout_millis: float | None = 10_000,
        **kwargs: Any,  # noqa: ANN401 (the base class's)
    ) -> MetricExportResult:
        """Send what the SDK has collected, and the histograms."""
        resources = [self._extended(each) for each in metrics_data.resource_metrics]
        return super().export(MetricsData(resources), timeout_millis, **kwargs)

    def _extended(self, resource: ResourceMetrics) -> ResourceMetrics:
        """Add the histograms to the metrics of the first scope, which is ours."""
        own, *others = resource.scope_metrics
        metrics = [*own.metrics, *(m for m in self._read() if m.data.data_points)]
        return replace(resource, scope_metrics=[replace(own, metrics=metrics), *others])
