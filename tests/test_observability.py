"""What is told of a call: one access line, and Llama Stack's metrics at a collector."""

import logging
import re
import time
from collections import Counter
from collections.abc import Callable

import httpx
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)

from lls_openai.server.access_log import set_up_logs
from tests.support import http, wire
from tests.support.http import CHAT, MODEL, bearer, chat, exchange, request, to_json
from tests.support.network import Network
from tests.support.run_yaml import DEBUG_LOGGING, Variation
from tests.support.server import Server, Servers
from tests.support.upstream import Upstream
from tests.support.wire import DONE, RESET, Gate, Json, Step, event, respond, stream

RELAYED = {"model": MODEL, "provider": "openai"}


def line_of(server: Server, response: httpx.Response) -> Json:
    (line,) = server.wait_access_log(request_id=response.headers["x-request-id"])
    return line


def test_a_relayed_call_is_a_line(
    server: Server, client: httpx.Client, upstream: Upstream
) -> None:
    gate, path, began = Gate(), f"{CHAT}?key=in-a-query", time.monotonic()
    upstream.openai.script(*stream(wire.FIRST_EVENT, gate, DONE))
    body = chat(stream=True)
    with client.stream("POST", path, json=body, headers=bearer()) as response:
        next(pieces := response.iter_raw())
        # The first byte is here: what comes now is none of its time.
        time.sleep(0.1)
        gate.open()
        assert DONE in b"".join(pieces)

    line = line_of(server, response)
    expected = {"level": "info", "method": "POST", "path": CHAT, "status": 200}
    assert line.items() >= (expected | RELAYED).items()
    took = (time.monotonic() - began) * 1000
    assert 0 < line["first_byte_ms"] < line["ms"] - 90 < took - 90
    assert re.fullmatch(r"127\.0\.0\.1:\d+", line["client"])
    assert re.fullmatch(r"[\d-]{10}T[\d:]{8}\.\d{6}Z", line["timestamp"])
    assert line["code"] is None
    assert "in-a-query" not in server.log
    assert "color_message" not in server.log
    # From the greeting on.
    lines = server.read("stderr").partition("lls-openai ")[2].splitlines()[1:]
    assert [x for x in lines if not (x[:1] == "{" and x[-1:] == "}")] == []


def test_an_error_of_the_servers_own_has_its_code(
    server: Server, client: httpx.Client, upstream: Upstream
) -> None:
    upstream.openai.script(respond(status=502))
    sent = [
        (401, "missing_api_key", client.post(CHAT, json=chat())),
        (404, "model_not_found", client.post(CHAT, json=chat("a/b"), headers=bearer())),
        (404, "unknown_route", client.get("/chat/completions")),
        (502, None, client.post(CHAT, json=chat(), headers=bearer())),
    ]

    for status, code, response in sent:
        line = line_of(server, response)
        assert (line["status"], line["code"]) == (status, code)
        for name in ("model", "provider", "first_byte_ms"):
            assert (line[name] is None) == bool(code)


@pytest.mark.parametrize(("lacking", "told"), [(0, RELAYED), (1, {"model": None})])
def test_who_leaves_before_the_answer_is_499(
    server: Server, upstream: Upstream, lacking: int, told: Json
) -> None:
    """As nginx has it. A body of which only a space is lacking is not relayed."""
    upstream.openai.script(Gate())
    before = [line for line in server.access_log() if line["status"] == 499]
    sent = request(body=http.CHAT_BODY + b" " * lacking).removesuffix(b" ")
    with http.RawConnection(server.port) as raw:
        raw.send(sent)
        if not lacking:
            upstream.openai.wait_requests()

    line = server.wait_access_log(len(before) + 1, status=499)[-1]
    assert line.items() >= told.items()


@DEBUG_LOGGING
@pytest.mark.usefixtures("upstream")
def test_a_person_gets_columns(server: Server, client: httpx.Client) -> None:
    response = client.post(CHAT, json=chat(), headers=bearer())
    exchange(server.port, request(b"GET", "/v1/%1b%5b31m%0a"))

    http.eventually(
        lambda: r"  GET    /v1/\u001b[31m\n  " in server.log,
        "the path is logged, escaped",
    )
    own = response.headers["x-request-id"]
    (line,) = [x for x in server.log.splitlines() if own in x and " ms " in x]
    facts = rf"200 +[\d.]+ ms  POST   {CHAT} +{MODEL}  127\.0\.0\.1:\d+  {own}"
    assert re.fullmatch(rf"\d\d:\d\d:\d\d  {facts}", line)


def test_a_start_that_fails_is_news(caplog: pytest.LogCaptureFixture) -> None:
    """What uvicorn tells of a start is left out only where that goes well."""
    set_up_logs()
    for line in ("complete.", "failed. Exiting."):
        logging.getLogger("uvicorn.error").error("Application startup %s", line)

    assert caplog.messages == ["Application startup failed. Exiting."]


DURATION = "llama_stack.inference.duration_seconds"
FIRST = "llama_stack.inference.time_to_first_token_seconds"
RATE = "llama_stack.inference.tokens_per_second"
KINDS = DURATION, RATE, FIRST

# Counts and sums: of an instrument for a model, provider, status, and stream or not.
type Seen = Counter[tuple[str, ...]]


def last_export(upstream: Upstream) -> bytes:
    """Of this server; that of another test's may go on."""
    own = [each for each in upstream.collector.requests if "/measured/" in each.path]
    return next((each.body for each in reversed(own) if each.complete), b"")


def exported(upstream: Upstream) -> Seen:
    seen: Seen = Counter()
    told = ExportMetricsServiceRequest.FromString(last_export(upstream))
    for metric in (
        m for r in told.resource_metrics for s in r.scope_metrics for m in s.metrics
    ):
        points = metric.histogram.data_points if metric.name in KINDS else ()
        for point in points:
            labels = sorted((x.key, x.value.string_value) for x in point.attributes)
            own = metric.name, *(value for _, value in labels)
            seen["count", *own], seen["sum", *own] = point.count, point.sum
    return seen


@pytest.fixture(scope="module")
def exporting(servers: Servers, network: Network) -> Server:
    url = f"{network.env['COLLECTOR_URL']}/measured"
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_METRIC_EXPORT_INTERVAL": "200"}
    return servers.get(Variation(env=env))


@pytest.fixture
def measured(exporting: Server, upstream: Upstream) -> Callable[..., Seen]:
    """Make calls, and give what is new once so many have been measured."""

    def measure(*bodies: Json, path: str = CHAT) -> Seen:
        def come() -> Seen:
            new = exported(upstream) - before
            count = sum(n for key, n in new.items() if key[:2] == ("count", DURATION))
            return new if count >= len(bodies) else Counter()

        before = exported(upstream)
        for body in bodies:
            exchange(exporting.port, request(path=path, body=to_json(body)))
        return http.eventually(come, f"{len(bodies)} calls are measured")

    return measure


USAGE = {"usage": {"completion_tokens": 12}}
OTHERS = {"usage": {"input_tokens": 3, "output_tokens": 12}}
CALLS = {
    "chat": (CHAT, chat(), USAGE),
    "a stream": (CHAT, chat(stream=True), USAGE),
    "responses": (http.RESPONSES, chat(stream=True), OTHERS),
    "messages": (http.MESSAGES, chat(http.CLAUDE_MODEL), OTHERS),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_is_measured(
    upstream: Upstream, measured: Callable[..., Seen], name: str
) -> None:
    path, body, usage = CALLS[name]
    is_stream, provider = "stream" in body, body["model"].partition("/")[0]
    vendor = getattr(upstream, provider)
    vendor.pause = 0.1
    # The last count is the one that holds.
    last = event({"usage": {"completion_tokens": 1}}) + event(usage)
    streamed, whole = stream(event({}), last, DONE), [respond(to_json(usage))]
    vendor.script(*(streamed if is_stream else whole))
    start = time.perf_counter()

    new = measured(body, path=path)

    own = body["model"], provider, "success", str(is_stream).lower()
    duration, rate, first = (new["sum", kind, *own] for kind in KINDS)
    counts = {key: n for key, n in new.items() if key[0] == "count"}
    assert counts == {("count", kind, *own): 1 for kind in KINDS[: 2 + is_stream]}
    assert 0 < duration < time.perf_counter() - start
    assert first < duration / 2
    assert rate * duration == pytest.approx(12)
    # FastAPI would measure it again, at 3 % of a call, but for a mark of `Front`.
    told = last_export(upstream)
    assert (b"llama_stack.requests" in told, b"http.server" in told) == (True, False)


@pytest.mark.parametrize(
    "steps", [[respond(status=500)], stream(event({}), end=RESET), [RESET]]
)
def test_a_streamed_call_that_fails_is_measured_as_such(
    upstream: Upstream, measured: Callable[..., Seen], steps: list[Step]
) -> None:
    upstream.openai.script(*steps)

    failed = "count", DURATION, MODEL, "openai", "error", "true"
    assert measured(chat(stream=True))[failed] == 1


def test_models_that_callers_make_up_are_one_series(
    exporting: Server, upstream: Upstream, measured: Callable[..., Seen]
) -> None:
    """Ten thousand names would fill the limit of series, and drop real ones."""
    upstream.openai.script(respond(), times=2)
    # This is no call of a provider, and is not measured.
    exchange(exporting.port, request(body=to_json(chat("nobody/m-1"))))

    new = measured(chat("openai/made-up"), chat("openai/made-up-2"))

    other = "other", "openai", "success", "false"
    assert {key[2:] for key in new} == {other}
    assert new["count", DURATION, *other] == 2
    assert len(exporting.wait_access_log(2, model="other")) == 2
    assert "made-up" not in exporting.log
