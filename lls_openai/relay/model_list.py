"""The list of models, in OpenAI's form with Llama Stack's fields beside."""

import time

import msgspec
from starlette.types import Message, Send

from lls_openai.errors import error_body


def openai_form(send: Send) -> Send:
    """Make a send that completes Llama Stack's answers about models.

    https://platform.openai.com/docs/api-reference/models: clients read these fields.
    """
    start: Message = {}

    async def send_complete(message: Message) -> None:
        if message["type"] == "http.response.start":
            start.update(message)
            return
        # FastAPI sends JSON at once.
        whole = _complete(start["status"], message["body"])
        kept = (p for p in start["headers"] if p[0] != b"content-length")
        start["headers"] = [*kept, (b"content-length", b"%d" % len(whole))]
        await send(start)
        await send({"type": "http.response.body", "body": whole})

    return send_complete


def _complete(status: int, body: bytes) -> bytes:
    match msgspec.json.decode(body):
        case {"data": list()} as models:
            return msgspec.json.encode({"object": "list", **models})
        case {"identifier": name} as model:
            # What Llama Stack gives it in the list.
            own = {"id": name, "object": "model", "owned_by": "llama_stack"}
            return msgspec.json.encode({**own, "created": int(time.time()), **model})
        case {"error": {"message": str(message)}} if status == 404:  # noqa: PLR2004 (RFC 9110)
            kind = "invalid_request_error"
            return error_body(message, kind, "model", "model_not_found")
    return body
