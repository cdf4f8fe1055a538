"""The model routes in OpenAI's form, with Llama Stack's fields and a display name."""

import time
from typing import Any

import msgspec

from lls_openai.errors import ResponseHeaders


def complete_models(_status: int, body: bytes) -> tuple[bytes, ResponseHeaders]:
    """Return a response about models with the fields that clients read.

    https://platform.openai.com/docs/api-reference/models
    """
    return _complete(body), []


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
