"""How OpenAI, Gemini and Anthropic answer: their paths, errors, headers and quirks.

A key is right when it is the vendor's of `KEYS`, or that with more after a `-`. A few
names of models ask for an error: see `FAILING`.
"""

import base64
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import ClassVar, override

from tests.support import answers
from tests.support.answers import Saying, new_id, say
from tests.support.wire import DONE, RESET, Json, Request, Step, answer, event, stream

KEYS = {"openai": "sk-openai-mock", "gemini": "AIza-gemini-mock"}
KEYS |= {"anthropic": "sk-ant-mock"}
# What a model's name asks for, at all three vendors.
FAILING = {
    "rate-limited": "rate_limit",
    "overloaded": "overloaded",
    "server-error": "server_error",
}
BREAKING = "breaks-off"

type Endpoint = Callable[[Request], list[Step]]


class RefusalError(Exception):
    """The vendor refuses a request; how it says so stands in its table of errors."""

    def __init__(self, kind: str, detail: str = "") -> None:
        """Refuse; the detail is what the vendor's message is about."""
        super().__init__(kind)
        self.kind, self.detail = kind, detail


class Dialect(ABC):
    """How one vendor answers: called with a request, it gives the steps."""

    name: ClassVar[str]
    base_path: ClassVar[str] = ""
    models: ClassVar[tuple[str, ...]]
    media_type: ClassVar[str] = "application/json"
    id_header: ClassVar[str] = ""
    headers: ClassVar[dict[str, str]]
    # Headers that come with some errors only.
    extra: ClassVar[dict[str, dict[str, str]]] = {"rate_limit": {"retry-after": "1"}}
    # Status, what the vendor calls it, and the message about the detail.
    errors: ClassVar[dict[str, tuple[int, str, str]]]

    def __call__(self, request: Request) -> list[Step]:
        """Answer a request."""
        try:
            endpoint = self._endpoint(request)
            self._check_key(request)
            return endpoint(request)
        except RefusalError as refusal:
            return [self._refuse(request, refusal)]
        except (AttributeError, LookupError, TypeError, ValueError, RecursionError):
            detail = "The request is not of the expected form."
            return [self._refuse(request, RefusalError("invalid", detail))]

    @abstractmethod
    def error(self, request: Request, refusal: RefusalError) -> Json | list[Json]:
        """The body of the vendor's own error."""

    def endpoints(self) -> dict[str, Endpoint]:
        """The routes, without the path of the version."""
        return {"POST /chat/completions": self._chat}

    def _endpoint(self, request: Request) -> Endpoint:
        prefix = self.base_path or "/v1"
        path = request.path.removeprefix(prefix)
        endpoint = self.endpoints().get(f"{request.method} {path}")
        if not endpoint or not request.path.startswith(prefix):
            raise RefusalError("unknown_path", f"{request.method} {request.path}")
        return endpoint

    def _check_key(self, request: Request) -> None:
        own = request.header("x-api-key") if _is_native(request) else None
        key, right = own or request.key, KEYS[self.name]
        if key is None:
            raise RefusalError("missing_key")
        if not f"{key}-".startswith(f"{right}-"):
            raise RefusalError("wrong_key", key)

    def _refuse(self, request: Request, refusal: RefusalError) -> bytes:
        body = json.dumps(self.error(request, refusal), indent=2).encode() + b"\n"
        headers = self._all_headers(self.media_type) | self.extra.get(refusal.kind, {})
        return answer(body, self.errors[refusal.kind][0], headers)

    def _all_headers(self, media_type: str) -> dict[str, str]:
        own = {self.id_header: new_id("req_")} if self.id_header else {}
        return {"content-type": media_type} | own | self.headers

    def read(self, request: Request) -> Json:
        """The body of a request, with a model that this vendor has."""
        body: Json = request.json
        model = body["model"]
        if model in FAILING:
            raise RefusalError(FAILING[model], model)
        if model not in (*self.models, BREAKING):
            raise RefusalError("unknown_model", model)
        return body

    def reply(
        self, body: Json, whole: Json, events: Iterable[bytes] = ()
    ) -> list[Step]:
        """A regular answer or a stream; "breaks-off" breaks it in the middle."""
        breaks = body["model"] == BREAKING
        if not body.get("stream"):
            content = json.dumps(whole, indent=2).encode() + b"\n"
            headers = self._all_headers(self.media_type)
            return [RESET] if breaks else [answer(content, headers=headers)]
        headers = self._all_headers("text/event-stream; charset=utf-8")
        pieces = list(events)
        if breaks:
            return stream(*pieces[: len(pieces) // 2], headers=headers, end=RESET)
        return stream(*pieces, headers=headers)

    def say(self, body: Json) -> Saying:
        """What the model says to a request of any form."""
        if not body.get("messages", body.get("input")):
            raise RefusalError("invalid", "Missing required parameter: 'messages'.")
        return say(body)

    def _chat(self, request: Request) -> list[Step]:
        body = self.read(request)
        said = self.say(body)
        events = [event(chunk) for chunk in self.chunks(body, said)]
        whole = answers.chat(said, self.call(said))
        return self.reply(body, whole, [*events, DONE])

    def call(self, said: Saying) -> Json:
        """The entry in `tool_calls`."""
        return answers.chat_call(said)

    def chunks(self, body: Json, said: Saying) -> Iterable[Json]:
        """The chunks of a streamed chat completion."""
        return answers.chat_chunks(body, said)


def openai_error(message: str, kind: str, code: str | None) -> Json:
    """An error in OpenAI's form."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


_INVALID = "invalid_request_error"


class OpenAI(Dialect):
    """OpenAI: every form but Messages."""

    name = "openai"
    id_header = "x-request-id"
    models = (
        "gpt-4o",
        "gpt-4o-mini",
        "gpt-4.1-nano",
        "gpt-5.6-luna",
        "gpt-3.5-turbo-instruct",
        "text-embedding-3-small",
    )
    errors: ClassVar = {
        "missing_key": (401, "", "You didn't provide an API key."),
        "wrong_key": (401, "invalid_api_key", "Incorrect API key provided: {}."),
        "rate_limit": (429, "rate_limit_exceeded", "Rate limit reached for {}."),
        "overloaded": (503, "", "{} is overloaded."),
        "server_error": (500, "", "The server had an error."),
        "unknown_model": (404, "model_not_found", "The model `{}` does not exist."),
        "unknown_path": (404, "unknown_url", "Unknown request URL: {}."),
        "invalid": (400, "", "{}"),
    }
    extra: ClassVar = {
        "rate_limit": {"retry-after": "1", "retry-after-ms": "1000"},
        "wrong_key": {"www-authenticate": 'Bearer realm="OpenAI API"'},
    }
    headers: ClassVar = {
        "openai-version": "2020-10-01",
        "openai-organization": "user-loopback",
        "openai-project": "proj_loopback",
        "openai-processing-ms": "12",
        "x-ratelimit-limit-requests": "10000",
        "x-ratelimit-remaining-requests": "9999",
        "set-cookie": "__cf_bm=loopback; path=/; HttpOnly; Secure",
        "server": "cloudflare",
    }

    @override
    def error(self, request: Request, refusal: RefusalError) -> Json:
        status, code, message = self.errors[refusal.kind]
        kinds = {429: "requests", 500: "server_error", 503: "server_error"}
        about, kind = refusal.detail, kinds.get(status, _INVALID)
        if refusal.kind != "wrong_key":
            return openai_error(message.format(about), kind, code or None)
        # The key comes back masked, and the status stands in the body as well.
        masked = f"{about[:8]}{'*' * 8}{about[-4:]}"
        return openai_error(message.format(masked), kind, code) | {"status": status}

    @override
    def endpoints(self) -> dict[str, Endpoint]:
        return super().endpoints() | {
            "POST /completions": self._complete,
            "POST /embeddings": self._embed,
            "POST /responses": self._respond,
        }

    def _complete(self, request: Request) -> list[Step]:
        body = self.read(request)
        whole, events = answers.completion(body)
        return self.reply(body, whole, [*events, DONE])

    def _embed(self, request: Request) -> list[Step]:
        body = self.read(request)
        return self.reply(body, answers.embeddings(body))

    def _respond(self, request: Request) -> list[Step]:
        body = self.read(request)
        said = self.say(body)
        whole = answers.response(body, said, answers.response_item(said))
        return self.reply(body, whole, answers.response_events(whole, said))


class Gemini(Dialect):
    """Gemini: errors in an array, unknown names refused, streams with gaps.

    A streamed tool call comes without `index` from `gemini-2.5-flash-lite`, and with
    `id: ""` from `gemini-3.5-flash-lite`.
    """

    name = "gemini"
    base_path = "/v1beta/openai"
    models = ("gemini-2.5-flash-lite", "gemini-3.5-flash-lite")
    media_type = "application/json; charset=UTF-8"
    extra: ClassVar = {}
    errors: ClassVar = {
        "missing_key": (400, "INVALID_ARGUMENT", "Missing Authorization header."),
        "wrong_key": (400, "INVALID_ARGUMENT", "API key not valid."),
        "rate_limit": (429, "RESOURCE_EXHAUSTED", "Quota of {} exceeded."),
        "overloaded": (503, "UNAVAILABLE", "The model is overloaded."),
        "server_error": (500, "INTERNAL", "Internal error encountered."),
        "unknown_model": (404, "NOT_FOUND", "models/{} is not found."),
        "unknown_path": (404, "NOT_FOUND", "{} is not found."),
        "invalid": (400, "INVALID_ARGUMENT", "{}"),
    }
    # Any other name at the top of a request is refused, whatever its value.
    known: ClassVar = set(
        re.findall(
            r"\w+",
            """extra_body logprobs max_completion_tokens max_tokens messages modalities
            model n parallel_tool_calls presence_penalty reasoning_effort stop stream
            response_format stream_options temperature tool_choice tools top_logprobs
            top_p user""",
        )
    )

    headers: ClassVar = {
        "vary": "Origin, X-Origin, Referer",
        "x-gemini-service-tier": "standard",
        "server-timing": "gfet4t7; dur=12",
        "server": "scaffolding on HTTPServer2",
    }

    @override
    def error(self, request: Request, refusal: RefusalError) -> list[Json]:
        code, status, message = self.errors[refusal.kind]
        text = message.format(refusal.detail)
        error: Json = {"code": code, "message": text, "status": status}
        google = "type.googleapis.com/google.rpc"
        if refusal.kind == "wrong_key":
            detail = {"@type": f"{google}.ErrorInfo", "reason": "API_KEY_INVALID"}
            error["details"] = [detail | {"domain": "googleapis.com"}]
        if refusal.kind == "rate_limit":
            error["details"] = [{"@type": f"{google}.RetryInfo", "retryDelay": "1s"}]
        return [{"error": error}]

    @override
    def say(self, body: Json) -> Saying:
        if unknown := sorted(body.keys() - self.known):
            problem = 'Invalid JSON payload received. Unknown name "{}": '
            lines = [problem.format(name) + "Cannot find field." for name in unknown]
            raise RefusalError("invalid", "\n".join(lines))
        for message in body.get("messages") or []:
            for call in message.get("tool_calls") or []:
                self._check_signature(call)
        return super().say(body)

    def _check_signature(self, call: Json) -> None:
        google = call.get("extra_content", {}).get("google", {})
        name, sent = call["function"]["name"], google.get("thought_signature")
        if sent != thought_signature(name):
            problem = "not valid" if sent else "missing in functionCall parts"
            text = f"Function call `{name}`: thought_signature is {problem}."
            raise RefusalError("invalid", text)

    @override
    def call(self, said: Saying) -> Json:
        signature = {"google": {"thought_signature": thought_signature(said.name)}}
        return super().call(said) | {"extra_content": signature}

    @override
    def chunks(self, body: Json, said: Saying) -> Iterable[Json]:
        """Usage unasked, an `id` in every second chunk, `finish_reason` in the last."""
        deltas: list[Json] = [{"content": piece} for piece in said.pieces]
        if said.name:
            gap = {} if said.model == self.models[0] else {"index": 0, "id": ""}
            deltas = [{"tool_calls": [self.call(said) | gap]}]
        for number, delta in enumerate(deltas, 1):
            choice: Json = {"index": 0, "delta": {"role": "assistant"} | delta}
            if number == len(deltas):
                choice["finish_reason"] = "tool_calls" if said.name else "stop"
            chunk = answers.envelope("chat.completion.chunk", said.model)
            chunk |= {"choices": [choice], "usage": answers.usage(said)}
            if number % 2 == 0:
                del chunk["id"]
            yield chunk


def thought_signature(function: str) -> str:
    """The signature that Gemini gives to a call and wants back on the next turn."""
    return base64.b64encode(f"thought of {function}".encode()).decode()


class Anthropic(Dialect):
    """Anthropic: Messages in its own form, Chat Completions in OpenAI's."""

    name = "anthropic"
    id_header = "request-id"
    models = ("claude-haiku-4-5-20251001", "claude-haiku-4-5")
    errors: ClassVar = {
        "missing_key": (401, "authentication_error", "x-api-key header is required"),
        "wrong_key": (401, "authentication_error", "invalid x-api-key"),
        "rate_limit": (429, "rate_limit_error", "Rate limit of {} exceeded."),
        "overloaded": (529, "overloaded_error", "Overloaded"),
        "server_error": (500, "api_error", "Internal server error"),
        "unknown_model": (404, "not_found_error", "model: {}"),
        "unknown_path": (404, "not_found_error", "Not found: {}"),
        "invalid": (400, _INVALID, "{}"),
    }
    headers: ClassVar = {
        "x-ratelimit-limit-requests": "4000",
        "x-ratelimit-remaining-requests": "3999",
        "anthropic-ratelimit-requests-limit": "4000",
        "anthropic-ratelimit-requests-remaining": "3999",
        "anthropic-organization-id": "loopback",
        "server": "cloudflare",
    }

    @override
    def error(self, request: Request, refusal: RefusalError) -> Json:
        _, code, message = self.errors[refusal.kind]
        text = message.format(refusal.detail)
        if _is_native(request):
            error = {"type": code, "message": text}
            return {"type": "error", "error": error, "request_id": new_id("req_")}
        if refusal.kind == "wrong_key":
            text = "Invalid Anthropic API Key"
        return openai_error(text, _INVALID, code)

    @override
    def endpoints(self) -> dict[str, Endpoint]:
        return super().endpoints() | {
            "POST /messages": self._message,
            "POST /messages/count_tokens": self._count,
        }

    def _read_native(self, request: Request) -> Json:
        if not request.header("anthropic-version"):
            raise RefusalError("invalid", "anthropic-version: header is required")
        return self.read(request)

    def _message(self, request: Request) -> list[Step]:
        body = self._read_native(request)
        if not isinstance(body.get("max_tokens"), int):
            raise RefusalError("invalid", "max_tokens: Field required")
        said = self.say(body)
        whole = answers.message(said)
        return self.reply(body, whole, answers.message_events(whole, said))

    def _count(self, request: Request) -> list[Step]:
        body = self._read_native(request)
        return self.reply(body, {"input_tokens": self.say(body).heard})


def _is_native(request: Request) -> bool:
    return "/messages" in request.path
