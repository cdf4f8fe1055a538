"""Llama Stack's metrics are recorded for relayed calls and reach a collector."""

from collections.abc import Callable
from dataclasses import dataclass

import httpx
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)

from tests.support.http import (
    CHAT,
    CLAUDE,
    MESSAGES,
    MODEL,
    RESPONSES,
    bearer,
    chat,
    eventually,
    messages,
    responses,
    x_api_key,
)
from tests.support.network import Network
from tests.support.server import Servers, Variation
from tests.support.upstream import Upstream
from tests.support.wire import DONE, RESET, Json, Step, answer, event, stream

DURATION = "duration_seconds"
FIRST = "time_to_first_token_seconds"
RATE = "tokens_per_second"
USAGE = {"usage": {"completion_tokens": 12}}
OTHERS = {"usage": {"input_tokens": 3, "output_tokens": 12}}
STREAM = [event({"n": 1}), event(OTHERS), DONE]

type Labels = frozenset[tuple[str, str]]


@dataclass
class Series:
    """One series of an instrument: how often and how much."""

    count: int = 0
    total: float = 0.0


def labels(**pairs: str) -> Labels:
    """The labels of a series."""
    return frozenset(pairs.items())


class Measured:
    """What the collector has been told since the test began."""

    def __init__(self, upstream: Upstream) -> None:
        """Begin with what it knows now."""
        self._upstream = upstream
        self._before = self._read()

    def _read(self) -> dict[tuple[str, Labels], Series]:
        requests = [x for x in self._upstream.collector.requests if x.complete]
        if not requests:
            return {}
        export = ExportMetricsServiceRequest.FromString(requests[-1].body)
        return {
            (
                metric.name.removeprefix("llama_stack.inference."),
                frozenset((x.key, x.value.string_value) for x in point.attributes),
            ): Series(point.count, point.sum)
            for resource in export.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            for point in metric.histogram.data_points
            if metric.name.startswith("llama_stack.inference.")
        }

    def new(self) -> dict[tuple[str, Labels], Series]:
        """The series that have grown, by how much."""
        grown = {}
        for key, now in self._read().items():
            before = self._before.get(key, Series())
            if now.count > before.count:
                more = now.count - before.count, now.total - before.total
                grown[key] = Series(*more)
        return grown

    def wait(self, count: int = 1) -> dict[tuple[str, Labels], Series]:
        """Wait until so many calls more have been measured; give what has grown."""

        def come() -> dict[tuple[str, Labels], Series]:
            new = self.new()
            calls = sum(s.count for (name, _), s in new.items() if name == DURATION)
            return new if calls >= count else {}

        return eventually(come)


@pytest.fixture(scope="module")
def call(servers: Servers, network: Network) -> Callable[..., httpx.Response]:
    """Call a server that exports what it measures five times a second."""
    variables = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": network.env["COLLECTOR_URL"],
        "OTEL_METRIC_EXPORT_INTERVAL": "200",
    }
    server = servers.get(Variation(env=variables))
    client = servers.client(server, network.trusting)

    def call(path: str, body: Json, headers: dict[str, str]) -> httpx.Response:
        return client.post(path, json=body, headers=headers)

    return call


@pytest.fixture
def measured(upstream: Upstream) -> Measured:
    """What is measured in this test."""
    return Measured(upstream)


CALLS = {
    "chat": (CHAT, chat(), bearer(), MODEL, USAGE),
    "chat, streamed": (CHAT, chat(stream=True), bearer(), MODEL, USAGE),
    "responses": (RESPONSES, responses(stream=True), bearer(), MODEL, OTHERS),
    "messages": (MESSAGES, messages(), x_api_key(), CLAUDE, OTHERS),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_is_measured(
    call: Callable[..., httpx.Response],
    upstream: Upstream,
    measured: Measured,
    name: str,
) -> None:
    """How long it took, how soon a stream began, and how fast its tokens came."""
    path, body, headers, model, usage = CALLS[name]
    streamed = "stream" in body
    steps: list[Step] = [answer(event(usage)[6:])]
    if streamed:
        steps = stream(event({"n": 1}), event(usage), DONE)
    vendor = upstream.anthropic if model == CLAUDE else upstream.openai
    vendor.script(*steps)

    response = call(path, body, headers)

    took = response.elapsed.total_seconds() + 0.5
    own = labels(
        model=model,
        provider=model.partition("/")[0],
        stream=str(streamed).lower(),
        status="success",
    )
    new = measured.wait()
    kinds = {DURATION, RATE} | ({FIRST} if streamed else set())
    assert {key: series.count for key, series in new.items()} == {
        (kind, own): 1 for kind in kinds
    }
    duration = new[DURATION, own].total
    assert 0 < duration < took
    assert new[RATE, own].total * duration == pytest.approx(12)
    if streamed:
        assert 0 < new[FIRST, own].total < duration


FAILED: dict[str, list[Step]] = {
    "answered with an error": [answer(status=500)],
    "broken off": stream(event({"n": 1}), end=RESET),
    "not answered": [RESET],
}


@pytest.mark.parametrize("steps", FAILED.values(), ids=FAILED)
def test_a_streamed_call_that_fails_is_measured_as_such(
    call: Callable[..., httpx.Response],
    upstream: Upstream,
    measured: Measured,
    steps: list[Step],
) -> None:
    """It stays a streamed one, whatever it was answered with."""
    upstream.openai.script(*steps)

    call(CHAT, chat(stream=True), bearer())

    own = labels(model=MODEL, provider="openai", stream="true", status="error")
    assert measured.wait()[DURATION, own].count == 1


def test_models_that_callers_make_up_are_one_series(
    call: Callable[..., httpx.Response], upstream: Upstream, measured: Measured
) -> None:
    """Ten thousand names would fill the limit of series, and drop real ones."""
    upstream.openai.script(answer(), times=3)
    for number in range(3):
        call(CHAT, chat(f"openai/made-up-{number}"), bearer())
    # No call of a provider: it is not measured.
    assert call(CHAT, chat("nobody/m-1"), bearer()).status_code == 404

    own = labels(model="other", provider="openai", stream="false", status="success")
    assert measured.wait(3) == {(DURATION, own): measured.new()[DURATION, own]}
    assert measured.new()[DURATION, own].count == 3
