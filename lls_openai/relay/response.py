"""An upstream's answer on its way back to the caller.

Status, body and the headers named here pass as they are. JSON and errors are held until
they are whole, so that an answer that breaks off becomes an error and not half an
answer; a stream passes event by event; anything else passes as it arrives.
"""

import asyncio
import re

from starlette.types import Message, Send

from lls_openai.context import RequestContext
from lls_openai.errors import AnswerHeaders, RelayError
from lls_openai.relay.connection import UpstreamError, UpstreamResponse, UpstreamTimeout
from lls_openai.relay.gemini import mend_error

# An answer larger than this many bytes is relayed in pieces, as it arrives.
WHOLE_ANSWER_BYTES = 1024 * 1024

# An incomplete event is held back up to this many bytes, then relayed in pieces.
HELD_BYTES = 64 * 1024

_PASSED = frozenset(
    b"cache-control cf-ray content-encoding content-type request-id retry-after "
    b"retry-after-ms server-timing traceresponse www-authenticate x-accel-buffering "
    b"x-gemini-service-tier x-request-id x-should-retry".split()
)
_PASSED_PREFIXES = (b"x-ratelimit-", b"openai-", b"anthropic-")

# A stream is for now and for this caller: no cache may keep it, and nginx buffers it
# unless told otherwise.
_STREAM_HEADERS = [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]

_ERRORS = range(400, 600)
# Section 5.5: no header value has one, and uvicorn would raise.
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
# RFC 9110, sections 15.3.5 and 15.4.5: these have no body, and so no length.
_WITHOUT_BODY = (204, 304)

# The WHATWG HTML standard, section 9.2.6: an event ends with a blank line, a line with
# LF, CR LF or CR.
_BLANK_LINES = (b"\n\n", b"\n\r\n", b"\r\r")
# So much of a blank line may be there when a read ends inside it.
_CUT_OFF = max(map(len, _BLANK_LINES)) - 1


class BrokenOff(asyncio.CancelledError):
    """The answer broke off where only its connection can say so: `front` ends that."""


async def relay_answer(
    response: UpstreamResponse, send: Send, record: RequestContext, *, anthropic: bool
) -> None:
    """Relay an answer whose head has arrived.

    Args:
        response: the upstream's answer, its body neither read nor decompressed.
        send: ASGI's send, with nothing sent yet.
        record: the call's; it is told of a whole answer that is no error.
        anthropic: whether an error event has Anthropic's form.

    Raises:
        RelayError: the upstream broke off and nothing was sent to the caller.
        BrokenOff: it broke off after a part of its answer went to the caller.
    """
    headers = _passed(response)
    there = dict(headers)
    kind = there.get(b"content-type", b"").partition(b";")[0].strip().lower()
    # Google sends errors as event streams that hold a bare JSON array.
    if response.status in _ERRORS or not kind or kind.endswith(b"json"):
        await _relay_whole(response, headers, send, record)
    elif kind == b"text/event-stream":
        record.stream = True
        headers += [pair for pair in _STREAM_HEADERS if pair[0] not in there]
        cut = (
            _Pieces() if b"content-encoding" in there else _Events(anthropic=anthropic)
        )
        await send(_start(response.status, headers))
        await _relay(response, send, record, cut)
    else:
        await send(_start(response.status, headers + _length(response)))
        await _relay(response, send, record, _Pieces())
    record.success = response.status not in _ERRORS and not record.code


def relay_error(error: UpstreamError, code: str = "upstream_unreachable") -> RelayError:
    """Return the contract's error for a call that failed."""
    timed_out = isinstance(error, UpstreamTimeout)
    return RelayError("upstream_timeout" if timed_out else code, str(error))


def _passed(response: UpstreamResponse) -> AnswerHeaders:
    passed = [
        (name, value)
        for name, value in response.headers
        if name in _PASSED or name.startswith(_PASSED_PREFIXES)
    ]
    values = b" ".join([value for _, value in passed])
    # A look at all of them costs a fifth of one at each.
    if values.decode("latin-1").isprintable():
        return passed
    return [pair for pair in passed if not _CONTROL.search(pair[1])]


def _length(response: UpstreamResponse) -> AnswerHeaders:
    """Announce the length of what passes in pieces, where the upstream has."""
    return [pair for pair in response.headers if pair[0] == b"content-length"]


async def _relay_whole(
    response: UpstreamResponse,
    headers: AnswerHeaders,
    send: Send,
    record: RequestContext,
) -> None:
    """Relay an answer after all of it is there; one too large to hold, in pieces."""
    body = await _read_whole(response)
    if len(body) > WHOLE_ANSWER_BYTES:
        await send(_start(response.status, headers + _length(response)))
        await send(_body(body))
        await _relay(response, send, record, _Pieces())
        return
    record.observe(body)
    if response.status in _ERRORS:
        headers, body = mend_error(headers, body)
    if response.status not in _WITHOUT_BODY:
        headers = [*headers, (b"content-length", b"%d" % len(body))]
    await send(_start(response.status, headers))
    await send(_body(body, more=False))


async def _read_whole(response: UpstreamResponse) -> bytes:
    """Read a body, or so much of it that it is clear it is too large to hold."""
    chunks, size = [], 0
    try:
        while chunk := await response.read():
            chunks.append(chunk)
            size += len(chunk)
            if size > WHOLE_ANSWER_BYTES:
                break
    except UpstreamError as error:
        raise relay_error(error) from None
    return b"".join(chunks)


class _Pieces:
    """Passes bytes on as they arrive, without a look at what they are."""

    held = b""

    def feed(self, chunk: bytes) -> bytes:
        return chunk

    def ending(self, _error: RelayError) -> bytes:
        """Say how a caller learns that the answer broke off: by its connection."""
        raise BrokenOff


class _Events(_Pieces):
    """Cuts a stream of bytes where events end, changing none of them.

    An event is passed on when it is whole, the first moment a caller could use it: no
    half of one stays with a caller, and an error event can follow.
    """

    def __init__(self, *, anthropic: bool) -> None:
        self._anthropic = anthropic
        self._inside = False

    def feed(self, chunk: bytes) -> bytes:
        """Take bytes as they arrived and give those that may be passed on."""
        if not self.held and chunk.endswith(_BLANK_LINES):
            return chunk
        data = self.held + chunk
        found = ((data.rfind(line), len(line)) for line in _BLANK_LINES)
        end = max(at + length if at >= 0 else 0 for at, length in found)
        if end:
            self._inside = False
        elif len(data) > HELD_BYTES:
            self._inside, end = True, len(data) - _CUT_OFF
        self.held = data[end:]
        return data[:end]

    def ending(self, error: RelayError) -> bytes:
        """Give the error as an event, unless half of another one has been passed on."""
        if self._inside:
            raise BrokenOff
        return error.event(anthropic=self._anthropic)


async def _relay(
    response: UpstreamResponse, send: Send, record: RequestContext, cut: _Pieces
) -> None:
    """Relay an answer as it arrives, and its end, also when that is a broken one."""
    try:
        while chunk := await response.read():
            if whole := cut.feed(chunk):
                record.observe(whole)
                await send(_body(whole))
    except UpstreamError as broken:
        error = relay_error(broken, "upstream_disconnected")
        record.code, record.reason = error.code, error.message
        end = cut.ending(error)
    else:
        end = cut.held
    await send(_body(end, more=False))


def _start(status: int, headers: AnswerHeaders) -> Message:
    return {"type": "http.response.start", "status": status, "headers": headers}


def _body(body: bytes, *, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more}
