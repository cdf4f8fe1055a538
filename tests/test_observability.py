"""What is told of a call: one access line, and Llama Stack's metrics at a collector."""

import logging
import re
import time

import httpx
import pytest

from lls_openai.server.access_log import set_up_logs
from tests.support import http, wire
from tests.support.http import CHAT, MODEL, bearer, chat, exchange, request
from tests.support.run_yaml import DEBUG_LOGGING
from tests.support.server import Server
from tests.support.upstream import Upstream
from tests.support.wire import DONE, Gate, Json, respond, stream

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
