"""The parser of one response after another, on httptools, which uvicorn uses, too."""

import re
from itertools import chain

import httptools

from lls_openai.relay.upstream_errors import UpstreamError, not_http
from lls_openai.relay.upstream_response import Headers, Source, UpstreamResponse

# Limits of one response. The first also holds for chunk extensions and trailers.
MAX_HEADER_BYTES = 256 * 1024
MAX_HEADERS = 1_000
MAX_INTERIM_RESPONSES = 16

# RFC 9110, section 5.5: no header value has one, and uvicorn would raise.
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")

_CONTINUE, _SWITCHING_PROTOCOLS, _OK, _MAX_STATUS = 100, 101, 200, 599


class ResponseParser:
    """Parses the responses of one connection.

    Its attribute `response` is None until the headers of a response are complete.

    Args:
        source: the connection.
    """

    __slots__ = (
        "_framing_bytes",
        "_headers",
        "_parser",
        "_received",
        "_source",
        "interim_responses",
        "keep_alive",
        "response",
    )

    def __init__(self, source: Source) -> None:
        self._source = source
        self._parser = httptools.HttpResponseParser(self)
        # The deviations that browsers accept, too.
        self._parser.set_dangerous_leniencies(
            lenient_headers=True,
            lenient_optional_cr_before_lf=True,
            lenient_spaces_after_chunk_size=True,
        )
        self.begin()

    def begin(self) -> None:
        """Expect a response."""
        self.response: UpstreamResponse | None = None
        self.keep_alive = False
        self.interim_responses = 0
        self._headers: Headers = []
        # Bytes since the last byte of the body: headers, framing, trailers.
        self._framing_bytes = self._received = 0

    def feed(self, data: bytes) -> None:
        """Parse the next bytes.

        Raises:
            UpstreamError: they are no response, or follow a complete one.
        """
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            raise not_http("it switches to another protocol") from None
        except httptools.HttpParserError as error:
            # What a callback raised is its context.
            if isinstance(error.__context__, UpstreamError):
                raise error.__context__ from None
            raise not_http(str(error)) from None
        response = self.response
        if response and response.received > self._received:
            self._received, self._framing_bytes = response.received, 0
            return
        self._framing_bytes += len(data)
        if self._framing_bytes > MAX_HEADER_BYTES and not (
            response and response.complete
        ):
            raise not_http(f"its headers are over {MAX_HEADER_BYTES:,} bytes")

    def on_message_begin(self) -> None:
        """Expect headers.

        Raises:
            UpstreamError: the response is already complete.
        """
        if self.response:
            raise not_http("bytes follow it")
        self._headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; trailers are dropped."""
        if self.response is None:
            self._headers.append((name.lower(), value.rstrip()))

    def on_headers_complete(self) -> None:
        """Begin the response, unless this is an interim one.

        Raises:
            UpstreamError: the response is not valid.
        """
        status = self._parser.get_status_code()
        if status < _OK:
            self._count_interim(status)
            return
        if status > _MAX_STATUS:
            raise not_http(f"its status is {status}")
        self.keep_alive = self._parser.should_keep_alive()
        if not self.keep_alive and self._parser.get_http_version()[:2] != "1.":
            raise not_http("its version is not 1.0 or 1.1")
        headers, self._headers = _checked(self._headers), []
        self.response = UpstreamResponse(self._source, status, headers)

    def _count_interim(self, status: int) -> None:
        if status == _SWITCHING_PROTOCOLS or status < _CONTINUE:
            raise not_http(f"its status is {status:03}")
        self.interim_responses += 1
        if self.interim_responses > MAX_INTERIM_RESPONSES:
            raise not_http(f"more than {MAX_INTERIM_RESPONSES} interim responses")

    def on_body(self, data: bytes) -> None:
        """Pass on the next bytes of the body."""
        if self.response:
            self.response.feed(data)

    def on_message_complete(self) -> None:
        """Complete the response; an interim one is not the response."""
        if self.response:
            self.response.finish()


def _checked(headers: Headers) -> Headers:
    """Return headers without values that hold control bytes.

    Raises:
        UpstreamError: there are too many, or a transfer coding that was not offered.
    """
    joined = b"".join(chain.from_iterable(headers))
    if len(joined) > MAX_HEADER_BYTES or len(headers) > MAX_HEADERS:
        raise not_http(
            f"its headers are over {MAX_HEADER_BYTES:,} bytes or {MAX_HEADERS:,}"
        )
    codings = [value for name, value in headers if name == b"transfer-encoding"]
    # RFC 9112, section 7: an upstream may use no other without a TE header.
    if codings and (len(codings) > 1 or codings[0].lower() != b"chunked"):
        raise not_http("its transfer coding is not chunked")
    if _CONTROL.search(joined):
        return [pair for pair in headers if not _CONTROL.search(pair[1])]
    return headers
