"""Llama Stack's own 401 and 429 have the contract's form and a code in the log.

One server requires tokens and allows two requests a day from each client address; each
test has an address.
"""

import asyncio
import json
import time
from typing import Any

import httpx
import pytest
from starlette.types import Message, Scope

from lls_openai.context import RequestContext
from lls_openai.server.stack_errors import hold_stack_errors
from tests.support.http import CHAT, MESSAGES, MODELS, bearer, chat, provider_data
from tests.support.run_yaml import IS_OGX
from tests.support.server import Server

LOGIN = {
    "type": "oauth2_token",
    "audience": "lls-openai",
    "jwks": {"uri": "http://127.0.0.1:9/jwks.json"},
}
QUOTA = {
    "anonymous_max_requests": 2,
    "kvstore": {"backend": "kv_memory", "namespace": "quota"},
}
GUARDED = pytest.mark.server(
    {
        "server": {
            "auth": {"provider_config": LOGIN},
            "quota": None if IS_OGX else QUOTA,
        }
    },
    env={"FORWARDED_ALLOW_IPS": "127.0.0.1"},
)


def error(response: httpx.Response) -> Any:  # noqa: ANN401 - any JSON
    return response.json()["error"]


@GUARDED
@pytest.mark.parametrize(
    "token",
    [
        pytest.param({}, id="no-token"),
        pytest.param({"authorization": "Bearer junk"}, id="junk-token"),
    ],
)
def test_request_without_valid_token_gets_contract_401(
    server: Server, client: httpx.Client, token: dict[str, str]
) -> None:
    address = {"x-forwarded-for": f"203.0.113.{len(token)}"}
    headers = provider_data() | address | token
    openai = client.post(CHAT, json=chat(), headers=headers)
    anthropic = client.post(MESSAGES, json=chat(), headers=headers)

    kind, message = "authentication_error", error(openai)["message"]
    assert (openai.status_code, anthropic.status_code) == (401, 401)
    assert error(openai) == {
        "message": message,
        "type": kind,
        "param": None,
        "code": "invalid_token",
    }
    assert anthropic.json() == {
        "type": "error",
        "error": {"type": kind, "message": message},
    }
    for response in (openai, anthropic):
        assert response.headers["www-authenticate"] == "Bearer"
        request_id = response.headers["x-request-id"]
        (line,) = server.wait_access_log(request_id=request_id)
        assert (line["status"], line["code"]) == (401, "invalid_token")


@GUARDED
def test_junk_token_is_logged_in_one_line_without_a_traceback(server: Server) -> None:
    """Llama Stack's own handler draws the traceback in a frame."""
    headers = bearer("junk-token") | {"x-forwarded-for": "203.0.113.3"}

    response = server.client.post(CHAT, json=chat(), headers=headers)

    server.wait_access_log(request_id=response.headers["x-request-id"])
    entry = next(
        each
        for each in map(json.loads, server.read("stderr").splitlines())
        if each["event"] == "Error during authentication"
    )
    assert entry["level"] == "error"
    raised = "ValueError in OAuth2TokenAuthProvider.validate_jwt_token (auth_providers"
    assert entry["exception"].startswith(raised), entry
    assert "junk-token" not in server.log
    for drawn in ("Traceback", "╭", "│"):
        assert drawn not in server.log
    assert server.client.get(MODELS, headers=headers).status_code == 401


@GUARDED
def test_request_over_quota_gets_contract_429_with_retry_after(
    server: Server, client: httpx.Client
) -> None:
    address = {"x-forwarded-for": "203.0.113.9"}
    responses = [client.get("/v1/health", headers=address) for _ in range(3)]

    assert [each.status_code for each in responses] == [200, 200, 429]
    assert error(responses[2]) == {
        "message": "Quota exceeded",
        "type": "rate_limit_error",
        "param": None,
        "code": "quota_exceeded",
    }
    # The quota starts again at midnight, UTC.
    left = int(responses[2].headers["retry-after"])
    assert (time.time() + left) % 86_400 == pytest.approx(0, abs=3)
    (line,) = server.wait_access_log(status=429)
    assert line["code"] == "quota_exceeded"


def test_other_headers_are_kept_and_length_is_that_of_new_body() -> None:
    """The CORS middleware's, for one, without which a page cannot read the error."""
    cors = b"access-control-allow-origin", b"https://app.example.com"
    kind = b"content-type", b"application/json"

    sent: list[Message] = []

    async def send_error() -> None:
        async def collect(message: Message) -> None:
            sent.append(message)

        scope: Scope = {"path": CHAT, "headers": []}
        send = hold_stack_errors(scope, RequestContext(), collect)
        headers = [kind, cors, (b"content-length", b"2")]
        start = {"type": "http.response.start", "status": 401, "headers": headers}
        await send(start)
        await send({"type": "http.response.body", "body": b"{}"})

    asyncio.run(send_error())

    start, body = sent
    length = b"content-length", b"%d" % len(body["body"])
    assert start["headers"][:3] == [kind, cors, length]
    assert b"The server rejected the request" in body["body"]
