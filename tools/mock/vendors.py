"""How OpenAI, Gemini and Anthropic answer: their paths, errors and quirks.

A key is right when it is the vendor's of `KEYS`, or that with more after a `-`. The
names RATE_LIMITED and BREAKING of models ask for a failure, at all three.
"""

import base64
import json
from collections.abc import Callable, Iterable
from typing import ClassVar, override

from tests.support.http import KEYS
from tests.support.wire import DONE, RESET, Json, Request, Step, event, respond, stream
from tools.mock import completions
from tools.mock.completions import Saying, new_id, say

RATE_LIMITED, BREAKING = "rate-limited", "breaks-off"

# A regular answer, and the events when it is streamed.
type Reply = tuple[Json, Iterable[bytes]]


class RefusalError(Exception):
    """The vendor refuses a request, for which OpenAI has this code."""

    def __init__(self, status: int, code: str | None, message: str) -> None:
        self.status, self.code, self.message = status, code, message


class Dialect:
    """How one vendor answers: called with a request, it gives the steps."""

    name: ClassVar[str]
    base_path: ClassVar[str] = ""
    models: ClassVar[tuple[str, ...]]
    media_type: ClassVar[str] = "application/json"
    id_header: ClassVar[str] = ""
    wrong_key_status: ClassVar[int] = 401

    def __call__(self, request: Request) -> list[Step]:
        try:
            endpoint = self._endpoint(request)
            self._check_key(request)
            body = self.read(request)
            return self._reply(body, *endpoint(body))
        except RefusalError as refusal:
            return [self._refuse(request, refusal)]
        except (AttributeError, LookupError, TypeError, ValueError, RecursionError):
            told = "The request is not of the expected form"
            return [self._refuse(request, RefusalError(400, None, told))]

    def error(self, _request: Request, refusal: RefusalError) -> Json | list[Json]:
        """The body of an error."""
        error = {"message": refusal.message, "type": "invalid_request_error"}
        return {"error": error | {"param": None, "code": refusal.code}}

    def _refuse(self, request: Request, refusal: RefusalError) -> bytes:
        headers = self._headers(self.media_type)
        headers |= {"retry-after": "1"} if refusal.status == 429 else {}
        error = json.dumps(self.error(request, refusal))
        return respond(error.encode(), refusal.status, headers)

    def endpoints(self) -> dict[str, Callable[[Json], Reply]]:
        """The routes, without the path of the version."""
        return {"/chat/completions": self._chat}

    def _endpoint(self, request: Request) -> Callable[[Json], Reply]:
        prefix = self.base_path or "/v1"
        endpoint = self.endpoints().get(request.path.removeprefix(prefix))
        is_known = request.method == "POST" and request.path.startswith(prefix)
        if not endpoint or not is_known:
            told = f"Unknown request URL: {request.method} {request.path}"
            raise RefusalError(404, "unknown_url", told)
        return endpoint

    def _check_key(self, request: Request) -> None:
        own = request.header("x-api-key") if _is_native(request) else None
        key = own or request.key or ""
        if not f"{key}-".startswith(f"{KEYS[self.name]}-"):
            told = f"Incorrect API key: {key[:8]}********"
            raise RefusalError(self.wrong_key_status, "invalid_api_key", told)

    def _headers(self, media_type: str) -> dict[str, str]:
        own = {self.id_header: new_id("req_")} if self.id_header else {}
        return {"content-type": media_type} | own

    def read(self, request: Request) -> Json:
        """The body of a request, with a model that this vendor has."""
        body: Json = request.json
        model = body["model"]
        if model == RATE_LIMITED:
            raise RefusalError(429, "rate_limit_exceeded", "Rate limit reached")
        if model not in (*self.models, BREAKING):
            told = f"The model {model} does not exist"
            raise RefusalError(404, "model_not_found", told)
        return body

    def _reply(self, body: Json, whole: Json, events: Iterable[bytes]) -> list[Step]:
        """A regular answer or a stream; "breaks-off" breaks it in the middle."""
        breaks = body["model"] == BREAKING
        if body.get("stream"):
            headers = self._headers("text/event-stream; charset=utf-8")
            pieces = list(events)
            if breaks:
                return stream(*pieces[: len(pieces) // 2], headers=headers, end=RESET)
            return stream(*pieces, headers=headers)
        # As all three vendors do: over several lines.
        content = json.dumps(whole, indent=2).encode()
        headers = self._headers(self.media_type)
        return [RESET if breaks else respond(content, headers=headers)]

    def _chat(self, body: Json) -> Reply:
        said = say(body)
        events = [event(chunk) for chunk in self.chunks(body, said)]
        return completions.chat(said, self.call(said)), [*events, DONE]

    def call(self, said: Saying) -> Json:
        """The entry in `tool_calls`."""
        return completions.chat_call(said)

    def chunks(self, body: Json, said: Saying) -> Iterable[Json]:
        """The chunks of a streamed chat completion."""
        return completions.chat_chunks(body, said)


class OpenAI(Dialect):
    """OpenAI: Chat Completions, Embeddings and Responses."""

    name = "openai"
    id_header = "x-request-id"
    models = (
        *("gpt-4o", "gpt-4o-mini", "gpt-4.1-nano", "gpt-5.6-luna"),
        "text-embedding-3-small",
    )

    @override
    def endpoints(self) -> dict[str, Callable[[Json], Reply]]:
        return super().endpoints() | {
            "/embeddings": lambda body: (completions.embeddings(body), []),
            "/responses": self._respond,
        }

    def _respond(self, body: Json) -> Reply:
        said = say(body)
        whole = completions.response(said)
        return whole, completions.response_events(whole, said)


class Gemini(Dialect):
    """Gemini: errors in an array, signed calls of tools, streams with gaps.

    A streamed tool call comes without `index` from `gemini-2.5-flash-lite`, and with
    `id: ""` from `gemini-3.5-flash-lite`.
    """

    name = "gemini"
    base_path = "/v1beta/openai"
    models = ("gemini-2.5-flash-lite", "gemini-3.5-flash-lite")
    media_type = "application/json; charset=UTF-8"
    wrong_key_status = 400

    @override
    def error(self, request: Request, refusal: RefusalError) -> list[Json]:
        names = {404: "NOT_FOUND", 429: "RESOURCE_EXHAUSTED"}
        error = {"code": refusal.status, "message": refusal.message}
        own = {"status": names.get(refusal.status, "INVALID_ARGUMENT")}
        return [{"error": error | own}]

    @override
    def read(self, request: Request) -> Json:
        body = super().read(request)
        for message in body.get("messages") or []:
            for call in message.get("tool_calls") or []:
                google = call.get("extra_content", {}).get("google", {})
                name = call["function"]["name"]
                if google.get("thought_signature") != _signature(name):
                    told = f"Function call `{name}` has no valid thought_signature."
                    raise RefusalError(400, None, told)
        return body

    @override
    def call(self, said: Saying) -> Json:
        google = {"thought_signature": _signature(said.name)}
        return super().call(said) | {"extra_content": {"google": google}}

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
                choice["finish_reason"] = completions.chat_reason(said)
            chunk = completions.envelope("chat.completion.chunk", said.model)
            chunk |= {"choices": [choice], "usage": completions.chat_usage(said)}
            if number % 2 == 0:
                del chunk["id"]
            yield chunk


def _signature(function: str) -> str:
    """What Gemini gives to a call and wants back on the next turn."""
    return base64.b64encode(f"thought of {function}".encode()).decode()


class Anthropic(Dialect):
    """Anthropic: Messages in its own form, Chat Completions in OpenAI's."""

    name = "anthropic"
    id_header = "request-id"
    models = ("claude-haiku-4-5-20251001", "claude-haiku-4-5")

    @override
    def error(self, request: Request, refusal: RefusalError) -> Json | list[Json]:
        types = {401: "authentication_error", 404: "not_found_error"}
        types |= {400: "invalid_request_error", 429: "rate_limit_error"}
        kind, told = types[refusal.status], refusal.message
        if not _is_native(request):
            return super().error(request, RefusalError(refusal.status, kind, told))
        error = {"type": kind, "message": told}
        return {"type": "error", "error": error, "request_id": new_id("req_")}

    @override
    def endpoints(self) -> dict[str, Callable[[Json], Reply]]:
        return super().endpoints() | {
            "/messages": self._message,
            "/messages/count_tokens": self._count,
        }

    @override
    def read(self, request: Request) -> Json:
        if _is_native(request) and not request.header("anthropic-version"):
            raise RefusalError(400, None, "anthropic-version: header is required")
        return super().read(request)

    def _message(self, body: Json) -> Reply:
        if not isinstance(body.get("max_tokens"), int):
            raise RefusalError(400, None, "max_tokens: Field required")
        said = say(body)
        whole = completions.message(said)
        return whole, completions.message_events(whole, said)

    def _count(self, body: Json) -> Reply:
        return {"input_tokens": say(body).heard}, []


def _is_native(request: Request) -> bool:
    return "/messages" in request.path


DIALECTS = {"openai": OpenAI(), "gemini": Gemini(), "anthropic": Anthropic()}
