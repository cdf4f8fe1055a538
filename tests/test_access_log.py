"""The access log has one entry per request, in JSON or in columns."""

import re
import time

import httpx
import pytest

from tests.support.http import (
    CHAT,
    CHAT_BODY,
    MODEL,
    RawConnection,
    bearer,
    chat,
    exchange,
    request,
)
from tests.support.run_yaml import DEBUG_LOGGING
from tests.support.server import Server
from tests.support.upstream import Upstream
from tests.support.wire import (
    CLOSE,
    DONE,
    FIRST_EVENT,
    JSON,
    RESET,
    SILENCE,
    Gate,
    Json,
    Step,
    respond,
    stream,
)


def entry_of(server: Server, response: httpx.Response) -> Json:
    request_id = response.headers["x-request-id"]
    (entry,) = server.wait_access_log(request_id=request_id)
    return entry


def test_entry_of_a_relayed_call(server: Server, client: httpx.Client) -> None:
    response = client.post(CHAT, json=chat(), headers=bearer())

    entry = entry_of(server, response)
    assert (
        entry.items()
        >= {
            "event": "request",
            "level": "info",
            "method": "POST",
            "path": CHAT,
            "status": 200,
            "model": MODEL,
            "provider": "openai",
            "code": None,
        }.items()
    )
    assert re.fullmatch(r"127\.0\.0\.1:\d+", entry["client"])
    assert re.fullmatch(r"[\d-]{10}T[\d:]{8}\.\d{6}Z", entry["timestamp"])


def test_entry_has_times_of_first_byte_and_of_the_whole_response(
    server: Server, client: httpx.Client, upstream: Upstream
) -> None:
    gate, start = Gate(), time.monotonic()
    upstream.openai.script(*stream(FIRST_EVENT, gate, DONE))

    body = chat(stream=True)
    with client.stream("POST", CHAT, json=body, headers=bearer()) as response:
        pieces = response.iter_raw()
        next(pieces)
        time.sleep(0.1)
        gate.open()
        assert DONE in b"".join(pieces)

    entry = entry_of(server, response)
    milliseconds = (time.monotonic() - start) * 1000
    assert entry["first_byte_ms"] > 0
    assert entry["first_byte_ms"] + 90 < entry["ms"] < milliseconds


@pytest.mark.parametrize("keep_alive", [b": ping\n", b"\n"], ids=["comment", "blank"])
def test_keep_alive_does_not_count_as_the_first_byte(
    server: Server, client: httpx.Client, upstream: Upstream, keep_alive: bytes
) -> None:
    """Some upstreams send one at once, and the first event after a minute."""
    gate = Gate()
    upstream.openai.script(*stream(keep_alive, gate, FIRST_EVENT, DONE))

    body = chat(stream=True)
    with client.stream("POST", CHAT, json=body, headers=bearer()) as response:
        pieces = response.iter_raw()
        assert next(pieces) == keep_alive
        time.sleep(0.1)
        gate.open()
        assert DONE in b"".join(pieces)

    assert entry_of(server, response)["first_byte_ms"] > 90


def test_entry_has_no_query(server: Server, client: httpx.Client) -> None:
    path = f"{CHAT}?key=key-in-query"

    response = client.post(path, json=chat(), headers=bearer())

    assert entry_of(server, response)["path"] == CHAT
    assert "key-in-query" not in server.log


@pytest.mark.parametrize(
    ("model", "headers", "status", "code"),
    [
        pytest.param(MODEL, {}, 401, "missing_api_key", id="missing_api_key"),
        pytest.param("a/b", bearer(), 404, "model_not_found", id="model_not_found"),
    ],
)
def test_entry_of_a_rejected_call_has_the_errors_code_and_no_model(
    server: Server,
    client: httpx.Client,
    model: str,
    headers: dict[str, str],
    status: int,
    code: str,
) -> None:
    response = client.post(CHAT, json=chat(model), headers=headers)

    entry = entry_of(server, response)
    assert (entry["status"], entry["code"]) == (status, code)
    for name in ("model", "provider", "first_byte_ms"):
        assert entry[name] is None


def test_entry_of_an_unknown_route_has_the_errors_code(
    server: Server, client: httpx.Client
) -> None:
    response = client.get("/v1/unknown")

    entry = entry_of(server, response)
    assert (entry["status"], entry["code"]) == (404, "unknown_route")


def test_entry_of_an_upstreams_own_error_has_no_code(
    server: Server, client: httpx.Client, upstream: Upstream
) -> None:
    upstream.openai.script(respond(status=502))

    response = client.post(CHAT, json=chat(), headers=bearer())

    entry = entry_of(server, response)
    assert (entry["status"], entry["code"], entry["model"]) == (502, None, MODEL)


@pytest.mark.providers(
    {
        "gone": {"base_url": "${env.REFUSED_URL}"},
        "impatient": {"network": {"timeout": 0.5}},
        "unresolvable": {"base_url": "${env.UNRESOLVABLE_URL}"},
        "untrusted": {"base_url": "${env.TLS_URL}"},
    }
)
@pytest.mark.parametrize(
    ("provider", "steps", "status", "reason"),
    [
        pytest.param("gone", [], 502, "refused the connection", id="refused"),
        pytest.param("unresolvable", [], 502, "could not be resolved", id="dns"),
        pytest.param("untrusted", [], 502, "local issuer certificate", id="tls"),
        pytest.param("openai", [CLOSE], 502, "closed the connection", id="closed"),
        pytest.param("openai", [RESET], 502, "reset the connection", id="reset"),
        pytest.param(
            "openai", [b"hello\r\n\r\n"], 502, "not valid HTTP", id="not-http"
        ),
        pytest.param(
            "openai",
            [*stream(b"{", headers=JSON)[:-1], CLOSE],
            502,
            "after 1 byte of the response body",
            id="closed-in-body",
        ),
        pytest.param(
            "openai", [respond(status=307)], 502, "check base_url", id="redirect"
        ),
        pytest.param("impatient", [SILENCE], 504, "longer than 0.5 s", id="silent"),
    ],
)
def test_entry_of_a_failed_call_has_the_reason_that_the_client_reads(
    server: Server,
    client: httpx.Client,
    upstream: Upstream,
    provider: str,
    steps: list[Step],
    status: int,
    reason: str,
) -> None:
    if steps:
        upstream.openai.script(*steps)

    response = client.post(CHAT, json=chat(f"{provider}/x"), headers=bearer())

    entry = entry_of(server, response)
    error = response.json()["error"]
    assert (entry["status"], entry["code"]) == (status, error["code"])
    assert reason in entry["reason"]
    assert entry["reason"] == error["message"]


def test_entry_has_256_characters_of_a_long_path(
    server: Server, client: httpx.Client
) -> None:
    response = client.get(f"/v1/{'%00' * 20_000}")

    path = entry_of(server, response)["path"]
    assert path == "/v1/" + "\x00" * 249 + "..."


def test_disconnect_before_the_response_is_logged_as_499(
    server: Server, upstream: Upstream
) -> None:
    """As nginx does."""
    upstream.openai.script(Gate())
    count = len(server.access_log(status=499))

    with RawConnection(server.port) as connection:
        connection.send(request(body=CHAT_BODY))
        upstream.openai.wait_requests()

    entry = server.wait_access_log(count + 1, status=499)[-1]
    assert (entry["model"], entry["provider"]) == (MODEL, "openai")


def test_disconnect_inside_the_body_is_logged_as_499_and_calls_no_upstream(
    server: Server, upstream: Upstream
) -> None:
    """Even if only a space is missing."""
    count = len(server.access_log(status=499))

    with RawConnection(server.port) as connection:
        connection.send(request(body=CHAT_BODY + b" ")[:-1])

    entry = server.wait_access_log(count + 1, status=499)[-1]
    assert entry["model"] is None
    assert upstream.requests == []


def test_every_line_after_startup_is_json(server: Server) -> None:
    exchange(server.port, request(b"GET", "/v1/models"))
    exchange(server.port, b"\x00")

    after_greeting = server.read("stderr").partition("lls-openai ")[2].splitlines()[1:]
    assert after_greeting != []
    for line in after_greeting:
        assert (line[:1], line[-1:]) == ("{", "}"), line
    assert "color_message" not in server.log


@DEBUG_LOGGING
def test_text_access_log_format(server: Server, client: httpx.Client) -> None:
    response = client.post(CHAT, json=chat(), headers=bearer())

    request_id = response.headers["x-request-id"]
    line = server.wait_log_line(request_id, " ms ")
    fields = rf"200 +[\d.]+ ms  POST   {CHAT} +{MODEL}  127\.0\.0\.1:\d+  {request_id}"
    assert re.fullmatch(rf"\d\d:\d\d:\d\d  {fields}", line)


@DEBUG_LOGGING
def test_text_access_log_escapes_control_characters(server: Server) -> None:
    exchange(server.port, request(b"GET", "/v1/%1b%5b31mred%0a"))

    assert r"  GET    /v1/\u001b[31mred\u000a  " in server.wait_log_line(
        "31mred", " ms "
    )


@DEBUG_LOGGING
def test_text_access_log_escapes_terminal_control_of_a_path_and_of_an_upstreams_id(
    server: Server, client: httpx.Client, upstream: Upstream
) -> None:
    """C1 characters, DEL, and one that changes the direction of text."""
    upstream.openai.script(respond(headers={"x-request-id": "vendor-id-\x9b31m"}))
    client.post(CHAT, json=chat(), headers=bearer())
    client.get("/v1/%C2%9B33mblue%7F%E2%80%AE")

    assert server.wait_log_line("vendor-id-", " ms ").endswith(r"  vendor-id-\u009b31m")
    line = server.wait_log_line("33mblue", " ms ")
    assert r"/v1/\u009b33mblue\u007f\u202e " in line
    assert "\x9b" not in server.log
