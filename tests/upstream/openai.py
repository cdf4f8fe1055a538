"""OpenAI: the dialect that the other two imitate, with completions and embeddings."""

import base64
import secrets
import struct
from collections.abc import Callable

from tests.upstream.dialect import Dialect, error_body, openai_error, words
from tests.upstream.refusal import Reason, RefusalError
from tests.upstream.reply import Json, Reply, event
from tests.upstream.wire import Request

_LARGEST_VECTOR = 1536
_INVALID = "invalid_request_error"

# Status, type, code and message of each error; {} is what it is about.
_ERRORS: dict[Reason, tuple[int, str, str | None, str]] = {
    Reason.MISSING_KEY: (401, _INVALID, None, "You didn't provide an API key."),
    Reason.WRONG_KEY: (
        401,
        _INVALID,
        "invalid_api_key",
        "Incorrect API key provided: {}.",
    ),
    Reason.RATE_LIMITED: (429, "requests", "rate_limit_exceeded", "Limit of {}."),
    Reason.OVERLOADED: (503, "server_error", None, "{} is overloaded."),
    Reason.SERVER_ERROR: (500, "server_error", None, "The server had an error."),
    Reason.UNKNOWN_MODEL: (
        404,
        _INVALID,
        "model_not_found",
        "The model `{}` does not exist or you do not have access to it.",
    ),
    Reason.UNKNOWN_PATH: (404, _INVALID, "unknown_url", "Unknown request URL: {}."),
    Reason.BROKEN_BODY: (400, _INVALID, None, "Could not parse the JSON body."),
    Reason.INVALID_REQUEST: (400, _INVALID, None, "{}"),
}


class OpenAI(Dialect):
    """OpenAI, as facts of its API tell it."""

    name = "OpenAI"
    models = (
        "gpt-4o",
        "gpt-4o-mini",
        "gpt-4.1-nano",
        "gpt-5.6-luna",
        "gpt-3.5-turbo-instruct",
        "text-embedding-3-small",
    )

    def headers(self, media_type: str) -> dict[str, str]:
        """A request id, rate limits, and what the vendor's front adds."""
        return {
            "content-type": media_type,
            "x-request-id": f"req_{secrets.token_hex(16)}",
            "openai-version": "2020-10-01",
            "openai-organization": "user-loopback",
            "openai-processing-ms": "12",
            "x-ratelimit-limit-requests": "10000",
            "x-ratelimit-remaining-requests": "9999",
            "x-ratelimit-reset-requests": "6ms",
            "set-cookie": "__cf_bm=loopback; path=/; HttpOnly; Secure",
            "server": "cloudflare",
        }

    def refuse(self, refusal: RefusalError) -> Reply:
        """OpenAI's error; for a bad key it echoes the key, masked."""
        status, kind, code, message = _ERRORS[refusal.reason]
        is_wrong_key = refusal.reason is Reason.WRONG_KEY
        about = _masked(refusal.detail) if is_wrong_key else refusal.detail
        error = openai_error(message.format(about), kind, code)
        if is_wrong_key:
            error["status"] = status
        if refusal.reason is Reason.RATE_LIMITED:
            return error_body(error, status, retry_after="1", retry_after_ms="1000")
        return error_body(error, status)

    def _endpoints(self) -> dict[tuple[str, str], Callable[[Request], Reply]]:
        return super()._endpoints() | {
            ("POST", "/completions"): self._complete,
            ("POST", "/embeddings"): self._embed,
        }

    def _complete(self, request: Request) -> Reply:
        body = self._body(request)
        text = f"{body['model']} heard: {body.get('prompt')}"
        envelope = self._envelope("text_completion", body)

        def choice(part: str, reason: str | None) -> Json:
            return {"index": 0, "text": part, "logprobs": None, "finish_reason": reason}

        if not body.get("stream"):
            return self._whole(envelope | {"choices": [choice(text, "stop")]})
        choices = [choice(word, None) for word in words(text)] + [choice("", "stop")]
        return self._stream([event(envelope | {"choices": [c]}) for c in choices])

    def _embed(self, request: Request) -> Reply:
        body = self._body(request)
        given = body.get("input")
        # A list of integers is one input in tokens, any other list is several inputs.
        several = isinstance(given, list) and not all(isinstance(i, int) for i in given)
        inputs = given if isinstance(given, list) and several else [given]
        size = body.get("dimensions") or _LARGEST_VECTOR
        if size not in range(1, _LARGEST_VECTOR + 1):
            detail = f"'dimensions' must be from 1 to {_LARGEST_VECTOR}."
            raise RefusalError(Reason.INVALID_REQUEST, detail)
        data = [
            {"object": "embedding", "index": n, "embedding": _vector(body, n, size)}
            for n in range(len(inputs))
        ]
        usage = {"prompt_tokens": len(inputs), "total_tokens": len(inputs)}
        return self._whole(
            {"object": "list", "data": data, "model": body["model"], "usage": usage}
        )


def _vector(body: Json, number: int, size: int) -> list[float] | str:
    floats = [(number + position % 8) / 8 for position in range(size)]
    if body.get("encoding_format") == "base64":
        return base64.b64encode(struct.pack(f"<{size}f", *floats)).decode()
    return floats


def _masked(key: str) -> str:
    return f"{key[:8]}{'*' * 8}{key[-4:]}"
