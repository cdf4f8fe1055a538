"""The errors that this server answers by itself, row by row of the contract."""

from typing import Any

import httpx
import pytest

from tests.support.http import (
    CHAT,
    COUNT_TOKENS,
    MESSAGES,
    MODEL,
    MODELS,
    ROUTES,
    ask,
    bearer,
    chat,
    encoded,
    provider_data,
    request,
)
from tests.support.server import Server
from tests.support.upstream import Upstream

pytestmark = pytest.mark.providers(
    {"errors-refused": {"base_url": "${env.REFUSED_URL}"}}
)

INVALID = "invalid_request_error"
# Name: (what is sent, status, code, type, param, Anthropic's type).
ROWS: dict[str, tuple[dict[str, Any], int, str, str, str | None, str]] = {
    "no key": (
        {"json": chat()},
        *(401, "missing_api_key", "authentication_error", None),
        "authentication_error",
    ),
    "provider data no object": (
        {"json": chat(), "headers": {"X-LlamaStack-Provider-Data": "[]"}},
        *(400, "invalid_provider_data", INVALID, None, INVALID),
    ),
    "another upstream": (
        {
            "json": chat(),
            "headers": provider_data("k", passthrough_url="http://127.0.0.1:1/"),
        },
        *(400, "upstream_not_allowed", INVALID, "passthrough_url", INVALID),
    ),
    "no model": (
        {"json": {}, "headers": bearer()},
        *(400, "invalid_request_body", INVALID, "model", INVALID),
    ),
    "model of no provider": (
        {"json": chat("nobody/x"), "headers": bearer()},
        *(404, "model_not_found", INVALID, "model", "not_found_error"),
    ),
    "compressed": (
        {"content": b"x", "headers": bearer() | {"Content-Encoding": "gzip"}},
        *(415, "unsupported_content_encoding", INVALID, None, INVALID),
    ),
    "form": (
        {"data": {"model": MODEL}, "headers": bearer()},
        *(415, "unsupported_media_type", INVALID, None, INVALID),
    ),
    "too large": (
        {"content": b" " * (65 * 2**20), "headers": bearer()},
        *(413, "request_too_large", INVALID, None, "request_too_large"),
    ),
    "upstream refuses": (
        {"json": chat("errors-refused/x"), "headers": bearer()},
        *(502, "upstream_unreachable", "server_error", None, "api_error"),
    ),
}
WITH = {
    "no key": ("www-authenticate", "Bearer"),
    "compressed": ("accept-encoding", "identity"),
}


@pytest.mark.parametrize("row", ROWS)
def test_an_error_has_the_form_of_its_route(client: httpx.Client, row: str) -> None:
    """OpenAI's four fields, or on the Messages routes Anthropic's two."""
    sent, status, code, kind, param, anthropics = ROWS[row]
    headers = {"Content-Type": "application/json"} if "content" in sent else {}
    sent = sent | {"headers": headers | sent.get("headers", {})}

    openais = client.post(CHAT, **sent)
    anthropic = client.post(MESSAGES, **sent)

    error = openais.json()["error"]
    message = error.pop("message")
    assert error == {"type": kind, "param": param, "code": code}
    assert anthropic.json() == {
        "type": "error",
        "error": {"type": anthropics, "message": message},
    }
    for answer in (openais, anthropic):
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-request-id"].startswith("req_")
        if row in WITH:
            name, value = WITH[row]
            assert answer.headers[name] == value


def test_a_missing_key_is_told_how_to_send_it(client: httpx.Client) -> None:
    """The message shows each of the headers."""
    message = client.post(COUNT_TOKENS, json=chat()).json()["error"]["message"]

    shown = [
        name
        for name in ("X-LlamaStack-Provider-Data", "x-api-key", "Authorization: Bearer")
        if name in message
    ]
    assert len(shown) == 3


OPEN = [f"POST {path}" for path in ROUTES] + [f"GET {MODELS}", "GET /v1/health"]


@pytest.mark.parametrize(
    ("target", "hint"),
    [
        ("/", ""),
        ("/favicon.ico", ""),
        ("/v1x", ""),
        ("/v1/chat/completions/", ""),
        ("/v1/chat/completions%0a", ""),
        ("/v1/chat/completions/resp_1", ""),
        ("//v1/chat/completions", ""),
        ("/v1/models%0a", ""),
        ("/v1/models/a%0a", ""),
        ("/v1/files", ""),
        ("/docs", ""),
        ("/chat/completions", "lacks /v1"),
        ("/messages", "lacks /v1"),
        ("/models", "lacks /v1"),
        ("/v1/v1/responses", "one /v1 too many"),
    ],
)
def test_a_closed_or_unknown_route_is_404(
    server: Server, upstream: Upstream, target: str, hint: str
) -> None:
    """Neither is told apart, the message lists what is open, and nothing is called."""
    for method in (b"GET", b"POST"):
        got = ask(server.port, request(method, target, body=encoded(chat())))

        assert (got.status, got.error_code) == (404, (404, "unknown_route"))
        message = got.json["error"]["message"]
        assert [route for route in OPEN if route not in message] == []
        assert hint in message
    assert upstream.openai.requests == []


@pytest.mark.parametrize("target", ["/v1/responses%0a", "/" + "x" * 128])
def test_a_path_with_control_characters_or_too_long_is_not_repeated(
    server: Server, target: str
) -> None:
    """Neither is an answer made longer, nor a line added to what reads it."""
    message = ask(server.port, request(b"GET", target)).json["error"]["message"]

    assert message.startswith("That path is no route here")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        *[("GET", path, "POST") for path in ROUTES],
        ("DELETE", CHAT, "POST"),
        ("POST", "/v1/models", "GET"),
        ("PUT", "/v1/health", "GET"),
    ],
)
def test_a_method_that_a_route_has_not_is_405(
    client: httpx.Client, method: str, path: str, allowed: str
) -> None:
    """With the right ones in `Allow`; no list of past calls answers a GET."""
    answer = client.request(method, path, headers=bearer())

    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
    if path not in (MESSAGES, COUNT_TOKENS):
        assert answer.json()["error"]["code"] == "method_not_allowed"
