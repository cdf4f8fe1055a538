"""The upstream's response on its way back to the client.

Status, body and the headers listed here pass unchanged. JSON and errors are buffered
until they are complete, so that a response that breaks off becomes an error. A stream
passes event by event, and anything else as it arrives.
"""

import re
from http import HTTPStatus

from starlette.types import Send

from lls_openai.context import RequestContext
from lls_openai.errors import RelayError, ResponseHeaders
from lls_openai.relay.events import EventSplitter, Passthrough, begins_like_events
from lls_openai.relay.gemini import convert_error
from lls_openai.relay.routes import Route
from lls_openai.relay.upstream_errors import UpstreamError, UpstreamTimeout
from lls_openai.relay.upstream_response import UpstreamResponse

# A larger response is relayed as it arrives.
MAX_BUFFERED_BYTES = 192 * 1024

_PASSED = frozenset(
    {
        b"cache-control",
        b"cf-ray",
        b"content-encoding",
        b"content-type",
        b"deprecation",
        b"request-id",
        b"retry-after",
        b"retry-after-ms",
        b"server-timing",
        b"sunset",
        b"traceresponse",
        b"www-authenticate",
        b"x-accel-buffering",
        b"x-gemini-service-tier",
        b"x-request-id",
        b"x-should-retry",
    }
)
_PASSED_PREFIXES = (b"x-ratelimit-", b"ratelimit", b"openai-", b"anthropic-")

# No cache may keep a stream, and nginx buffers it unless this header is there.
_STREAM_HEADERS = [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]

# RFC 9110, section 15: a final status is in one of these classes.
_FINAL = range(200, 600)
_ERRORS = range(400, 600)
_REDIRECTS = frozenset({300, 301, 302, 303, 305, 307, 308})
_WITHOUT_BODY = (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)
_WHITE_SPACE = b" \t\r\n"
# RFC 9110, section 5.5: these end a header, or are invalid in it.
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


def relay_error(error: UpstreamError, code: str) -> RelayError:
    """Build the error of the contract for a failed call; a timeout has its own code.

    The text of an UpstreamError contains nothing of the request.
    """
    if isinstance(error, UpstreamTimeout):
        code = "upstream_timeout"
    return RelayError(code, str(error), reason=str(error))


async def send_response(
    response: UpstreamResponse, send: Send, context: RequestContext, route: Route
) -> None:
    """Send an upstream's response to the client, and note its usage and success.

    Raises RelayError if it is invalid and nothing has been sent, ResponseTruncated if
    it broke off after a part that no error event can follow.
    """
    status = response.status
    _check_status(status)
    sender = _ResponseSender(response, send, context, route)
    content_type = sender.headers.get(b"content-type", b"")
    media_type = content_type.partition(b";")[0].strip().lower()
    is_json = not media_type or media_type.endswith(b"json")
    # Google sends errors as event streams that contain a bare JSON array.
    if status in _ERRORS:
        await sender.send_buffered()
    elif media_type == b"text/event-stream":
        await sender.send_events()
    elif is_json or context.stream:
        await sender.send_by_content(is_json=is_json)
    else:
        await sender.send_as_it_arrives()
    context.success = status not in _ERRORS and not context.code


def _check_status(status: int) -> None:
    if status not in _FINAL:
        reason = "The upstream's response is not HTTP"
    elif status in _REDIRECTS:
        reason = (
            f"The upstream redirected the request (status {status}); check base_url"
        )
    else:
        return
    raise RelayError("upstream_unreachable", reason, reason=reason)


def _passed_headers(headers: ResponseHeaders) -> ResponseHeaders:
    passed = [
        pair
        for pair in headers
        if pair[0] in _PASSED or pair[0].startswith(_PASSED_PREFIXES)
    ]
    # One look at all values is five times faster than one at each.
    values = b" ".join([value for _, value in passed])
    if values.decode("latin-1").isprintable():
        return passed
    return [pair for pair in passed if not _CONTROL.search(pair[1])]


class _ResponseSender:
    """One response, with the ways to send it."""

    def __init__(
        self,
        response: UpstreamResponse,
        send: Send,
        context: RequestContext,
        route: Route,
    ) -> None:
        self._response = response
        self._send = send
        self._context = context
        self._format = route.format
        self._headers = _passed_headers(response.headers)
        self.headers = dict(self._headers)

    async def send_by_content(self, *, is_json: bool) -> None:
        """Decide by the first bytes; some upstreams send streams under another type."""
        first = await self._read()
        if self._context.stream and begins_like_events(first):
            await self.send_events(first)
        # White space before JSON keeps the connection alive while a model thinks.
        elif is_json and (first.strip(_WHITE_SPACE) or not first):
            await self.send_buffered(first)
        else:
            await self.send_as_it_arrives(first)

    async def send_buffered(self, body: bytes = b"") -> None:
        """Send a response after all of it has arrived, unless it is large."""
        chunks, size = [body], len(body)
        while chunk := await self._read():
            chunks.append(chunk)
            size += len(chunk)
            if size > MAX_BUFFERED_BYTES:
                await self.send_as_it_arrives(b"".join(chunks))
                return
        body, headers = b"".join(chunks), self._headers
        self._context.observe(body)
        if self._response.status in _ERRORS:
            headers, body = convert_error(headers, body)
        if self._response.status not in _WITHOUT_BODY:
            headers = [*headers, (b"content-length", b"%d" % len(body))]
        await self._send_start(headers)
        await self._send_body(body, more=False)

    async def send_events(self, chunk: bytes = b"") -> None:
        """Send a stream, event by event."""
        self._context.stream = True
        extra = [pair for pair in _STREAM_HEADERS if pair[0] not in self.headers]
        await self._send_start(self._headers + extra)
        is_readable = b"content-encoding" not in self.headers
        splitter = EventSplitter(self._format) if is_readable else Passthrough()
        await self._send_stream(splitter, chunk)

    async def send_as_it_arrives(self, chunk: bytes = b"") -> None:
        """Send a response that is neither JSON nor a stream of events."""
        upstream_headers = dict(self._response.headers)
        length = upstream_headers.get(b"content-length")
        is_chunked = b"transfer-encoding" in upstream_headers
        extra = [(b"content-length", length)] if length and not is_chunked else []
        await self._send_start(self._headers + extra)
        await self._send_stream(Passthrough(), chunk)

    async def _send_stream(self, splitter: Passthrough, chunk: bytes) -> None:
        context, read = self._context, self._response.read
        sent = splitter.feed(chunk)
        if sent:
            context.observe(sent)
        try:
            # The first body message, which may be empty, makes the headers leave.
            await self._send_body(sent)
            while chunk := await read():
                if ready := splitter.feed(chunk):
                    context.observe(ready)
                    await self._send_body(ready)
                    sent = ready
            rest = splitter.tail
        except UpstreamError as error:
            is_complete = splitter.ends_stream(sent)
            rest = b"" if is_complete else self._finish(splitter, error)
        finally:
            # The client may disconnect before the upstream's end of body.
            context.success = splitter.ends_stream(sent)
        await self._send_body(rest, more=False)

    def _finish(self, splitter: Passthrough, error: UpstreamError) -> bytes:
        """Note that the stream broke off, and return the bytes that report it."""
        failure = relay_error(error, "upstream_disconnected")
        self._context.code, self._context.reason = failure.code, failure.reason
        return splitter.finish(failure)

    async def _read(self) -> bytes:
        try:
            return await self._response.read()
        except UpstreamError as error:
            raise relay_error(error, "upstream_unreachable") from None

    async def _send_start(self, headers: ResponseHeaders) -> None:
        status = self._response.status
        start = {"type": "http.response.start", "status": status, "headers": headers}
        await self._send(start)

    async def _send_body(self, body: bytes, *, more: bool = True) -> None:
        await self._send(
            {"type": "http.response.body", "body": body, "more_body": more}
        )
