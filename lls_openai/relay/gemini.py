"""Converts Gemini's errors to OpenAI's form.

Its OpenAI-compatible API answers an error as an array of one Google `Status` object
(https://cloud.google.com/apis/design/errors), which no OpenAI client reads.
"""

import math
import re
from typing import Any

import msgspec

from lls_openai.errors import ResponseHeaders, error_body

_DELAY = re.compile(r"(\d{1,9}(\.\d{1,9})?)s")


def convert_error(
    headers: ResponseHeaders, body: bytes
) -> tuple[ResponseHeaders, bytes]:
    """Unwrap an error array, and add `Retry-After` from Google's details.

    Every other error is returned unchanged.
    """
    try:
        match msgspec.json.decode(body):
            case [{"error": {"message": str()} as error}]:
                headers = [pair for pair in headers if pair[0] != b"content-type"]
                headers.append((b"content-type", b"application/json"))
                body = _openai_error(error)
            case {"error": {"details": list()} as error}:
                pass
            case _:
                return headers, body
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return headers, body
    return headers + _retry_after(headers, error), body


def _openai_error(error: dict[str, Any]) -> bytes:
    """Return OpenAI's four fields; Google's reason is the code, its status the type."""
    status, reason = error.get("status"), _find_detail(error, "reason")
    if not isinstance(status, str):
        status = "api_error"
    code = reason if isinstance(reason, str) else status
    return error_body(error["message"], status, None, code)


def _retry_after(headers: ResponseHeaders, error: dict[str, Any]) -> ResponseHeaders:
    """Convert `google.rpc.RetryInfo`'s "34.07s" to whole seconds (RFC 9110, 10.2.3)."""
    delay = _DELAY.fullmatch(str(_find_detail(error, "retryDelay")))
    if not delay or any(name == b"retry-after" for name, _ in headers):
        return []
    return [(b"retry-after", b"%d" % math.ceil(float(delay[1])))]


def _find_detail(error: dict[str, Any], name: str) -> object:
    """Return a field of the error's details, whose field names are all different."""
    details = error.get("details")
    for detail in details if isinstance(details, list) else []:
        if isinstance(detail, dict) and name in detail:
            return detail[name]
    return None
