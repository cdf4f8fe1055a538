"""The access line: one a request, with what explains it and nothing secret."""

import re

import httpx
import pytest

from tests.support.http import (
    CHAT,
    MODEL,
    Raw,
    ask,
    bearer,
    chat,
    encoded,
    eventually,
    request,
)
from tests.support.server import Server
from tests.support.upstream import Upstream
from tests.support.wire import DONE, Gate, Json, answer, event, stream

TEXT = pytest.mark.server(
    {"logging_config": {"category_levels": {"all": "debug"}}},
    env={"LLAMA_STACK_LOG_FORMAT": "text", "LLAMA_STACK_LOGGING": "all=debug"},
)
RELAYED = {"model": MODEL, "provider": "openai"}
NOT_RELAYED = {"model", "provider", "first_byte_ms"}


def line_of(server: Server, response: httpx.Response) -> Json:
    """The one access line of an answer."""
    (line,) = server.wait_access(request_id=response.headers["x-request-id"])
    return line


def test_a_relayed_call_is_a_line(
    server: Server, client: httpx.Client, upstream: Upstream
) -> None:
    """Whose, what, where to, with what result, how soon and how long."""
    gate = Gate()
    upstream.openai.script(*stream(event({"n": 1}), gate, DONE))
    with client.stream(
        "POST", f"{CHAT}?key=in-a-query", json=chat(stream=True), headers=bearer()
    ) as response:
        next(pieces := response.iter_raw())
        gate.open()
        assert DONE in b"".join(pieces)

    line = line_of(server, response)
    expected = {"level": "info", "method": "POST", "path": CHAT, "status": 200}
    assert line.items() >= (expected | RELAYED).items()
    assert 0 < line["first_byte_ms"] < line["ms"]
    assert re.fullmatch(r"127\.0\.0\.1:\d+", line["client"])
    assert re.fullmatch(r"[\d-]{10}T[\d:]{8}\.\d{3}Z", line["timestamp"])
    assert "code" not in line
    assert "in-a-query" not in server.log


def test_an_error_of_the_server_s_own_has_its_code(
    server: Server, client: httpx.Client, upstream: Upstream
) -> None:
    """Beside the model if the call had one, and only then; an upstream's has none."""
    upstream.openai.script(answer(status=502))
    sent = [
        client.post(CHAT, json=chat()),
        client.post(CHAT, json=chat("nobody/m-1"), headers=bearer()),
        client.post("/v1/files"),
        client.get(CHAT.replace("/v1", "")),
        client.post(CHAT, json=chat(), headers=bearer()),
    ]

    lines = [line_of(server, each) for each in sent]
    assert [(line["status"], line.get("code")) for line in lines] == [
        (401, "missing_api_key"),
        (404, "model_not_found"),
        (404, "unknown_route"),
        (404, "unknown_route"),
        (502, None),
    ]
    assert [NOT_RELAYED & line.keys() for line in lines] == [set()] * 4 + [NOT_RELAYED]


@pytest.mark.usefixtures("upstream")
def test_a_model_that_is_not_listed_is_other(
    server: Server, client: httpx.Client
) -> None:
    """A name that a caller makes up may be anything."""
    response = client.post(CHAT, json=chat("openai/made-up"), headers=bearer())

    assert line_of(server, response)["model"] == "other"
    assert "made-up" not in server.log


def test_who_leaves_before_the_answer_is_499(
    server: Server, upstream: Upstream
) -> None:
    """As nginx has it; a status that no answer has."""
    upstream.openai.script(Gate())
    before = len(server.access())
    with Raw(server.port) as raw:
        raw.send(request(body=encoded(chat())))
        upstream.openai.wait_requests()

    def left() -> list[Json]:
        return [x for x in server.access()[before:] if x["status"] == 499]

    (line,) = eventually(left)
    assert line.items() >= RELAYED.items()


def test_every_line_of_the_log_is_json(server: Server, client: httpx.Client) -> None:
    """Once it serves; and none has a terminal's colours in it."""
    client.get("/v1/health")
    lines = server.stderr.partition("lls-openai ")[2].splitlines()[1:]

    assert [x for x in lines if not (x[:1] == "{" and x[-1:] == "}")] == []
    assert "\\u001b" not in server.log
    assert "color_message" not in server.log


@TEXT
@pytest.mark.usefixtures("upstream")
def test_a_person_gets_columns(server: Server, client: httpx.Client) -> None:
    """Asked for, or at a terminal; a path cannot draw there."""
    response = client.post(CHAT, json=chat(), headers=bearer())
    ask(server.port, request(b"GET", "/v1/%1b%5b31m%0a"))

    server.wait_log("  404  ")
    own = response.headers["x-request-id"]
    (line,) = [x for x in server.stderr.splitlines() if own in x and " ms " in x]
    assert re.fullmatch(
        rf"\d\d:\d\d:\d\d  200 +[\d.]+ ms  POST   {CHAT} +{MODEL}"
        rf"  127\.0\.0\.1:\d+  {own}",
        line,
    )
    (drawing,) = [x for x in server.stderr.splitlines() if "404 " in x and " ms " in x]
    assert r"GET    /v1/\u001b[31m\n" in drawing
