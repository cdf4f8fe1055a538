"""Mocks of OpenAI, Gemini and Anthropic: their routes, errors and quirks.

A valid key is the vendor's one of `KEYS`, also with `-` and more after it. The model
names RATE_LIMITED and BREAKING cause that failure at each vendor.
"""

import base64
import json
from collections.abc import Callable, Iterable
from typing import ClassVar, override

from tests.support.http import KEYS
from tests.support.wire import DONE, RESET, Json, Request, Step, event, respond, stream
from tools.mock import completions
from tools.mock.completions import Completion, complete, new_id

RATE_LIMITED, BREAKING = "rate-limited", "breaks-off"

# A buffered response, and the events of a stream.
type Reply = tuple[Json, Iterable[bytes]]


class VendorError(Exception):
    """An error response, with OpenAI's code for it."""

    def __init__(self, status: int, code: str | None, message: str) -> None:
        self.status, self.code, self.message = status, code, message


class Vendor:
    """Responds to a request as one vendor does; subclasses override its quirks."""

    name: ClassVar[str]
    base_path: ClassVar[str] = "/v1"
    models: ClassVar[tuple[str, ...]]
    media_type: ClassVar[str] = "application/json"
    id_header: ClassVar[str] = ""
    invalid_key_status: ClassVar[int] = 401

    def __call__(self, request: Request) -> list[Step]:
        try:
            endpoint = self._endpoint(request)
            self._check_key(request)
            body = self.read(request)
            return self._reply(body, *endpoint(body))
        except VendorError as error:
            return [self._respond_error(request, error)]
        except (AttributeError, LookupError, TypeError, ValueError, RecursionError):
            malformed = VendorError(400, None, "The request is malformed")
            return [self._respond_error(request, malformed)]

    def error_body(self, _request: Request, error: VendorError) -> Json | list[Json]:
        body = {"message": error.message, "type": "invalid_request_error"}
        return {"error": body | {"param": None, "code": error.code}}

    def _respond_error(self, request: Request, error: VendorError) -> bytes:
        headers = self._headers(self.media_type)
        headers |= {"retry-after": "1"} if error.status == 429 else {}
        body = json.dumps(self.error_body(request, error))
        return respond(body.encode(), error.status, headers)

    def endpoints(self) -> dict[str, Callable[[Json], Reply]]:
        """Return the routes below the base path."""
        return {"/chat/completions": self._chat}

    def _endpoint(self, request: Request) -> Callable[[Json], Reply]:
        path = request.path
        endpoint = self.endpoints().get(path.removeprefix(self.base_path))
        if not endpoint or request.method != "POST":
            message = f"Unknown request URL: {request.method} {path}"
            raise VendorError(404, "unknown_url", message)
        return endpoint

    def _check_key(self, request: Request) -> None:
        key = (_is_messages(request) and request.header("x-api-key")) or request.key
        if not f"{key}-".startswith(f"{KEYS[self.name]}-"):
            message = f"Incorrect API key: {(key or '')[:8]}********"
            raise VendorError(self.invalid_key_status, "invalid_api_key", message)

    def _headers(self, media_type: str) -> dict[str, str]:
        request_id = {self.id_header: new_id("req_")} if self.id_header else {}
        return {"content-type": media_type} | request_id

    def read(self, request: Request) -> Json:
        """Return the body of a request; raise an error for its model."""
        body: Json = request.json
        model = body["model"]
        if model == RATE_LIMITED:
            raise VendorError(429, "rate_limit_exceeded", "Rate limit reached")
        if model not in (*self.models, BREAKING):
            message = f"The model {model} does not exist"
            raise VendorError(404, "model_not_found", message)
        return body

    def _reply(self, body: Json, buffered: Json, events: Iterable[bytes]) -> list[Step]:
        breaks = body["model"] == BREAKING
        if body.get("stream"):
            headers = self._headers("text/event-stream; charset=utf-8")
            chunks = list(events)
            if breaks:
                half = chunks[: len(chunks) // 2]
                return stream(*half, headers=headers, end=RESET)
            return stream(*chunks, headers=headers)
        # All three vendors indent their JSON.
        content = json.dumps(buffered, indent=2).encode()
        return [
            RESET
            if breaks
            else respond(content, headers=self._headers(self.media_type))
        ]

    def _chat(self, body: Json) -> Reply:
        completion = complete(body)
        events = [event(chunk) for chunk in self.chunks(body, completion)]
        return completions.chat(completion, self.tool_call(completion)), [*events, DONE]

    def tool_call(self, completion: Completion) -> Json:
        """Return the entry in `tool_calls`."""
        return completions.chat_call(completion)

    def chunks(self, body: Json, completion: Completion) -> Iterable[Json]:
        """Return the chunks of a streamed chat completion."""
        return completions.chat_chunks(body, completion)


class OpenAI(Vendor):
    """OpenAI: Chat Completions, Embeddings and Responses."""

    name = "openai"
    id_header = "x-request-id"
    models = (
        *("gpt-4o", "gpt-4o-mini", "gpt-4.1-nano", "gpt-5.6-luna", "gpt-5.4-nano"),
        *("text-embedding-3-small", "text-embedding-ada-002"),
    )

    @override
    def endpoints(self) -> dict[str, Callable[[Json], Reply]]:
        return super().endpoints() | {
            "/embeddings": lambda body: (completions.embeddings(body), []),
            "/responses": self._respond,
        }

    def _respond(self, body: Json) -> Reply:
        completion = complete(body)
        response = completions.response(completion)
        return response, completions.response_events(response, completion)


class Gemini(Vendor):
    """Gemini: errors in an array, signed tool calls, incomplete chunks.

    A streamed tool call has no `index` from `gemini-2.5-flash-lite`, and `id: ""` from
    `gemini-3.5-flash-lite`.
    """

    name = "gemini"
    base_path = "/v1beta/openai"
    models = ("gemini-2.5-flash-lite", "gemini-3.5-flash-lite")
    media_type = "application/json; charset=UTF-8"
    invalid_key_status = 400

    @override
    def error_body(self, request: Request, error: VendorError) -> list[Json]:
        names = {404: "NOT_FOUND", 429: "RESOURCE_EXHAUSTED"}
        status = names.get(error.status, "INVALID_ARGUMENT")
        fields = {"code": error.status, "message": error.message, "status": status}
        return [{"error": fields}]

    @override
    def read(self, request: Request) -> Json:
        body = super().read(request)
        for message in body.get("messages") or []:
            for call in message.get("tool_calls") or []:
                google = call.get("extra_content", {}).get("google", {})
                name = call["function"]["name"]
                if google.get("thought_signature") != _signature(name):
                    problem = f"Function call `{name}` has no valid thought_signature."
                    raise VendorError(400, None, problem)
        return body

    @override
    def tool_call(self, completion: Completion) -> Json:
        google = {"thought_signature": _signature(completion.tool)}
        return super().tool_call(completion) | {"extra_content": {"google": google}}

    @override
    def chunks(self, body: Json, completion: Completion) -> Iterable[Json]:
        """Send usage in each chunk, `id` in every second, the reason in the last."""
        deltas: list[Json] = [{"content": word} for word in completion.words]
        if completion.tool:
            quirk = {} if completion.model == self.models[0] else {"index": 0, "id": ""}
            deltas = [{"tool_calls": [self.tool_call(completion) | quirk]}]
        for number, delta in enumerate(deltas, 1):
            choice: Json = {"index": 0, "delta": {"role": "assistant"} | delta}
            if number == len(deltas):
                choice["finish_reason"] = completions.chat_reason(completion)
            chunk = completions.envelope("chat.completion.chunk", completion.model)
            chunk |= {"choices": [choice], "usage": completions.chat_usage(completion)}
            if number % 2 == 0:
                del chunk["id"]
            yield chunk


def _signature(function: str) -> str:
    """Return the signature that Gemini adds to a call and requires in the next turn."""
    return base64.b64encode(f"thought of {function}".encode()).decode()


class Anthropic(Vendor):
    """Anthropic: Messages in its own format, Chat Completions in OpenAI's."""

    name = "anthropic"
    id_header = "request-id"
    models = ("claude-haiku-4-5-20251001", "claude-haiku-4-5", "claude-opus-5-5")

    @override
    def error_body(self, request: Request, error: VendorError) -> Json | list[Json]:
        types = {401: "authentication_error", 404: "not_found_error"}
        types |= {400: "invalid_request_error", 429: "rate_limit_error"}
        kind = types[error.status]
        if not _is_messages(request):
            openai = VendorError(error.status, kind, error.message)
            return super().error_body(request, openai)
        fields = {"type": kind, "message": error.message}
        return {"type": "error", "error": fields, "request_id": new_id("req_")}

    @override
    def endpoints(self) -> dict[str, Callable[[Json], Reply]]:
        return super().endpoints() | {
            "/messages": self._message,
            "/messages/count_tokens": self._count_tokens,
        }

    @override
    def read(self, request: Request) -> Json:
        if _is_messages(request) and not request.header("anthropic-version"):
            raise VendorError(400, None, "anthropic-version: header is required")
        return super().read(request)

    def _message(self, body: Json) -> Reply:
        if not isinstance(body.get("max_tokens"), int):
            raise VendorError(400, None, "max_tokens: Field required")
        completion = complete(body)
        message = completions.message(completion)
        return message, completions.message_events(message, completion)

    def _count_tokens(self, body: Json) -> Reply:
        return {"input_tokens": complete(body).input_tokens}, []


def _is_messages(request: Request) -> bool:
    return "/messages" in request.path


VENDORS = {"openai": OpenAI(), "gemini": Gemini(), "anthropic": Anthropic()}
