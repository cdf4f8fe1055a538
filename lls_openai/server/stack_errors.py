"""Llama Stack's own 401 and 429, in the contract's form.

Its authentication and quota middlewares send one start message without a length and one
body, `{"error": {"message": "..."}}`, and no header but a content type; CORS adds its
own headers.
"""

import time
from typing import NamedTuple

import msgspec

from lls_openai.errors import RelayError, ResponseHeaders

# Llama Stack's only quota period: days since the epoch, in UTC.
_QUOTA_SECONDS = 86_400

_CODES = {401: "invalid_token", 429: "quota_exceeded"}


class ConvertedError(NamedTuple):
    """A response to send in place of Llama Stack's."""

    code: str
    headers: ResponseHeaders
    body: bytes


class _Detail(msgspec.Struct):
    message: str


class _StackError(msgspec.Struct):
    error: _Detail


def is_stack_error(status: int) -> bool:
    """Whether a response that no relay code has sent needs converting."""
    return status in _CODES


def convert_stack_error(
    status: int, headers: ResponseHeaders, body: bytes, *, anthropic: bool
) -> ConvertedError:
    """Convert a complete 401 or 429 of Llama Stack's, keeping its other headers.

    A body in another form gets a message of ours.
    """
    code = _CODES[status]
    error = RelayError(code, _message(body))
    extra = error.headers
    if code == "quota_exceeded":
        left = _QUOTA_SECONDS - int(time.time()) % _QUOTA_SECONDS
        extra = [*extra, (b"retry-after", b"%d" % left)]
    new = error.body(anthropic=anthropic)
    kept = [each for each in headers if each[0].lower() != b"content-length"]
    length = b"content-length", b"%d" % len(new)
    return ConvertedError(code, [*kept, length, *extra], new)


def _message(body: bytes) -> str:
    try:
        return msgspec.json.decode(body, type=_StackError).error.message
    except msgspec.DecodeError:
        return "The server rejected the request"
