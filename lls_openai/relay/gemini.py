"""The one dialect that is mended: Gemini's errors, brought into OpenAI's form.

Its OpenAI-compatible API answers an error as an array of one Google `Status` object
(https://cloud.google.com/apis/design/errors), which no OpenAI client reads.
"""

import math
import re
from typing import Any

import msgspec

from lls_openai.errors import AnswerHeaders, error_body

_DELAY = re.compile(r"(\d{1,9}(\.\d{1,9})?)s")


def mend_error(headers: AnswerHeaders, body: bytes) -> tuple[AnswerHeaders, bytes]:
    """Unwrap an error array, and keep when to try again, wherever Google says it.

    Every other error comes back as it is.

    Args:
        headers: the answer's headers.
        body: the whole body as it came over the wire.
    """
    try:
        match msgspec.json.decode(body):
            case [{"error": {"message": str()} as error}]:
                headers = [pair for pair in headers if pair[0] != b"content-type"]
                headers.append((b"content-type", b"application/json"))
                body = _openai_form(error)
            case {"error": {"details": list()} as error}:
                pass
            case _:
                return headers, body
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return headers, body
    return headers + _retry_after(headers, error), body


def _detail(error: dict[str, Any], name: str) -> object:
    """Find a field of the error's details, whose fields have names of their own."""
    details = error.get("details")
    for detail in details if isinstance(details, list) else []:
        if isinstance(detail, dict) and name in detail:
            return detail[name]
    return None


def _openai_form(error: dict[str, Any]) -> bytes:
    """Give the four fields: Google's reason is the code, its status the type."""
    status, reason = error.get("status"), _detail(error, "reason")
    if not isinstance(status, str):
        status = "api_error"
    code = reason if isinstance(reason, str) else status
    return error_body(error["message"], status, None, code)


def _retry_after(headers: AnswerHeaders, error: dict[str, Any]) -> AnswerHeaders:
    """Give `google.rpc.RetryInfo`'s "34.07s" in whole seconds (RFC 9110, 10.2.3)."""
    delay = _DELAY.fullmatch(str(_detail(error, "retryDelay")))
    if not delay or any(name == b"retry-after" for name, _ in headers):
        return []
    return [(b"retry-after", b"%d" % math.ceil(float(delay[1])))]
