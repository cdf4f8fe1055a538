"""A request's body: read within limits, the model's name taken out and put in."""

import asyncio
import codecs
import re
from collections.abc import Callable

import msgspec
from starlette.types import Receive

from lls_openai.context import RequestContext
from lls_openai.errors import RelayError, too_large
from lls_openai.relay.credentials import RequestHeaders

# A body of millions of top-level fields would cost more memory than its own size.
# No request a vendor accepts has this many colons.
MANY_COLONS = 500_000

# UTF-8 is checked in pieces of this many bytes: Python's text of a body with one emoji
# in it takes four times the body's size.
PIECE = 64 * 1024

_JSON = re.compile(rb"\s*application/([\w.-]+\+)?json\s*(;|$)", re.IGNORECASE)

_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_text = msgspec.json.Decoder(str).decode
_encode = msgspec.json.Encoder().encode


class InFlight:
    """Bounds the bytes of request bodies that are in memory together.

    Args:
        limit: how many there may be, in bytes.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.held = 0

    def take(self, record: RequestContext, size: int) -> None:
        """Count bytes that were read of a request's body.

        Raises:
            RelayError: with them there would be too many.
        """
        if self.held + size > self._limit:
            message = "Too many requests with large bodies: try again"
            raise RelayError("server_busy", message)
        self.held += size
        record.held += size

    def give_back(self, record: RequestContext) -> None:
        """Count what a request has taken no more."""
        self.held -= record.held
        record.held = 0


class RequestBody:
    """A JSON object of which only `model` and `stream` have been read.

    Every other value stays the bytes that the caller sent (`msgspec.Raw`), so that
    numbers, escapes, nulls and unknown fields arrive as they are.

    Args:
        text: the body as received.

    Raises:
        RelayError: it is not a JSON object with a string `model`.
    """

    __slots__ = ("_fields", "model", "stream")

    def __init__(self, text: bytes) -> None:
        # RFC 8259, section 8.1: a parser may ignore a byte order mark.
        text = text.removeprefix(codecs.BOM_UTF8)
        try:
            _check_utf8(text)
            self._fields = _decode_fields(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            message = "The body is not a JSON object in UTF-8"
            raise RelayError("invalid_request_body", message) from None
        self.model = _model(self._fields.get("model"))
        self.stream = bytes(self._fields.get("stream", b"")) == b"true"

    def for_model(self, model: str) -> bytes:
        """Write the body again, for the upstream's own name of the model."""
        return _encode(self._fields | {"model": model})


async def read_body(
    receive: Receive, headers: RequestHeaders, limit: int, take: Callable[[int], None]
) -> bytes:
    """Read a request's whole body.

    Args:
        receive: ASGI's.
        headers: the request's.
        limit: the largest body, in bytes; what is over it is never held.
        take: counts the bytes that are held.

    Raises:
        RelayError: it is compressed, not JSON by its type, over the limit, or too much.
        asyncio.CancelledError: the caller disconnected.
    """
    if _announced(dict(headers)) > limit:
        raise too_large(limit)
    chunks: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise asyncio.CancelledError
        chunk, more = message.get("body", b""), message.get("more_body", False)
        size += len(chunk)
        if size > limit:
            raise too_large(limit)
        take(len(chunk))
        chunks.append(chunk)
    return b"".join(chunks)


def _announced(headers: dict[bytes, bytes]) -> int:
    """Check the headers that describe the body, and give its announced length."""
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        message = "The body is compressed: send it as it is, without Content-Encoding"
        raise RelayError("unsupported_content_encoding", message)
    # Any page may have a browser send another type here, unasked (CORS).
    if not _JSON.match(headers.get(b"content-type", b"")):
        message = (
            "The body is not JSON by its type: send Content-Type: application/json"
        )
        raise RelayError("unsupported_media_type", message)
    # Of more digits than 4,300 Python's `int` raises.
    return int(headers.get(b"content-length", b"0")[-18:])


def _check_utf8(text: bytes) -> None:
    """Check what msgspec skips without a look, and that there is not too much of it."""
    if not text.isascii():
        pieces = (text[at : at + PIECE] for at in range(0, len(text), PIECE))
        for _ in codecs.iterdecode(pieces, "utf-8"):
            pass
    if text.count(b":") > MANY_COLONS:
        raise RelayError(
            "invalid_request_body", f"The body has more than {MANY_COLONS:,} colons"
        )


def _model(value: msgspec.Raw | None) -> str:
    try:
        return _decode_text(value or b"")
    except msgspec.DecodeError:
        message = "The body names no model: give `model` as a string"
        raise RelayError("invalid_request_body", message, "model") from None
