"""Each call is measured by OpenTelemetry's conventions for generative AI."""

import time

import pytest

from lls_openai.context import RequestContext
from lls_openai.server.instruments import error_type
from tests.support import http
from tests.support.collector import (
    DURATION,
    ERROR,
    FIRST_CHUNK,
    REJECTED,
    TOKENS,
    Collector,
)
from tests.support.http import CHAT, MODEL, chat, eventually, exchange, request
from tests.support.run_yaml import EXPORTING_METRICS
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

pytestmark = EXPORTING_METRICS
TYPE = "gen_ai.token.type"

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
