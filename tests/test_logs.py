"""The access line: one a request, with what explains it and nothing secret."""

import re
import time

import httpx
import pytest

from tests.support.http import CHAT, MODEL, Raw, ask, bearer, chat, encoded, request
from tests.support.server import Server
from tests.support.upstream import Upstream
from tests.support.wire import DONE, Gate, Json, answer, event, stream

TEXT = pytest.mark.server(
    {"logging_config": {"category_levels": {"all": "debug"}}},
    env={"LLAMA_STACK_LOG_FORMAT": "text", "LLAMA_STACK_LOGGING": "all=debug"},
)
RELAYED = {"model": MODEL, "provider": "openai"}
OF_A_CALL = {"model", "provider", "first_byte_ms"}


def line_of(server: Server, response: httpx.Response) -> Json:
    """The one access line of an answer."""
    (line,) = server.wait_access(request_id=response.headers["x-request-id"])
    return line


def test_a_relayed_call_is_a_line(
    server: Server, client: httpx.Client, upstream: Upstream
) -> None:
    """Whose, what, where to, with what result, how soon and how long."""
    gate, path = Gate(), f"{CHAT}?key=in-a-query"
    upstream.openai.script(*stream(event({"n": 1}), gate, DONE))
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
    assert 0 < line["first_byte_ms"] < line["ms"] - 90
    assert re.fullmatch(r"127\.0\.0\.1:\d+", line["client"])
    assert re.fullmatch(r"[\d-]{10}T[\d:]{8}\.\d{6}Z", line["timestamp"])
    assert "code" not in line
    assert "in-a-query" not in server.log


def test_an_error_of_the_servers_own_has_its_code(
    server: Server, client: httpx.Client, upstream: Upstream
) -> None:
    """An upstream's has none; a request that is no call has no model."""
    upstream.openai.script(answer(status=502))
    sent = [
        client.post(CHAT, json=chat()),
        client.post(CHAT, json=chat("nobody/m-1"), headers=bearer()),
        client.post("/v1/files"),
        client.get("/chat/completions"),
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
    assert [OF_A_CALL & line.keys() for line in lines] == [set()] * 4 + [OF_A_CALL]


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
    """As nginx has it; no answer has this status, nor an id."""
    upstream.openai.script(Gate())
    before = [line for line in server.access() if line["status"] == 499]
    with Raw(server.port) as raw:
        raw.send(request(body=encoded(chat())))
        upstream.openai.wait_requests()

    line = server.wait_access(len(before) + 1, status=499)[-1]
    assert line.items() >= RELAYED.items()


def test_every_line_of_the_log_is_json(server: Server, client: httpx.Client) -> None:
    """From the greeting on; and none has a terminal's colours in it."""
    client.get("/v1/health")
    lines = server.stderr.partition("lls-openai ")[2].splitlines()[1:]

    assert [x for x in lines if not (x[:1] == "{" and x[-1:] == "}")] == []
    assert "color_message" not in server.log


@TEXT
@pytest.mark.usefixtures("upstream")
def test_a_person_gets_columns(server: Server, client: httpx.Client) -> None:
    """Asked for, or at a terminal, on which a path cannot draw."""
    response = client.post(CHAT, json=chat(), headers=bearer())
    ask(server.port, request(b"GET", "/v1/%1b%5b31m%0a"))

    server.wait_log(r"  GET    /v1/\u001b[31m\n  ")
    own = response.headers["x-request-id"]
    (line,) = [x for x in server.stderr.splitlines() if own in x and " ms " in x]
    facts = rf"200 +[\d.]+ ms  POST   {CHAT} +{MODEL}  127\.0\.0\.1:\d+  {own}"
    assert re.fullmatch(rf"\d\d:\d\d:\d\d  {facts}", line)
