"""Llama Stack's metrics are recorded for relayed calls and reach a collector."""

from collections import Counter
from collections.abc import Callable

import httpx
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)

from tests.support import http
from tests.support.http import CHAT, CLAUDE, MODEL, bearer, chat, eventually
from tests.support.network import Network
from tests.support.server import Servers, Variation
from tests.support.upstream import Upstream
from tests.support.wire import DONE, RESET, Step, answer, event, stream

DURATION = "duration_seconds"
FIRST = "time_to_first_token_seconds"
RATE = "tokens_per_second"
USAGE = {"usage": {"completion_tokens": 12}}
OTHERS = {"usage": {"input_tokens": 3, "output_tokens": 12}}

type Call = Callable[..., httpx.Response]
type Labels = frozenset[tuple[str, str]]
# Counts and sums of each series: its instrument and its labels.
type Seen = Counter[tuple[str, Labels, str]]


def labels(
    model: str = MODEL, stream: str = "false", status: str = "success"
) -> Labels:
    """The labels of a series."""
    provider = "anthropic" if model == CLAUDE else "openai"
    pairs = {"model": model, "provider": provider, "stream": stream, "status": status}
    return frozenset(pairs.items())


def read(upstream: Upstream) -> Seen:
    """What the collector has been told by now."""
    seen: Seen = Counter()
    exports = [each.body for each in upstream.collector.requests if each.complete]
    for resource in ExportMetricsServiceRequest.FromString(
        exports[-1] if exports else b""
    ).resource_metrics:
        for metric in (m for s in resource.scope_metrics for m in s.metrics):
            name = metric.name.removeprefix("llama_stack.inference.")
            for point in metric.histogram.data_points if name != metric.name else ():
                own = frozenset((x.key, x.value.string_value) for x in point.attributes)
                seen[name, own, "count"] = point.count
                seen[name, own, "sum"] = point.sum
    return seen


@pytest.fixture(scope="module")
def call(servers: Servers, network: Network) -> Call:
    """Call a server that exports what it measures five times a second."""
    variables = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": network.env["COLLECTOR_URL"],
        "OTEL_METRIC_EXPORT_INTERVAL": "200",
    }
    client = servers.client(servers.get(Variation(env=variables)), network.trusting)
    return lambda path, body, key: client.post(path, json=body, headers=key)


@pytest.fixture
def measured(upstream: Upstream) -> Callable[..., Seen]:
    """Wait until so many calls have been measured in this test; give what is new."""
    before = read(upstream)

    def wait(calls: int = 1) -> Seen:
        def come() -> Seen:
            new = read(upstream) - before
            count = sum(
                n
                for (name, _, of), n in new.items()
                if (name, of) == (DURATION, "count")
            )
            return new if count >= calls else Counter()

        return eventually(come)

    return wait


CALLS = {
    "chat": (CHAT, chat(), bearer(), MODEL, USAGE),
    "a stream": (CHAT, chat(stream=True), bearer(), MODEL, USAGE),
    "responses": (http.RESPONSES, http.responses(stream=True), bearer(), MODEL, OTHERS),
    "messages": (http.MESSAGES, http.messages(), http.x_api_key(), CLAUDE, OTHERS),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_is_measured(
    call: Call, upstream: Upstream, measured: Callable[..., Seen], name: str
) -> None:
    """How long it took, how soon a stream began, and how fast its tokens came."""
    path, body, key, model, usage = CALLS[name]
    streamed = "stream" in body
    whole: list[Step] = [answer(event(usage)[6:])]
    vendor = upstream.anthropic if model == CLAUDE else upstream.openai
    vendor.pause = 0.1
    # The last count is the one that holds.
    last = event({"usage": {"completion_tokens": 1}}) + event(usage)
    vendor.script(*(stream(event({}), last, DONE) if streamed else whole))

    took = call(path, body, key).elapsed.total_seconds()

    new, own = measured(), labels(model, str(streamed).lower())
    assert {
        (kind, of): n for (kind, of, what), n in new.items() if what == "count"
    } == {(kind, own): 1 for kind in (DURATION, RATE, FIRST)[: 2 + streamed]}
    assert 0 < new[DURATION, own, "sum"] < took + 1
    assert new[FIRST, own, "sum"] < new[DURATION, own, "sum"] / 2
    rate = new[RATE, own, "sum"] * new[DURATION, own, "sum"]
    assert rate == pytest.approx(12)


@pytest.mark.parametrize(
    "steps", [[answer(status=500)], stream(event({}), end=RESET), [RESET]]
)
def test_a_streamed_call_that_fails_is_measured_as_such(
    call: Call, upstream: Upstream, measured: Callable[..., Seen], steps: list[Step]
) -> None:
    """It stays a streamed one, whatever it was answered with."""
    upstream.openai.script(*steps)

    call(CHAT, chat(stream=True), bearer())

    assert measured()[DURATION, labels(MODEL, "true", "error"), "count"] == 1


def test_models_that_callers_make_up_are_one_series(
    call: Call, upstream: Upstream, measured: Callable[..., Seen]
) -> None:
    """Ten thousand names would fill the limit of series, and drop real ones."""
    upstream.openai.script(answer(), times=3)
    for number in range(3):
        call(CHAT, chat(f"openai/made-up-{number}"), bearer())
    # This is no call of a provider, and is not measured.
    call(CHAT, chat("nobody/m-1"), bearer())

    new = measured(3)
    assert {of for _, of, _ in new} == {labels("other")}
    assert new[DURATION, labels("other"), "count"] == 3
