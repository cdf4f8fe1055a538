"""The model routes in OpenAI's form, with Llama Stack's fields and a display name."""

import time
from typing import Any

import msgspec
from starlette.types import Message, Send


class ModelResponse:
    """Completes Llama Stack's responses about models.

    https://platform.openai.com/docs/api-reference/models: clients read these fields.

    Args:
        send: sends the completed response.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._start: Message = {}
        self._body = b""

    async def send(self, message: Message) -> None:
        """Hold the response until it is complete, then send it."""
        if message["type"] == "http.response.start":
            self._start = message
            return
        self._body += message.get("body", b"")
        if message.get("more_body"):
            return
        body = _complete(self._body)
        headers = [p for p in self._start["headers"] if p[0] != b"content-length"]
        headers.append((b"content-length", b"%d" % len(body)))
        await self._send({**self._start, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})


def _complete(body: bytes) -> bytes:
    try:
        response = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return body
    match response:
        case {"data": list(models)}:
            models = [_with_display_name(model) for model in models]
            return msgspec.json.encode({"object": "list", **response, "data": models})
        case {"identifier": name}:
            fields = {"id": name, "object": "model", "owned_by": "llama_stack"}
            fields |= {"created": int(time.time()), **response}
            return msgspec.json.encode(_with_display_name(fields))
    return body


def _with_display_name(model: dict[str, Any]) -> dict[str, Any]:
    """Copy the name that run.yaml has in the model's metadata."""
    for metadata in (model.get("custom_metadata"), model.get("metadata")):
        if isinstance(metadata, dict) and "display_name" in metadata:
            return {**model, "display_name": metadata["display_name"]}
    return model
