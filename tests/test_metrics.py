"""Llama Stack's metrics are recorded for relayed calls and reach a collector."""

import time

import httpx
import pytest

from tests.calls import call, chat, open_call
from tests.endpoint import Endpoint
from tests.measurements import Measurement, measured
from tests.scripts import DONE, Ending, answering, streaming
from tests.server import Server
from tests.upstream import Gate, Upstream

pytest_plugins = ["tests.variants"]

DURATION = "inference.duration_seconds"
FIRST_TOKEN = "inference.time_to_first_token_seconds"  # noqa: S105 - a metric's name
RATE = "inference.tokens_per_second"
USAGE = b'{"usage":{"prompt_tokens":3,"completion_tokens":12}}'

FAILING = {
    "error": answering(status=500),
    "stream-broken": streaming(b"data: 1\n\n", ending=Ending.RESET),
    "nothing": streaming(ending=Ending.RESET),
}


def _wait_for(collector: Endpoint, name: str, **about: str) -> Measurement:
    """Wait for the one series that is about this, and give it."""
    collector.wait_until(lambda: bool(measured(collector, name, **about)))
    (series,) = measured(collector, name, **about)
    return series


def test_a_regular_call_is_measured(
    various_server: Server,
    upstream: Upstream,
    http: httpx.Client,
    collector: Endpoint,
) -> None:
    """How long it took and how fast its tokens came, by model and provider."""
    upstream.openai.answer_with(answering(USAGE))
    model = "openai/measured-regular"
    began = time.monotonic()

    call(http, various_server.url, chat(model))

    took = time.monotonic() - began
    duration = _wait_for(collector, DURATION, model=model)
    rate = _wait_for(collector, RATE, model=model)
    about = {"model": model, "provider": "openai", "stream": "false"}
    about["status"] = "success"
    assert (about, 1, about, 1) == (
        duration.attributes,
        duration.count,
        rate.attributes,
        rate.count,
    )
    assert 0 < duration.total <= took
    assert rate.total * duration.total == pytest.approx(12)
    assert measured(collector, FIRST_TOKEN, model=model) == []


def test_a_streamed_call_is_measured(
    various_server: Server,
    upstream: Upstream,
    http: httpx.Client,
    collector: Endpoint,
) -> None:
    """The time to the first token as well, which is not the time to the last."""
    gate = Gate()
    usage = b"data: " + USAGE + b"\n\n"
    upstream.openai.answer_with(streaming(b"data: 1\n\n", gate, usage, DONE))
    model = "openai/measured-stream"

    with open_call(http, various_server.url, chat(model, stream=True)) as stream:
        stream.read(1)
        first_seen = time.monotonic()
        gate.open()
        stream.rest()

    first = _wait_for(collector, FIRST_TOKEN, model=model)
    duration = _wait_for(collector, DURATION, model=model)
    rate = _wait_for(collector, RATE, model=model)
    about = {"model": model, "provider": "openai", "stream": "true"}
    about["status"] = "success"
    assert [(about, 1)] * 3 == [
        (series.attributes, series.count) for series in (first, duration, rate)
    ]
    assert 0 < first.total < duration.total
    assert rate.total * duration.total == pytest.approx(12)
    assert duration.total < first.total + time.monotonic() - first_seen


@pytest.mark.parametrize("name", FAILING)
def test_a_call_that_fails_is_measured_as_such(
    various_server: Server,
    upstream: Upstream,
    http: httpx.Client,
    collector: Endpoint,
    name: str,
) -> None:
    """An error of the upstream, and a stream that broke off."""
    upstream.openai.answer_with(FAILING[name])
    model = f"openai/measured-{name}"

    call(http, various_server.url, chat(model))

    duration = _wait_for(collector, DURATION, model=model)
    assert (duration.attributes["status"], duration.count) == ("error", 1)


def test_a_call_that_is_left_is_measured_as_failed(
    various_server: Server,
    upstream: Upstream,
    http: httpx.Client,
    collector: Endpoint,
) -> None:
    """As the router does it."""
    upstream.openai.answer_with(streaming(b"data: 1\n\n", Gate()))
    model = "openai/measured-left"

    with open_call(http, various_server.url, chat(model)) as stream:
        stream.read(1)
        stream.leave()

    duration = _wait_for(collector, DURATION, model=model)
    assert (duration.attributes["status"], duration.count) == ("error", 1)


@pytest.mark.parametrize("status", [299, 418])
def test_a_request_is_counted(
    various_server: Server,
    upstream: Upstream,
    http: httpx.Client,
    collector: Endpoint,
    status: int,
) -> None:
    """By API, method and status; a status that no other call has makes it one."""
    upstream.openai.answer_with(answering(status=status))

    call(http, various_server.url, chat())

    counted = _wait_for(collector, "requests_total", status_code=str(status))
    expected = {
        "api": "inference",
        "method": "openai_chat_completion",
        "status": "success" if status == 299 else "error",
        "status_code": str(status),
    }
    assert (expected, 1) == (counted.attributes, counted.count)


def test_requests_are_timed_and_those_underway_known(
    various_server: Server, upstream: Upstream, http: httpx.Client, collector: Endpoint
) -> None:
    """A stream counts as underway until its end."""
    gate = Gate()
    upstream.openai.answer_with(streaming(b"data: 1\n\n", gate, DONE))

    def underway() -> int:
        series = measured(collector, "concurrent_requests", api="inference")
        return series[0].count if series else 0

    with open_call(http, various_server.url, chat(stream=True)) as stream:
        stream.read(1)
        collector.wait_until(lambda: underway() == 1)
        gate.open()
        stream.rest()
    collector.wait_until(lambda: underway() == 0)

    timed = _wait_for(
        collector,
        "request_duration_seconds",
        api="inference",
        method="openai_chat_completion",
    )
    assert timed.count > 0


def test_only_chat_completions_are_measured(
    various_server: Server,
    upstream: Upstream,
    http: httpx.Client,
    collector: Endpoint,
) -> None:
    """As the router does: one histogram holds no durations of other routes."""
    upstream.openai.answer_with(answering(USAGE))
    other = "openai/measured-not"

    call(http, various_server.url, chat(other), route="/v1/completions")
    call(http, various_server.url, chat("openai/measured-after"))

    _wait_for(collector, DURATION, model="openai/measured-after")
    assert measured(collector, DURATION, model=other) == []
