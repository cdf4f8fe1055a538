"""Llama Stack's own 401 and 429, in the contract's form.

Its authentication and quota middlewares send one start message without a length and one
body, `{"error": {"message": "..."}}`, and no header but a content type; CORS adds its
own headers.
"""

import time

import msgspec
from starlette.types import Scope, Send

from lls_openai.context import RequestContext
from lls_openai.errors import RelayError, ResponseHeaders
from lls_openai.relay.held_response import HeldResponse
from lls_openai.relay.routes import uses_anthropic_form

# Llama Stack's only quota period: days since the epoch, in UTC.
_QUOTA_SECONDS = 86_400

_CODES = {401: "invalid_token", 429: "quota_exceeded"}


class _Detail(msgspec.Struct):
    message: str


class _StackError(msgspec.Struct):
    error: _Detail


def hold_stack_errors(scope: Scope, context: RequestContext, send: Send) -> Send:
    """Return a `send` that converts Llama Stack's errors and passes all else."""

    def applies(status: int) -> bool:
        # The relay's own errors have a code, and an upstream's responses a model.
        return status in _CODES and not (context.code or context.model)

    def convert(status: int, body: bytes) -> tuple[bytes, ResponseHeaders]:
        error = RelayError(_CODES[status], _message(body))
        context.code = error.code
        added = error.headers
        if error.code == "quota_exceeded":
            left = _QUOTA_SECONDS - int(time.time()) % _QUOTA_SECONDS
            added = [*added, (b"retry-after", b"%d" % left)]
        return error.body(anthropic=uses_anthropic_form(scope)), added

    return HeldResponse(send, convert, applies).send


def _message(body: bytes) -> str:
    try:
        return msgspec.json.decode(body, type=_StackError).error.message
    except msgspec.DecodeError:
        return "The server rejected the request"
