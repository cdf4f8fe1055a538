"""Calls with a marked key and a marked prompt, by every way that a call can take."""

import json
from dataclasses import dataclass
from typing import Any

from tests.calls import CHAT, chat
from tests.marks import KEY, PROMPT
from tests.raw import HOST, POST_CHAT, chunked, request
from tests.scripts import DONE, EVENTS, JSON, Ending, answering, streaming
from tests.upstream import Connection, Handler, Request

_KEY = KEY.encode()
BEARER = b"Authorization: Bearer " + _KEY
DATA = b'X-LlamaStack-Provider-Data: {"passthrough_api_key":"%b"}' % _KEY
_EVENT = b"data: {}\n\n"
_ECHO = f'{{"error":{{"message":"{KEY}: {PROMPT}"}}}}'.encode()


@dataclass(frozen=True)
class Attempt:
    """A call, and what has to come of it.

    Attributes:
        sent: The whole request, as bytes.
        status: The status it gets.
        code: The code of the server's own error; None when the answer is another's.
        script: What the upstream does; None leaves it to the dialect.
    """

    sent: bytes
    status: int = 200
    code: str | None = None
    script: Handler | None = None


def body(model: str = "openai/gpt-4o", **fields: Any) -> bytes:  # noqa: ANN401 - any JSON
    """The body of a chat request with the marked prompt in it."""
    return chat(model, messages=[{"role": "user", "content": PROMPT}], **fields)


def sent(*headers: bytes, body: bytes, start: bytes = POST_CHAT) -> bytes:
    """A request with these headers, a Host, and the length of its body."""
    return request(start, *headers, body=body, own=(HOST,))


def _line(method: str, path: str) -> bytes:
    return f"{method} {path} HTTP/1.1".encode()


_GET_MODELS = _line("GET", "/v1/models")

CARRIERS = {
    "bearer": Attempt(sent(BEARER, body=body())),
    "bearer, streamed": Attempt(sent(BEARER, body=body(stream=True))),
    "provider data": Attempt(sent(DATA, body=body())),
    "provider data, streamed": Attempt(sent(DATA, body=body(stream=True))),
    "the name in OGX": Attempt(
        sent(DATA.replace(b"LlamaStack", b"OGX"), body=body()),
    ),
    "query": Attempt(
        sent(BEARER, body=body(), start=_line("POST", f"{CHAT}?key={KEY}")),
    ),
    "headers that go nowhere": Attempt(
        sent(BEARER, b"X-Api-Key: " + _KEY, b"Cookie: k=" + _KEY, body=body()),
    ),
    "header that is relayed": Attempt(
        sent(BEARER, b"OpenAI-Project: " + _KEY, body=body()),
    ),
    "request for the models": Attempt(sent(DATA, body=b"", start=_GET_MODELS)),
    "header that is no UTF-8": Attempt(
        sent(DATA, b"X-Api-Key: %b\xff" % _KEY, body=b"", start=_GET_MODELS),
    ),
    "version that is no UTF-8": Attempt(
        sent(
            b"X-LlamaStack-Client-Version: %b\xff" % _KEY, body=b"", start=_GET_MODELS
        ),
    ),
    "trailer": Attempt(
        request(POST_CHAT, b"Transfer-Encoding: chunked", own=(HOST,))
        + chunked(body(), end=b"0\r\n%b\r\n\r\n" % BEARER),
        401,
        "missing_api_key",
    ),
}


def _invalid(*headers: bytes) -> Attempt:
    return Attempt(sent(*headers, body=body()), 400, "invalid_provider_data")


def _invalid_body(body: bytes) -> Attempt:
    return Attempt(sent(BEARER, body=body), 400, "invalid_request_body")


OWN_ERRORS = {
    "no key": Attempt(sent(body=body()), 401, "missing_api_key"),
    "provider data cut off": _invalid(DATA[:-1]),
    "provider data that is a list": _invalid(
        b'X-LlamaStack-Provider-Data: ["%b"]' % _KEY
    ),
    "provider data that is the key": _invalid(b"X-LlamaStack-Provider-Data: " + _KEY),
    "key of a wrong type": _invalid(DATA.replace(b'"%b"' % _KEY, b'["%b"]' % _KEY)),
    "key with a line break": _invalid(DATA.replace(_KEY, rb"%b\r\n" % _KEY)),
    "key that is no ASCII": _invalid(BEARER + b"\xe9"),
    "provider data that is no UTF-8": _invalid(DATA.replace(_KEY, _KEY + b"\xe9")),
    "two keys": _invalid(BEARER, BEARER),
    "two provider data": _invalid(DATA, DATA),
    "key in an upstream's URL": Attempt(
        sent(
            b'X-LlamaStack-Provider-Data: {"passthrough_url": "http://%b@h"}' % _KEY,
            BEARER,
            body=body(),
        ),
        400,
        "upstream_not_allowed",
    ),
    "JSON cut off": _invalid_body(body()[:-1]),
    "no JSON": _invalid_body(PROMPT.encode()),
    "JSON that is no UTF-8": _invalid_body(body().replace(b"of a", b"\xff")),
    "a form": _invalid_body(f"prompt={PROMPT}".encode()),
    "model of a wrong type": _invalid_body(
        json.dumps({"model": {PROMPT: KEY}}).encode()
    ),
    "no model": _invalid_body(json.dumps({"messages": [PROMPT]}).encode()),
    "unknown model": Attempt(
        sent(BEARER, body=body("nobody/m-1")), 404, "model_not_found"
    ),
    "body over the limit": Attempt(
        request(POST_CHAT, b"Content-Length: 99999999", own=(HOST, BEARER)) + body(),
        413,
        "request_too_large",
    ),
    "headers over the limit": Attempt(
        request(POST_CHAT, BEARER, *[b"X-Key: " + _KEY] * 20_000, own=(HOST,)),
        431,
        "request_too_large",
    ),
}


async def _resets(_request: Request, connection: Connection) -> None:
    connection.reset()


async def _is_no_http(_request: Request, connection: Connection) -> None:
    await connection.write(_ECHO + b"\r\n\r\n")
    connection.close()


def _answered(status: int, script: Handler | None = None, **fields: Any) -> Attempt:  # noqa: ANN401 - any JSON
    return Attempt(sent(BEARER, body=body(**fields)), status, script=script)


UPSTREAM_ERRORS = {
    "wrong key": Attempt(
        sent(BEARER.replace(b"sk-", b"wrong-"), body=body()), status=401
    ),
    "rate limit": _answered(429, model="openai/rate-limited"),
    "error of the upstream": _answered(500, model="openai/server-error"),
    "overload": _answered(529, model="anthropic/overloaded"),
    "model unknown upstream": _answered(404, model="gemini/no-such-model"),
    "error that repeats what was sent": _answered(
        401, answering(_ECHO, status=401, headers=JSON | {"x-request-id": KEY})
    ),
    "page that repeats what was sent": _answered(
        502, answering(_ECHO, status=502, headers={"content-type": "text/html"})
    ),
    "redirect that repeats what was sent": _answered(
        302, answering(_ECHO, status=302, headers=JSON | {"location": f"/{KEY}"})
    ),
    "reset": Attempt(
        sent(BEARER, body=body()), 502, "upstream_unreachable", script=_resets
    ),
    "bytes that are no HTTP": Attempt(
        sent(BEARER, body=body()), 502, "upstream_unreachable", script=_is_no_http
    ),
    "stream that breaks off": _answered(
        200, streaming(_EVENT, ending=Ending.RESET, headers=EVENTS), stream=True
    ),
    "stream with an error in it": _answered(
        200, streaming(b"data: " + _ECHO + b"\n\n", DONE), stream=True
    ),
}


REFUSED_BY_LLAMA_STACK = {
    "closed route": Attempt(
        sent(DATA, body=body(), start=_line("POST", "/v1/responses")), 403
    ),
    "other method": Attempt(sent(DATA, body=body(), start=_line("PUT", CHAT)), 405),
    "no HTTP": Attempt(b"POST /%b %b\r\n\r\n" % (_KEY, PROMPT.encode()), 400),
    "header that is none": Attempt(sent(DATA, _KEY, body=body()), 400),
    "two lengths": Attempt(sent(DATA, b"Content-Length: 1", body=body()), 400),
}

ATTEMPTS = {
    **{f"key by {name}": each for name, each in CARRIERS.items()},
    **{f"refused: {name}": each for name, each in OWN_ERRORS.items()},
    **{f"upstream: {name}": each for name, each in UPSTREAM_ERRORS.items()},
    **{f"before the relay: {n}": each for n, each in REFUSED_BY_LLAMA_STACK.items()},
}
