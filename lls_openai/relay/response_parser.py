"""The parser of one response after another, on httptools, which uvicorn uses, too."""

from typing import TYPE_CHECKING

import httptools

from lls_openai.relay.upstream_errors import UpstreamError, not_http
from lls_openai.relay.upstream_response import Headers, UpstreamResponse

if TYPE_CHECKING:
    from lls_openai.relay.connection import Connection

# Limits of one response. The first also holds for chunk extensions and trailers, and
# is looked at after each read, so that headers may be larger by one read.
MAX_HEADER_BYTES = 256 * 1024
MAX_HEADERS = 1_000
MAX_INTERIM_RESPONSES = 16

_CONTINUE, _SWITCHING_PROTOCOLS, _OK, _MAX_STATUS = 100, 101, 200, 599


class ResponseParser:
    """Parses the responses of one connection.

    Its attribute `response` is None until the headers of a response are complete.
    """

    def __init__(self, connection: "Connection") -> None:
        self._connection = connection
        self._headers: Headers = []
        self.keep_alive = False
        # The parser calls this for each chunk; a list's method takes the least time.
        self._chunks: list[bytes] = []
        self.on_body = self._chunks.append
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
        self._interim_responses = 0
        # Bytes since the last byte of the body: headers, framing, trailers.
        self._framing_bytes = 0

    def close(self) -> None:
        """Break the cycle with the parser, which the collector would have to find."""
        del self._parser

    def feed(self, data: bytes) -> None:
        """Parse the next bytes; raise UpstreamError if they are not a response."""
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserUpgrade, httptools.HttpParserError) as error:
            self._pass_body_on()
            raise _error_of(error) from None
        if self._chunks:
            self._framing_bytes = 0
            self._pass_body_on()
            return
        self._framing_bytes += len(data)
        if self._framing_bytes > MAX_HEADER_BYTES and not (
            self.response and self.response.complete
        ):
            raise not_http(
                f"its headers or trailers are over {MAX_HEADER_BYTES:,} bytes"
            )

    def on_message_begin(self) -> None:
        """Expect headers, unless the response is already complete."""
        if self.response:
            raise not_http("bytes follow it")
        self._headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; trailers are dropped."""
        if self.response is None:
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Begin the response, unless this is an interim one."""
        status = self._parser.get_status_code()
        if status < _OK:
            self._count_interim(status)
            return
        headers, self._headers = self._headers, []
        if status > _MAX_STATUS:
            raise not_http(f"its status is {status}")
        if len(headers) > MAX_HEADERS:
            raise not_http(f"it has more than {MAX_HEADERS:,} headers")
        self.keep_alive = self._parser.should_keep_alive()
        if not self.keep_alive:
            self._check_framing(headers)
        self.response = UpstreamResponse(self._connection, status, headers)

    def _check_framing(self, headers: Headers) -> None:
        if self._parser.get_http_version() not in ("1.0", "1.1"):
            raise not_http("its version is not 1.0 or 1.1")
        codings = [v.lower() for n, v in headers if n == b"transfer-encoding"]
        # RFC 9112, section 6.3: the body would end with the connection.
        if codings and codings[-1].rpartition(b",")[2].strip(b" ") != b"chunked":
            raise not_http("its transfer coding is not chunked")

    def _count_interim(self, status: int) -> None:
        if status == _SWITCHING_PROTOCOLS or status < _CONTINUE:
            raise not_http(f"its status is {status:03}")
        self._interim_responses += 1
        if self._interim_responses > MAX_INTERIM_RESPONSES:
            raise not_http(f"more than {MAX_INTERIM_RESPONSES} interim responses")
        # A complete one is progress; a header that drips in is not.
        self._connection.note_progress()

    def on_message_complete(self) -> None:
        """Complete the response; an interim one is not the response."""
        self._pass_body_on()
        if self.response:
            self.response.finish()

    def _pass_body_on(self) -> None:
        """Pass the chunks of the body on as one."""
        chunks = self._chunks
        if chunks and self.response:
            self.response.feed(chunks[0] if len(chunks) == 1 else b"".join(chunks))
            chunks.clear()


def _error_of(error: Exception) -> UpstreamError:
    """Return the error that a callback raised, or one with the parser's reason."""
    if isinstance(error, httptools.HttpParserUpgrade):
        return not_http("it switches to another protocol")
    # An error that a callback raises is the context of the parser's own.
    if isinstance(error.__context__, UpstreamError):
        return error.__context__
    return not_http(str(error))
