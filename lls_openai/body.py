"""A request's body: read within a limit, then the model in it replaced, no more."""

import asyncio

import msgspec
from starlette.types import Message, Receive

from lls_openai.credentials import Headers
from lls_openai.errors import InvalidRequestBody, RequestTooLarge

# How long a caller may pause while it sends a body, in seconds. The first of it comes
# in time as well: `lls_openai/connection.py` sees to that.
BODY_PAUSE = 60.0

# A body of millions of top-level fields would cost more memory than its own size.
# No request a vendor accepts has this many colons.
MANY_COLONS = 500_000

_decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_text = msgspec.json.Decoder(str).decode
_encode = msgspec.json.Encoder().encode


class CallerLeft(Exception):  # noqa: N818 (what happened, not an error to answer)
    """The caller closed its connection before its request was whole."""


class RequestBody:
    """A JSON object of which only `model` has been read.

    Every other value stays the bytes that the caller sent (`msgspec.Raw`), so that
    numbers, escapes, nulls and unknown fields arrive as they are.

    Args:
        text: the body as received.

    Raises:
        InvalidRequestBody: it is not a JSON object with a string `model`.
    """

    __slots__ = ("_fields", "model")

    def __init__(self, text: bytes) -> None:
        self._fields = _decode_fields(text)
        self.model = _decode_model(self._fields.get("model"))

    def for_model(self, model: str) -> bytes:
        """Write the body again, for the upstream's own name of the model.

        Args:
            model: the name to put in.
        """
        return _encode(self._fields | {"model": model})


async def read_body(receive: Receive, headers: Headers, limit: int) -> bytes:
    """Read a request's whole body.

    Args:
        receive: ASGI's receive.
        headers: ASGI's header pairs.
        limit: the largest body, in bytes.

    Raises:
        RequestTooLarge: the body is announced or turns out to be over the limit; what
            is over it is never held.
        InvalidRequestBody: the caller paused for too long.
        CallerLeft: the caller closed its connection.
    """
    announced = next((v for k, v in headers if k == b"content-length"), b"0")
    if int(announced) > limit:
        raise RequestTooLarge(limit)
    chunks: list[bytes] = []
    size, more = 0, True
    while more:
        message = await (_receive(receive) if chunks else receive())
        if message["type"] == "http.disconnect":
            raise CallerLeft
        chunks.append(message.get("body", b""))
        more = message.get("more_body", False)
        size += len(chunks[-1])
        if size > limit:
            raise RequestTooLarge(limit)
    return b"".join(chunks)


def _decode_fields(text: bytes) -> dict[str, msgspec.Raw]:
    try:
        # RFC 8259, section 8.1: JSON is UTF-8. What msgspec skips it does not check.
        text.decode()
        if text.count(b":") <= MANY_COLONS:
            return _decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    raise InvalidRequestBody("The body is not a JSON object in UTF-8")


def _decode_model(value: msgspec.Raw | None) -> str:
    try:
        return _decode_text(value or b"")
    except msgspec.DecodeError:
        message = "The body names no model: give `model` as a string"
        raise InvalidRequestBody(message, "model") from None


async def _receive(receive: Receive) -> Message:
    """Wait for more of a body, but not for ever."""
    try:
        async with asyncio.timeout(BODY_PAUSE):
            return await receive()
    except TimeoutError:
        raise InvalidRequestBody(f"No more of the body for {BODY_PAUSE:g} s") from None
