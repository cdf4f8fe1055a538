"""The errors that this server answers by itself, row by row of the contract."""

import httpx
import pytest

from tests.support import http
from tests.support.http import (
    CHAT,
    MESSAGES,
    ROUTES,
    bearer,
    exchange,
    request,
    to_json,
)
from tests.support.server import Server
from tests.support.upstream import Upstream

pytestmark = pytest.mark.providers({"gone": {"base_url": "${env.REFUSED_URL}"}})
HELLO = http.CHAT_BODY
ELSEWHERE = http.provider_data(passthrough_url="http://127.0.0.1:1/")
ZIPPED = bearer() | {"content-encoding": "gzip"}
FORM = bearer() | {"content-type": "application/x-www-form-urlencoded"}
# The status, the code and the field at fault; headers and body of what is sent.
type Row = tuple[int, str, str | None, dict[str, str], bytes]
ROWS: list[Row] = [
    (401, "missing_api_key", None, {}, HELLO),
    (400, "invalid_provider_data", None, {"x-llamastack-provider-data": "[]"}, HELLO),
    (400, "upstream_not_allowed", "passthrough_url", ELSEWHERE, HELLO),
    (400, "invalid_request_body", "model", bearer(), b"{}"),
    (404, "model_not_found", "model", bearer(), to_json({"model": "nobody/x"})),
    (415, "unsupported_content_encoding", None, ZIPPED, b"x"),
    (415, "unsupported_media_type", None, FORM, b"model=openai/gpt-4o"),
    (413, "request_too_large", None, bearer(), b" " * (65 * 2**20)),
    (502, "upstream_unreachable", None, bearer(), to_json({"model": "gone/x"})),
]
# OpenAI's and Anthropic's type, where it is not that of an invalid request.
TYPES = {
    401: ("authentication_error", "authentication_error"),
    404: ("invalid_request_error", "not_found_error"),
    413: ("invalid_request_error", "request_too_large"),
    502: ("server_error", "api_error"),
}
# Headers of the answer.
WITH = {
    "missing_api_key": {"www-authenticate": "Bearer"},
    "unsupported_content_encoding": {"accept-encoding": "identity"},
}
HOW = "X-LlamaStack-Provider-Data", "x-api-key", "Authorization: Bearer"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[1])
def test_an_error_has_the_form_of_its_route(client: httpx.Client, row: Row) -> None:
    status, code, param, headers, body = row
    sent = {"content-type": "application/json"} | headers
    openais, anthropics = TYPES.get(status, ("invalid_request_error",) * 2)

    answers = [client.post(p, content=body, headers=sent) for p in (CHAT, MESSAGES)]

    message = answers[0].json()["error"]["message"]
    error = {"message": message, "type": openais, "param": param, "code": code}
    native = {"type": "error", "error": {"type": anthropics, "message": message}}
    assert [answer.json() for answer in answers] == [{"error": error}, native]
    assert status != 401 or all(each in message for each in HOW)
    own = {"content-type": "application/json"} | WITH.get(code, {})
    for answer in answers:
        assert answer.status_code == status
        assert own.items() <= answer.headers.items()
        assert answer.headers["x-request-id"].startswith("req_")


OPEN = [f"POST {path}" for path in ROUTES] + [f"GET {http.MODELS}", "GET /v1/health"]
# What the message says, and the targets to which it does.
CLOSED = {
    "": "/ /favicon.ico /docs /v1x /v1/files /v1/chat/completions/ "
    "//v1/chat/completions /v1/chat/completions/1 /v1/responses/1 /v1/conversations",
    "lacks /v1": "/chat/completions /messages /models",
    "one /v1 too many": "/v1/v1/responses",
    # Neither is an answer made longer, nor a line added to what reads it.
    "That path is no route": "/v1/chat/completions%0a /v1/responses%0a /v1/models%0a "
    f"/v1/models/a%0a /{'x' * 128}",
}


@pytest.mark.parametrize(
    ("hint", "target"),
    [(hint, target) for hint, targets in CLOSED.items() for target in targets.split()],
)
def test_a_closed_or_unknown_route_is_404(
    server: Server, upstream: Upstream, target: str, hint: str
) -> None:
    for method in (b"GET", b"POST"):
        got = exchange(server.port, request(method, target, body=HELLO))

        assert (got.status, got.status_and_code) == (404, (404, "unknown_route"))
        assert all(x in got.json["error"]["message"] for x in (hint, *OPEN))
    assert upstream.openai.requests == []


WRONG = [f"GET {path} POST" for path in ROUTES]
WRONG += [f"DELETE {CHAT} POST", "POST /v1/models GET", "PUT /v1/health GET"]


@pytest.mark.parametrize("wrong", WRONG)
def test_a_method_that_a_route_has_not_is_405(client: httpx.Client, wrong: str) -> None:
    method, path, allowed = wrong.split()
    answer = client.request(method, path, headers=bearer())

    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
    code = None if path.startswith(MESSAGES) else "method_not_allowed"
    assert answer.json()["error"].get("code") == code
