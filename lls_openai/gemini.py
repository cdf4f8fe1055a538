"""Gemini's errors, brought into OpenAI's form.

Its OpenAI-compatible API answers an error as an array of one Google `Status` object
(https://cloud.google.com/apis/design/errors), which no OpenAI client reads.
"""

import math
import re
import zlib
from typing import Any

import msgspec

from lls_openai.errors import Headers, error_body

_DELAY = re.compile(r"(\d{1,9}(\.\d{1,9})?)s")

# An error is a few hundred bytes; a compressed one that grows past this is left alone.
UNPACKED_BYTES = 256 * 1024


def unwrap_error(status: int, headers: Headers, body: bytes) -> tuple[Headers, bytes]:
    """Unwrap an error array; every other answer comes back as it is.

    Args:
        status: the answer's HTTP status.
        headers: the answer's headers, names in lower case.
        body: the whole body as it came over the wire.
    """
    if status < 400:  # noqa: PLR2004 (RFC 9110: where errors begin)
        return headers, body
    unpacked = _unpacked(dict(headers).get(b"content-encoding"), body)
    error = _error_in(unpacked)
    if error is None:
        return headers, body
    details = _details(error)
    headers = [pair for pair in headers if pair[0] != b"content-encoding"]
    return headers + _retry_after(headers, details), _openai_form(error, details)


def _unpacked(encoding: bytes | None, body: bytes) -> bytes:
    """Undo gzip, which Google uses on errors too; give b"" for what stays packed."""
    if encoding is None:
        return body
    if encoding.lower() != b"gzip":
        return b""
    try:
        unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        return unpacker.decompress(body, UNPACKED_BYTES)
    except zlib.error:
        return b""


def _error_in(body: bytes) -> dict[str, Any] | None:
    if not body.lstrip().startswith(b"["):
        return None
    try:
        match msgspec.json.decode(body):
            case [{"error": {"message": str()} as error}]:
                return dict(error)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    return None


def _details(error: dict[str, Any]) -> dict[str, Any]:
    """Merge the details: their fields have names of their own."""
    details = error.get("details")
    merged: dict[str, Any] = {}
    for detail in details if isinstance(details, list) else []:
        merged |= detail if isinstance(detail, dict) else {}
    return merged


def _openai_form(error: dict[str, Any], details: dict[str, Any]) -> bytes:
    """Give the four fields: Google's reason is the code, its status the type."""
    status, reason = error.get("status"), details.get("reason")
    if not isinstance(status, str):
        status = "api_error"
    code = reason if isinstance(reason, str) else status
    return error_body(error["message"], status, None, code)


def _retry_after(headers: Headers, details: dict[str, Any]) -> Headers:
    """Keep when to try again, which Google says in the body alone, for SDKs to read.

    It is a `google.rpc.RetryInfo`, with a duration such as "34.07s"; the header has
    whole seconds (RFC 9110, section 10.2.3).
    """
    delay = _DELAY.fullmatch(str(details.get("retryDelay")))
    if not delay or any(name == b"retry-after" for name, _ in headers):
        return []
    return [(b"retry-after", b"%d" % math.ceil(float(delay[1])))]
