"""deploy/: the dashboard and the services that show the metrics."""

import json
import re

import pytest
import yaml

from tests.support import http
from tests.support.collector import (
    DURATION,
    ERROR,
    FIRST_CHUNK,
    REJECTED,
    TOKENS,
    Collector,
    Point,
)
from tests.support.http import chat, exchange, request
from tests.support.run_yaml import EXPORTING_METRICS, PROJECT
from tests.support.server import Server
from tests.support.upstream import Upstream
from tests.support.wire import DONE, event, respond, stream

USAGE = {"usage": {"prompt_tokens": 30, "completion_tokens": 12}}
pytestmark = EXPORTING_METRICS

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
