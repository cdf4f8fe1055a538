"""Gemini, through its OpenAI-compatible endpoint, with what it does differently."""

import base64
from collections.abc import Iterator
from typing import ClassVar

from tests.upstream.dialect import Dialect, error_body, words
from tests.upstream.refusal import Reason, RefusalError
from tests.upstream.reply import Json, Reply
from tests.upstream.saying import Saying

# Code, status and message of each error; {} is what it is about.
_ERRORS: dict[Reason, tuple[int, str, str]] = {
    Reason.MISSING_KEY: (400, "INVALID_ARGUMENT", "Missing Authorization header."),
    Reason.WRONG_KEY: (
        400,
        "INVALID_ARGUMENT",
        "API key not valid. Please pass a valid API key.",
    ),
    Reason.RATE_LIMITED: (429, "RESOURCE_EXHAUSTED", "Quota of {} exceeded."),
    Reason.OVERLOADED: (503, "UNAVAILABLE", "The model is overloaded."),
    Reason.SERVER_ERROR: (500, "INTERNAL", "Internal error encountered."),
    Reason.UNKNOWN_MODEL: (404, "NOT_FOUND", "models/{} is not found."),
    Reason.BROKEN_BODY: (400, "INVALID_ARGUMENT", "Invalid JSON payload received."),
    Reason.INVALID_REQUEST: (400, "INVALID_ARGUMENT", "{}"),
}

_GOOGLE = "type.googleapis.com/google.rpc"

# Further parts of some errors.
_DETAILS: dict[Reason, Json] = {
    Reason.WRONG_KEY: {
        "@type": f"{_GOOGLE}.ErrorInfo",
        "reason": "API_KEY_INVALID",
        "domain": "googleapis.com",
    },
    Reason.RATE_LIMITED: {"@type": f"{_GOOGLE}.RetryInfo", "retryDelay": "1s"},
}

# Any other name at the top of a request is refused, whatever its value.
_KNOWN_NAMES = {
    "extra_body",
    "logprobs",
    "max_completion_tokens",
    "max_tokens",
    "messages",
    "modalities",
    "model",
    "n",
    "parallel_tool_calls",
    "presence_penalty",
    "reasoning_effort",
    "response_format",
    "stop",
    "stream",
    "stream_options",
    "temperature",
    "tool_choice",
    "tools",
    "top_logprobs",
    "top_p",
    "user",
}


class Gemini(Dialect):
    """Gemini: errors in an array, unknown names refused, streams with gaps.

    A streamed tool call comes without `index` from `gemini-2.5-flash-lite`, and with
    `id: ""` from `gemini-3.5-flash-lite`.
    """

    name = "Gemini"
    base_path = "/v1beta/openai"
    models = ("gemini-2.5-flash-lite", "gemini-3.5-flash-lite")
    _media_type = "application/json; charset=UTF-8"
    _no_index: ClassVar[str] = "gemini-2.5-flash-lite"

    def headers(self, media_type: str) -> dict[str, str]:
        """No request id, no rate limits; only the tier of the service."""
        return {
            "content-type": media_type,
            "vary": "Origin, X-Origin, Referer",
            "x-gemini-service-tier": "standard",
            "server": "scaffolding on HTTPServer2",
        }

    def refuse(self, refusal: RefusalError) -> Reply:
        """Google's error, as the only element of an array; an empty one for a path."""
        if refusal.reason is Reason.UNKNOWN_PATH:
            return Reply(404, {"content-type": "text/html; charset=UTF-8"})
        code, status, message = _ERRORS[refusal.reason]
        text = message.format(refusal.detail)
        error: Json = {"code": code, "message": text, "status": status}
        if refusal.reason in _DETAILS:
            error["details"] = [_DETAILS[refusal.reason]]
        return error_body([{"error": error}], code)

    def check(self, body: Json) -> None:
        """Refuse unknown names, also with null, and tool calls without signature."""
        super().check(body)
        unknown = sorted(body.keys() - _KNOWN_NAMES)
        if unknown:
            problem = 'Invalid JSON payload received. Unknown name "{}": '
            lines = [problem.format(name) + "Cannot find field." for name in unknown]
            raise RefusalError(Reason.INVALID_REQUEST, "\n".join(lines))
        for message in body.get("messages") or []:
            for call in message.get("tool_calls") or []:
                _check_signature(call)

    def tool_call(self, saying: Saying) -> Json:
        """The entry in `tool_calls`, with the signature that has to come back."""
        call = super().tool_call(saying)
        signature = thought_signature(call["function"]["name"])
        return call | {"extra_content": {"google": {"thought_signature": signature}}}

    def chunks(self, body: Json, saying: Saying) -> Iterator[Json]:
        """Chunks with Gemini's gaps.

        Usage comes unasked, with choices beside it; every second chunk has no `id`;
        `finish_reason` is not there before the last.
        """
        deltas = list(self.deltas(saying))
        if saying.call:
            deltas = [self._tool_delta(body, saying)]
        for number, delta in enumerate(deltas):
            choice: Json = {"index": 0, "delta": {"role": "assistant"} | delta}
            if number == len(deltas) - 1:
                choice["finish_reason"] = saying.finish_reason
            chunk = self._envelope("chat.completion.chunk", body)
            chunk |= {"choices": [choice], "usage": saying.usage(body)}
            if number % 2:
                del chunk["id"]
            yield chunk

    def deltas(self, saying: Saying) -> Iterator[Json]:
        """The words; the role comes with each of them."""
        return ({"content": word} for word in words(saying.text))

    def _tool_delta(self, body: Json, saying: Saying) -> Json:
        call = self.tool_call(saying)
        gap = {} if body["model"] == self._no_index else {"index": 0, "id": ""}
        return {"tool_calls": [call | gap]}


def thought_signature(function: str) -> str:
    """The signature that belongs to a call of a function."""
    return base64.b64encode(f"thought of {function}".encode()).decode()


def _check_signature(call: Json) -> None:
    sent = call.get("extra_content", {}).get("google", {}).get("thought_signature")
    name = call["function"]["name"]
    if sent == thought_signature(name):
        return
    problem = "not valid" if sent else "missing in functionCall parts"
    detail = f"Function call `{name}`: thought_signature is {problem}."
    raise RefusalError(Reason.INVALID_REQUEST, detail)
