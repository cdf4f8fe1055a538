"""What the vendors' dialects have in common: from a request to a reply."""

import json
import re
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import replace
from http import HTTPStatus
from typing import ClassVar

from tests.upstream.refusal import (
    BREAKING_MODEL,
    REFUSING_MODELS,
    Reason,
    RefusalError,
)
from tests.upstream.reply import DONE, Json, Reply, event, whole
from tests.upstream.saying import Saying, say
from tests.upstream.wire import Connection, Request


class Dialect(ABC):
    """How one vendor speaks the OpenAI-compatible protocol.

    Attributes:
        name: The vendor's name.
        base_path: The path in the vendor's base URL.
        models: The models it knows.
    """

    name: ClassVar[str]
    base_path: ClassVar[str] = ""
    models: ClassVar[tuple[str, ...]]
    _version_path: ClassVar[str] = "/v1"
    _media_type: ClassVar[str] = "application/json"

    async def answer(
        self, request: Request, connection: Connection, pause: float
    ) -> None:
        """Answer a request as the vendor does.

        Args:
            request: The request, with its body.
            connection: Where the answer goes.
            pause: Seconds between the events of a stream.
        """
        await self.reply_to(request).send(connection, pause)

    def reply_to(self, request: Request) -> Reply:
        """The answer to a request, not yet written."""
        try:
            route = self._route(request)
            self._check_key(request.key)
            return route(request)
        except RefusalError as refusal:
            reply = self.refuse(refusal)
        except (AttributeError, LookupError, TypeError, ValueError):
            detail = "The request is not of the expected form."
            reply = self.refuse(RefusalError(Reason.INVALID_REQUEST, detail))
        return replace(reply, headers=self.headers(self._media_type) | reply.headers)

    @abstractmethod
    def refuse(self, refusal: RefusalError) -> Reply:
        """The vendor's own error for a refusal; its headers are added to the others."""

    @abstractmethod
    def headers(self, media_type: str) -> dict[str, str]:
        """The headers of every answer of this vendor."""

    def _endpoints(self) -> dict[tuple[str, str], Callable[[Request], Reply]]:
        return {
            ("GET", "/models"): self._list_models,
            ("POST", "/chat/completions"): self._chat,
        }

    def _route(self, request: Request) -> Callable[[Request], Reply]:
        prefix = self.base_path or self._version_path
        for (method, path), endpoint in self._endpoints().items():
            if (request.method, request.path) == (method, prefix + path):
                return endpoint
        detail = f"{request.method} {request.path}"
        raise RefusalError(Reason.UNKNOWN_PATH, detail)

    def _check_key(self, key: str | None) -> None:
        if key is None:
            raise RefusalError(Reason.MISSING_KEY)
        if "wrong" in key:
            raise RefusalError(Reason.WRONG_KEY, key)

    def _list_models(self, _request: Request) -> Reply:
        models = [
            {"id": model, "object": "model", "owned_by": self.name.lower()}
            for model in self.models
        ]
        return self._whole({"object": "list", "data": models})

    def _body(self, request: Request) -> Json:
        try:
            body = request.json
        except (ValueError, RecursionError):
            body = None
        if not isinstance(body, dict):
            raise RefusalError(Reason.BROKEN_BODY)
        self._check_model(body.get("model"))
        self.check(body)
        return body

    def _check_model(self, model: object) -> None:
        if not isinstance(model, str):
            detail = "you must provide a model parameter"
            raise RefusalError(Reason.INVALID_REQUEST, detail)
        if model in REFUSING_MODELS:
            raise RefusalError(REFUSING_MODELS[model], model)
        if model not in (*self.models, BREAKING_MODEL):
            raise RefusalError(Reason.UNKNOWN_MODEL, model)

    def check(self, body: Json) -> None:
        """Refuse what this vendor refuses: here, a strange number of choices.

        Raises:
            RefusalError: The vendor does not take the request.
        """
        if body.get("n") not in {None, *range(1, 129)}:
            raise RefusalError(Reason.INVALID_REQUEST, "'n' must be from 1 to 128.")

    def say(self, body: Json) -> Saying:
        """What the model says to a chat request."""
        return say(body)

    def _chat(self, request: Request) -> Reply:
        body = self._body(request)
        saying = self.say(body)
        if body.get("stream"):
            events = [event(chunk) for chunk in self.chunks(body, saying)]
            reply = self._stream(events)
        else:
            reply = self._whole(self.completion(body, saying))
        return replace(reply, breaks_off=body["model"] == BREAKING_MODEL)

    def _whole(self, body: Json) -> Reply:
        return whole(body, self.headers(self._media_type))

    def _stream(self, events: list[bytes]) -> Reply:
        headers = self.headers("text/event-stream; charset=utf-8")
        return Reply(HTTPStatus.OK, headers, events=[*events, DONE])

    def completion(self, body: Json, saying: Saying) -> Json:
        """The body of a regular answer."""
        message: Json = {"role": "assistant", "content": saying.text or None}
        if saying.call:
            message["tool_calls"] = [self.tool_call(saying)]
        choice = {"message": message, "finish_reason": saying.finish_reason}
        choices = [{"index": n} | choice for n in range(body.get("n") or 1)]
        return self._envelope("chat.completion", body) | {
            "choices": choices,
            "usage": saying.usage(body),
        }

    def tool_call(self, saying: Saying) -> Json:
        """The entry in `tool_calls` of a regular answer."""
        call = saying.call
        if call is None:
            message = "no tool is called here"
            raise ValueError(message)
        function = {"name": call.name, "arguments": call.arguments}
        return {"id": call.call_id, "type": "function", "function": function}

    def chunks(self, body: Json, saying: Saying) -> Iterator[Json]:
        """The chunks of a streamed answer, in OpenAI's own form."""
        envelope = self._envelope("chat.completion.chunk", body)
        wants_usage = bool((body.get("stream_options") or {}).get("include_usage"))
        if wants_usage:
            envelope["usage"] = None
        for delta in self.deltas(saying):
            choice = {"index": 0, "delta": delta, "finish_reason": None}
            yield envelope | {"choices": [choice]}
        last = {"index": 0, "delta": {}, "finish_reason": saying.finish_reason}
        yield envelope | {"choices": [last]}
        if wants_usage:
            yield envelope | {"choices": [], "usage": saying.usage(body)}

    def deltas(self, saying: Saying) -> Iterator[Json]:
        """What the chunks add up: the role, then words or the parts of a tool call."""
        yield {"role": "assistant", "content": None if saying.call else ""}
        for word in words(saying.text):
            yield {"content": word}
        if saying.call:
            call = self.tool_call(saying)
            opening = call | {"function": call["function"] | {"arguments": ""}}
            yield {"tool_calls": [{"index": 0} | opening]}
            for part in words(saying.call.arguments):
                yield {"tool_calls": [{"index": 0, "function": {"arguments": part}}]}

    def _envelope(self, kind: str, body: Json) -> Json:
        return {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "object": kind,
            "created": int(time.time()),
            "model": body["model"],
        }


def words(text: str) -> list[str]:
    """The words of a text, each with the space behind it."""
    return re.findall(r"\S+\s*", text)


def openai_error(
    message: str, kind: str, code: str | None, param: str | None = None
) -> Json:
    """An error in OpenAI's form."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def error_body(error: Json | list[Json], status: int, **headers: str) -> Reply:
    """A refusal's reply; `retry_after` and the like become headers."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, named, json.dumps(error, indent=2).encode() + b"\n")
