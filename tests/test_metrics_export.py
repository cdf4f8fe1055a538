"""The export of metrics: instruments, resource, and the last one at a shutdown."""

import os
import signal
import time

import pytest

from lls_openai.context import RequestContext
from lls_openai.server.metrics import measure
from tests.support import http
from tests.support.collector import DURATION, FIRST_CHUNK, TOKENS, Collector
from tests.support.http import MODEL, chat, eventually, exchange, request
from tests.support.run_yaml import EXPORTING_METRICS
from tests.support.server import Server
from tests.support.upstream import Upstream
from tests.support.wire import DONE, Gate, event, respond, stream

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
USAGE = {"usage": {"prompt_tokens": 30, "completion_tokens": 12}}
pytestmark = EXPORTING_METRICS


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
