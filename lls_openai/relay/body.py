"""The request body: read within limits, `model` read and replaced."""

import asyncio
import codecs
import re
from collections.abc import Callable
from typing import Any

import msgspec
from starlette.types import Receive

from lls_openai.context import RequestContext
from lls_openai.errors import ClientDisconnected, RelayError, request_too_large
from lls_openai.relay.credentials import RequestHeaders

# Limits that bound the time of one step; no vendor accepts a body that is over them.
MAX_COLONS = 500_000
MAX_COMMAS = 2_000_000
MAX_FIELDS = 1_000

# A body with fewer colons has too few fields to be slow.
_FEW_COLONS = 50_000
# Other clients are served between the steps of a larger body, in bytes.
_LARGE_BODY_BYTES = 1024 * 1024
_TOKENS_PER_STEP = 5_000

_JSON = re.compile(rb"\s*application/([\w.-]+\+)?json\s*(;|$)", re.IGNORECASE)
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[{}\[\]:]', re.DOTALL)

_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_string = msgspec.json.Decoder(str).decode
_encode = msgspec.json.Encoder().encode


class BytesInFlight:
    """Bounds the bytes of request bodies that are in memory at a time."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.held = 0

    def acquire(self, context: RequestContext, size: int) -> None:
        """Count bytes of a request; raise RelayError if there are too many."""
        if self.held + size > self._limit:
            message = "Server is at its limit for buffered request bodies; retry later"
            raise RelayError("server_busy", message)
        self.held += size
        context.held += size

    def release(self, context: RequestContext) -> None:
        """Stop counting the bytes of a request."""
        self.held -= context.held
        context.held = 0


class RequestBody:
    """A JSON object, of which only `model` and `stream` have been decoded.

    Every other value stays the bytes that the client sent (`msgspec.Raw`), so that
    numbers, escapes, nulls and unknown fields arrive unchanged.
    """

    def __init__(self, text: bytes) -> None:
        try:
            self._fields = _decode_fields(text)
        except RecursionError:
            raise _invalid("it is nested too deeply") from None
        except msgspec.DecodeError as error:
            raise _invalid(str(error)) from None
        self.model = _read_model(self._fields.get("model"))
        self.stream = bytes(self._fields.get("stream", b"")) == b"true"

    def with_model(self, model: str) -> bytes:
        """Return the body with the upstream's name of the model."""
        return _encode(self._fields | {"model": model})


async def read_body(
    receive: Receive,
    headers: RequestHeaders,
    limit: int,
    acquire: Callable[[int], None],
) -> bytes:
    """Return the whole body of a request; `acquire` counts its bytes as they arrive.

    Raises RelayError if it is compressed, not JSON by its type, or over a limit, and
    ClientDisconnected if it has no end.
    """
    if _check_content_headers(dict(headers)) > limit:
        raise request_too_large(limit)
    check = _TextChecker()
    chunks: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnected
        chunk, more = message.get("body", b""), message.get("more_body", False)
        size += len(chunk)
        if size > limit:
            raise request_too_large(limit)
        acquire(len(chunk))
        check.feed(chunk, is_last=not more)
        chunks.append(chunk)
    text = b"".join(chunks) if len(chunks) > 1 else chunks[0]
    await let_others_run(text)
    if check.colons > _FEW_COLONS:
        await _check_field_count(text)
    # RFC 8259, section 8.1: a parser may ignore a byte order mark.
    return text.removeprefix(codecs.BOM_UTF8)


async def let_others_run(text: bytes) -> None:
    """Serve other clients before the next step with a large body."""
    if len(text) > _LARGE_BODY_BYTES:
        await asyncio.sleep(0)


def _check_content_headers(headers: dict[bytes, bytes]) -> int:
    """Check the headers that describe the body, and return its announced length."""
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        message = "Compressed request bodies are not supported; omit Content-Encoding"
        raise RelayError("unsupported_content_encoding", message)
    # A browser sends other types to a foreign site without asking it first (CORS).
    content_type = headers.get(b"content-type", b"")
    if content_type != b"application/json" and not _JSON.match(content_type):
        message = "Unsupported Content-Type: use application/json"
        raise RelayError("unsupported_media_type", message)
    # `int` raises for more than 4,300 digits.
    return int(headers.get(b"content-length", b"0")[-18:])


class _TextChecker:
    """Checks a body as it arrives: it is UTF-8, and has not too many elements.

    msgspec skips `Raw` values without looking at their encoding.
    """

    def __init__(self) -> None:
        self.colons = self._commas = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        # The bytes of a character that continues in the next chunk.
        self._started = b""
        self._size = 0

    def feed(self, chunk: bytes, *, is_last: bool) -> None:
        """Check the next chunk; raise RelayError if the body is invalid."""
        if self._started or not chunk.isascii():
            try:
                self._decoder.decode(chunk, final=is_last)
            except UnicodeDecodeError as error:
                position = self._size - len(self._started) + error.start
                raise _invalid(f"it is not valid UTF-8 (byte {position})") from None
            self._started = self._decoder.getstate()[0]
        self._size += len(chunk)
        self.colons += chunk.count(b":")
        self._commas += chunk.count(b",")
        if self.colons > MAX_COLONS:
            raise _too_many(MAX_COLONS, "colons")
        if self._commas > MAX_COMMAS:
            raise _too_many(MAX_COMMAS, "commas")


async def _check_field_count(text: bytes) -> None:
    """Count the fields of the body itself, and serve other clients meanwhile.

    Decoding a million fields in one step would stop every other client.
    """
    depth = fields = 0
    for number, token in enumerate(_TOKEN.finditer(text)):
        match text[token.start() : token.start() + 1]:
            case b"{" | b"[":
                depth += 1
            case b"}" | b"]":
                depth -= 1
            case b":" if depth == 1:
                fields += 1
        if fields > MAX_FIELDS:
            raise _too_many(MAX_FIELDS, "fields")
        if number % _TOKENS_PER_STEP == 0:
            await asyncio.sleep(0)


def _too_many(limit: int, what: str) -> RelayError:
    message = f"Request body has more than {limit:,} {what}"
    return RelayError("invalid_request_body", message)


def _invalid(reason: str) -> RelayError:
    """Build the error; msgspec's reasons name positions and types, never content."""
    message = f"Request body is not a JSON object: {reason}"
    return RelayError("invalid_request_body", message)


def _read_model(value: Any) -> str:  # noqa: ANN401 (msgspec.Raw, which is untyped bytes)
    try:
        return _decode_string(value or b"")
    except msgspec.DecodeError:
        message = "`model` is required and must be a string"
        raise RelayError("invalid_request_body", message, "model") from None
