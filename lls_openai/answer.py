"""An upstream's answer on its way back to the caller.

Status, body and the headers named here pass as they are. An answer that is no stream is
held until it is whole, so that one that breaks off becomes an error and not half an
answer; a stream passes event by event.
"""

import re

from aiohttp import ClientResponse
from starlette.types import Send

from lls_openai.errors import (
    Headers,
    RelayError,
    UpstreamDisconnected,
    UpstreamUnreachable,
)
from lls_openai.gemini import unwrap_error
from lls_openai.metrics import CallMetrics
from lls_openai.sse import EventSplitter, error_event
from lls_openai.transport import upstream_errors

# An answer larger than this many bytes is relayed in pieces, as it arrives.
WHOLE_ANSWER_BYTES = 1024 * 1024

RELAYED_HEADERS = frozenset(
    {
        b"content-encoding",
        b"content-type",
        b"openai-organization",
        b"openai-processing-ms",
        b"openai-version",
        b"request-id",
        b"retry-after",
        b"retry-after-ms",
        b"x-gemini-service-tier",
        b"x-request-id",
        b"x-should-retry",
    }
)
RELAYED_PREFIXES = (b"x-ratelimit-", b"anthropic-ratelimit-")

# RFC 9110, section 15: a final answer is of one of these classes.
_FINAL = range(200, 600)
# Section 5.5: no value of a header holds one; aiohttp lets them pass, uvicorn raises.
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")

# RFC 9110, sections 15.3.5 and 15.4.5: these have no body, and so no length.
_WITHOUT_BODY = (204, 304)


class BrokenOff(Exception):  # noqa: N818 (what happened, not an error to answer)
    """The answer broke off where only the end of the connection can say so."""


async def relay_answer(
    response: ClientResponse, send: Send, metrics: CallMetrics
) -> bool:
    """Relay an answer whose head has arrived.

    Args:
        response: the upstream's answer, its body neither read nor decompressed.
        send: ASGI's send, with nothing sent yet.
        metrics: what this call is measured by.

    Raises:
        RelayError: the upstream broke off and nothing was sent to the caller.
        BrokenOff: it broke off after a part of its answer went to the caller.

    Returns:
        Whether the caller got a whole answer that is no error.
    """
    if response.status not in _FINAL:
        raise UpstreamUnreachable("The upstream's answer is not HTTP")
    headers = _relayed(response)
    if not _is_stream(headers):
        await _relay_whole(response, headers, send, metrics)
        return response.ok
    metrics.stream = True
    await _start(send, response.status, headers)
    if _is_compressed(headers):
        await _relay_pieces(response, send)
        whole = True
    else:
        whole = await _relay_events(response, send, metrics)
    await _send(send, b"", more=False)
    return whole and response.ok


def _relayed(response: ClientResponse) -> Headers:
    """Give the headers worth relaying, names in lower case as ASGI wants them."""
    lower = ((name.lower(), value) for name, value in response.raw_headers)
    return [
        (name, value)
        for name, value in lower
        if (name in RELAYED_HEADERS or name.startswith(RELAYED_PREFIXES))
        and not _CONTROL.search(value)
    ]


def _is_stream(headers: Headers) -> bool:
    kind = next((v for name, v in headers if name == b"content-type"), b"")
    return kind.partition(b";")[0].strip().lower() == b"text/event-stream"


def _is_compressed(headers: Headers) -> bool:
    return any(name == b"content-encoding" for name, _ in headers)


async def _relay_whole(
    response: ClientResponse, headers: Headers, send: Send, metrics: CallMetrics
) -> None:
    """Relay an answer that is no stream, after all of it is there.

    One that is too large to hold passes in pieces.
    """
    body = await _read_whole(response)
    if len(body) > WHOLE_ANSWER_BYTES:
        await _start(send, response.status, headers)
        await _send(send, body)
        await _relay_pieces(response, send)
        await _send(send, b"", more=False)
        return
    metrics.observe(body)
    headers, body = unwrap_error(response.status, headers, body)
    if response.status not in _WITHOUT_BODY:
        headers = [*headers, (b"content-length", b"%d" % len(body))]
    await _start(send, response.status, headers)
    await _send(send, body, more=False)


async def _read_whole(response: ClientResponse) -> bytes:
    """Read a body, or so much of it that it is clear it is too large to hold."""
    chunks, size = [], 0
    with upstream_errors():
        while chunk := await response.content.readany():
            chunks.append(chunk)
            size += len(chunk)
            if size > WHOLE_ANSWER_BYTES:
                break
    return b"".join(chunks)


async def _relay_events(
    response: ClientResponse, send: Send, metrics: CallMetrics
) -> bool:
    """Relay a stream event by event; one that breaks off ends with an error event."""
    splitter = EventSplitter()
    try:
        with upstream_errors(UpstreamDisconnected):
            while chunk := await response.content.readany():
                if events := splitter.feed(chunk):
                    metrics.observe(events)
                    await _send(send, events)
    except RelayError as error:
        if not splitter.between_events:
            raise BrokenOff from None
        await _send(send, error_event(error.body()))
        return False
    await _send(send, splitter.held)
    return True


async def _relay_pieces(response: ClientResponse, send: Send) -> None:
    """Relay bytes as they arrive, without a look at what they are."""
    try:
        with upstream_errors(UpstreamDisconnected):
            while chunk := await response.content.readany():
                await _send(send, chunk)
    except RelayError:
        raise BrokenOff from None


async def _start(send: Send, status: int, headers: Headers) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def _send(send: Send, body: bytes, *, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": more})
