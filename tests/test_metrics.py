"""Metrics as they reach a collector of OpenTelemetry."""

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import yaml
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)

from lls_openai.context import RequestContext
from lls_openai.server.instruments import error_type
from lls_openai.server.metrics import measure
from tests.support import http
from tests.support.http import CHAT, MODEL, chat, eventually, exchange, request
from tests.support.run_yaml import EXPORTING_METRICS, PROJECT
from tests.support.server import Server
from tests.support.upstream import Upstream
from tests.support.wire import (
    DONE,
    EVENTS,
    JSON,
    RESET,
    Gate,
    Json,
    Step,
    event,
    respond,
    stream,
)

DURATION = "gen_ai.client.operation.duration"
FIRST_CHUNK = "gen_ai.client.operation.time_to_first_chunk"
TOKENS = "gen_ai.client.token.usage"
REJECTED = "lls_openai.request.rejected"

ERROR = "error.type"
TYPE = "gen_ai.token.type"

# The bounds that the conventions name.
SECONDS = [
    0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96,
    81.92,
]  # fmt: skip
TOKEN_BOUNDS = [
    1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216,
    67108864,
]  # fmt: skip


ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
pytestmark = EXPORTING_METRICS


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
    """The exports of one server, as its collector has got them."""

    def __init__(self, upstream: Upstream, path: str) -> None:
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


@pytest.fixture
def collector(running_upstream: Upstream) -> Collector:
    return Collector(running_upstream, "/metrics-test/")


USAGE = {"usage": {"prompt_tokens": 30, "completion_tokens": 12}}
OTHER_USAGE = {"usage": {"input_tokens": 30, "output_tokens": 12}}
FIRST_USAGE = event({"usage": {"prompt_tokens": 1, "completion_tokens": 1}})


@pytest.mark.parametrize(
    ("path", "body", "usage", "operation", "provider"),
    [
        pytest.param(CHAT, chat(), USAGE, "chat", "openai", id="chat"),
        pytest.param(CHAT, chat(stream=True), USAGE, "chat", "openai", id="stream"),
        pytest.param(
            CHAT, chat(http.GEMINI_MODEL), USAGE, "chat", "gcp.gemini", id="gemini"
        ),
        pytest.param(
            http.RESPONSES,
            chat("openai-mini/gpt-4o-mini", stream=True),
            OTHER_USAGE,
            "chat",
            "openai",
            id="responses",
        ),
        pytest.param(
            http.MESSAGES,
            chat(http.CLAUDE_MODEL),
            OTHER_USAGE,
            "chat",
            "anthropic",
            id="messages",
        ),
        pytest.param(
            http.COMPLETIONS,
            chat("openai-mini/gpt-4.1-nano"),
            USAGE,
            "text_completion",
            "openai",
            id="completions",
        ),
    ],
)
def test_call_is_measured_by_the_conventions(
    server: Server,
    collector: Collector,
    upstream: Upstream,
    path: str,
    body: Json,
    usage: Json,
    operation: str,
    provider: str,
) -> None:
    is_stream = "stream" in body
    vendor = getattr(upstream, body["model"].partition("/")[0].removesuffix("-mini"))
    vendor.pause = 0.1
    # The last usage of a stream is its total, also where two arrive together.
    events = stream(event({}), FIRST_USAGE, FIRST_USAGE + event(usage), DONE)
    vendor.script(*(events if is_stream else [respond(http.to_json(usage))]))
    expected = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": provider,
        "gen_ai.request.model": body["model"],
        "server.address": "127.0.0.1",
    }

    def sums() -> dict[tuple[str, str | None], float]:
        return {
            (point.name, point.attributes.get(TYPE)): point.data.sum
            for point in collector.points()
            if expected.items() <= point.attributes.items()
            and ERROR not in point.attributes
        }

    before, began = sums(), time.monotonic()
    exchange(server.port, request(path=path, body=http.to_json(body)))
    keys = {(DURATION, None), (TOKENS, "input"), (TOKENS, "output")}
    keys |= {(FIRST_CHUNK, None)} if is_stream else set()

    def measured() -> dict[tuple[str, str | None], float]:
        new = {key: total - before.get(key, 0) for key, total in sums().items()}
        new = {key: total for key, total in new.items() if total}
        # An export may begin while the call is being recorded.
        return new if keys <= new.keys() else {}

    new = eventually(measured, "the call is measured")
    duration = new.pop((DURATION, None))
    assert 0 < duration < time.monotonic() - began
    if is_stream:
        assert 0.1 < new.pop((FIRST_CHUNK, None)) < duration - 0.1
    assert new == {(TOKENS, "input"): 30, (TOKENS, "output"): 12}


def test_histograms_have_the_units_and_buckets_of_the_conventions(
    server: Server, collector: Collector, upstream: Upstream
) -> None:
    upstream.openai.script(*stream(event(USAGE), DONE))
    exchange(server.port, request(body=http.to_json(chat(stream=True))))
    collector.wait(TOKENS)

    points = {p.name: p for p in collector.points() if p.name.startswith("gen_ai.")}
    assert {name: point.unit for name, point in points.items()} == {
        DURATION: "s",
        FIRST_CHUNK: "s",
        TOKENS: "{token}",
    }
    for name, point in points.items():
        bounds = TOKEN_BOUNDS if name == TOKENS else SECONDS
        assert list(point.data.explicit_bounds) == bounds
        assert sum(point.data.bucket_counts) == point.data.count
        assert point.data.min <= point.data.sum / point.data.count <= point.data.max


@pytest.mark.parametrize(
    ("error", "steps"),
    [
        pytest.param("503", [respond(status=503)], id="upstream's-status"),
        pytest.param("upstream_unreachable", [RESET], id="no-response"),
        pytest.param(
            "upstream_disconnected", stream(event({}), end=RESET), id="half-a-stream"
        ),
    ],
)
def test_failed_call_has_its_error_type(
    server: Server,
    collector: Collector,
    upstream: Upstream,
    error: str,
    steps: list[Step],
) -> None:
    upstream.openai.script(*steps)
    exchange(server.port, request(body=http.to_json(chat(stream=True))))

    (point,) = collector.wait(DURATION, attribute=(ERROR, error))
    assert point.attributes["gen_ai.request.model"] == MODEL


QUOTED = event({"text": 'data: [DONE]\n\n "type": "message_stop" response.completed'})


@pytest.mark.parametrize(
    ("path", "headers", "events", "error"),
    [
        pytest.param(CHAT, EVENTS, [event({}), DONE], None, id="chat"),
        pytest.param(CHAT, JSON, [event({}) + DONE], None, id="chat-as-json"),
        pytest.param(CHAT, EVENTS, [QUOTED], "499", id="chat-unfinished"),
        pytest.param(
            http.MESSAGES,
            EVENTS,
            [event({}), event({"type": "message_stop"}, "message_stop")],
            None,
            id="messages",
        ),
        pytest.param(http.MESSAGES, EVENTS, [QUOTED], "499", id="messages-unfinished"),
        pytest.param(
            http.RESPONSES,
            EVENTS,
            [event({}), event({"type": "response.completed"}, "response.completed")],
            None,
            id="responses",
        ),
        pytest.param(
            http.RESPONSES, EVENTS, [QUOTED], "499", id="responses-unfinished"
        ),
    ],
)
def test_stream_whose_client_disconnects_is_a_success_after_its_last_event(
    server: Server,
    collector: Collector,
    upstream: Upstream,
    path: str,
    headers: Json,
    events: list[bytes],
    error: str | None,
) -> None:
    """The OpenAI SDKs do so before the upstream's end of body."""

    def numbers() -> dict[str | None, int]:
        return {
            point.attributes.get(ERROR): point.number
            for point in collector.points(DURATION)
            if point.attributes["gen_ai.request.model"] == MODEL
        }

    collector.wait_export()
    before = numbers()
    upstream.openai.script(*stream(*events, Gate(), headers=headers))
    body = chat(stream=True)
    with server.client.stream(
        "POST", path, json=body, headers=http.bearer()
    ) as response:
        received, pieces = b"", response.iter_raw()
        while received != b"".join(events):
            received += next(pieces)

    assert upstream.openai.requests[-1].disconnected.wait(5)
    request_id = response.headers["x-request-id"]
    (entry,) = server.wait_access_log(request_id=request_id)
    assert (entry["status"], entry["code"]) == (200, None)
    eventually(
        lambda: numbers() == before | {error: before.get(error, 0) + 1},
        f"one more call is measured with the error {error}",
    )


@pytest.mark.parametrize(
    ("context", "expected"),
    [
        pytest.param(RequestContext(status=200, success=True), None, id="success"),
        pytest.param(RequestContext(), "499", id="disconnect-before-response"),
        pytest.param(RequestContext(status=200), "499", id="disconnect-in-response"),
        pytest.param(RequestContext(status=429), "429", id="upstream's-error"),
        pytest.param(RequestContext(status=503, code="a"), "a", id="own-error"),
    ],
)
def test_error_type_is_a_code_or_a_status(
    context: RequestContext, expected: str | None
) -> None:
    assert error_type(context) == expected


def test_unlisted_models_are_one_series(
    server: Server, collector: Collector, upstream: Upstream
) -> None:
    """A client can invent any number of names."""
    upstream.openai.script(respond(), times=2)
    for name in ("openai/invented-1", "openai/invented-2"):
        exchange(server.port, request(body=http.to_json(chat(name))))

    points = collector.wait(DURATION, 2, ("gen_ai.request.model", "other"))
    assert [point.number for point in points] == [2]
    assert b"invented" not in collector.exports()[-1]


def test_request_that_calls_no_upstream_is_counted_as_rejected(
    server: Server, collector: Collector
) -> None:
    exchange(server.port, request(body=http.to_json(chat("nobody/m-1"))))

    (point,) = collector.wait(REJECTED, attribute=(ERROR, "model_not_found"))
    assert point.attributes == {"error.type": "model_not_found"}
    assert b"nobody" not in collector.exports()[-1]


def test_connections_and_bytes_in_flight_are_reported(
    server: Server, collector: Collector, upstream: Upstream
) -> None:
    gate = Gate()
    upstream.openai.script(gate, respond())
    body = http.to_json(chat(padding="x" * 100_000))
    with http.RawConnection(server.port) as client:
        client.send(request(body=body))
        gate.wait_reached()
        in_flight = collector.wait("lls_openai.request.body.in_flight", len(body))
        assert in_flight[0].number == len(body)
        assert collector.wait("lls_openai.client.connections")
        gate.open()
    eventually(
        lambda: collector.points("lls_openai.request.body.in_flight")[0].number == 0,
        "the bytes are released",
    )
    assert collector.points("lls_openai.log.dropped")[0].number == 0


def test_export_names_the_process_and_nothing_but_its_own_metrics(
    server: Server, collector: Collector
) -> None:
    """Llama Stack's and FastAPI's request metrics would measure each call again."""
    (resource,) = collector.last().resource_metrics
    attributes = {e.key: e.value.string_value for e in resource.resource.attributes}

    assert attributes["service.name"] == "lls-openai"
    assert attributes["deployment.environment"] == "test"
    assert len(attributes["service.instance.id"]) == 36
    exchange(server.port, http.HEALTH_REQUEST)
    names = {point.name for point in collector.points()}
    assert {name.partition(".")[0] for name in names} <= {"gen_ai", "lls_openai"}


@pytest.mark.parametrize(
    (),
    [
        pytest.param(
            marks=pytest.mark.server(env={ENDPOINT: "$REFUSED_URL"}),
            id="refuses-connections",
        ),
        pytest.param(
            marks=pytest.mark.server(env={ENDPOINT: "$UNRESPONSIVE_URL"}),
            id="does-not-respond",
        ),
    ],
)
def test_dead_collector_delays_shutdown_by_less_than_2_seconds(server: Server) -> None:
    exchange(server.port, request(body=http.to_json(chat())))

    began = time.monotonic()
    os.kill(server.pid, signal.SIGTERM)
    assert server.wait_exit() == 0
    # With a second for the shutdown itself, on a busy machine.
    assert time.monotonic() - began < 3


@pytest.mark.server(env={ENDPOINT: "$COLLECTOR_URL/stopped"})
def test_last_export_follows_the_last_call(server: Server, upstream: Upstream) -> None:
    exchange(server.port, request(body=http.to_json(chat())))
    os.kill(server.pid, signal.SIGTERM)
    assert server.wait_exit() == 0

    (point,) = Collector(upstream, "/stopped/").points(DURATION)
    assert point.number == 1


def test_without_a_collector_nothing_is_measured() -> None:
    context = RequestContext(model=MODEL, provider="unknown")

    measure(context)


# The names of Prometheus: https://opentelemetry.io/docs/specs/otel/compatibility.
_SUFFIXES = {"s": "_seconds", "By": "_bytes"}
# Labels that Prometheus adds.
_ADDED_LABELS = {"instance", "job", "le"}
_QUERIES = [
    pytest.param(target["expr"], id=panel["title"])
    for panel in json.loads((PROJECT / "deploy/grafana.json").read_text())["panels"]
    for target in panel["targets"]
]


def _prometheus_labels(points: list[Point]) -> dict[str, set[str]]:
    """Return the labels of each metric, by its names in Prometheus."""
    labels: dict[str, set[str]] = {}
    for point in points:
        name = point.name.replace(".", "_") + _SUFFIXES.get(point.unit, "")
        if point.name.startswith("gen_ai."):
            names = [name + suffix for suffix in ("_bucket", "_count", "_sum")]
        else:
            names = [f"{name}_total" if point.is_counter else name]
        for each in names:
            own = {key.replace(".", "_") for key in point.attributes}
            labels.setdefault(each, set()).update(own)
    return labels


@pytest.mark.parametrize("query", _QUERIES)
def test_dashboard_queries_exported_metrics_and_labels(
    server: Server, collector: Collector, upstream: Upstream, query: str
) -> None:
    upstream.openai.script(*stream(event(USAGE), DONE))
    upstream.openai.script(respond(status=503))
    for body in (chat(stream=True), chat(), chat("nobody/m-1")):
        exchange(server.port, request(body=http.to_json(body)))
    for name in (REJECTED, FIRST_CHUNK, TOKENS):
        collector.wait(name)
    collector.wait(DURATION, attribute=(ERROR, "503"))
    exported = _prometheus_labels(collector.points())

    names = set(re.findall(r"\b(?:gen_ai|lls_openai)_\w+", query)) & exported.keys()
    grouping = ", ".join(re.findall(r"by \(([^)]*)\)", query)).split(", ")
    matched = re.findall(r"(\w+)(?:=~|!=|=)\"", query)
    assert len(names) == 1, f"{query} names no metric of {sorted(exported)}"
    used = {label for label in [*grouping, *matched] if label}
    assert used <= exported[names.pop()] | _ADDED_LABELS


def test_every_exported_metric_is_on_the_dashboard(
    server: Server, collector: Collector
) -> None:
    exchange(server.port, http.HEALTH_REQUEST)
    text = (PROJECT / "deploy/grafana.json").read_text()

    for name in {point.name.replace(".", "_") for point in collector.points()}:
        assert name in text


def test_metrics_services_are_connected_to_each_other() -> None:
    """From the port that the page names to the dashboard."""
    compose = yaml.safe_load((PROJECT / "deploy/metrics.yaml").read_text())
    configs = {
        name: yaml.safe_load(config["content"])
        for name, config in compose["configs"].items()
    }
    collector, prometheus = configs["collector"], configs["prometheus"]
    services = compose["services"]

    receiving = collector["receivers"]["otlp"]["protocols"]["http"]["endpoint"]
    assert receiving.endswith(":4318")
    assert services["collector"]["ports"] == ["127.0.0.1:4318:4318"]
    exporting_port = collector["exporters"]["prometheus"]["endpoint"].split(":")[1]
    (scrape,) = prometheus["scrape_configs"]
    assert scrape["static_configs"] == [{"targets": [f"collector:{exporting_port}"]}]
    (source,) = configs["datasource"]["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (mounted,) = services["grafana"]["volumes"]
    assert mounted == "./grafana.json:/dashboards/grafana.json:ro"
    used = {c["source"] for service in services.values() for c in service["configs"]}
    assert used == configs.keys()
