"""The parser of a client's requests, on httptools, with limits."""

from typing import TYPE_CHECKING
from urllib.parse import unquote

import httptools

from lls_openai.errors import RelayError

if TYPE_CHECKING:
    from lls_openai.server.protocol import ClientConnection

MAX_HEADERS = 200
# httptools joins the parts of a long header in quadratic time, so this limit is checked
# after each read; it also holds for chunk extensions and trailers.
MAX_HEADER_BYTES = 64 * 1024

_FRAMING = (b"content-length", b"transfer-encoding")

type Headers = list[tuple[bytes, bytes]]


class RequestParser:
    """Parses one request after another, and ignores offers to upgrade."""

    def __init__(self, connection: "ClientConnection") -> None:
        self._connection = connection
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""
        self._headers: Headers = []
        self._expects_continue = False
        # Bytes since the last complete headers, or the last byte of a body.
        self._framing_bytes = 0
        # The framing of a request that offers an upgrade; whether it is read again.
        self._upgrade_framing: Headers = []
        self._is_replay = False

    def feed(self, data: bytes) -> None:
        """Parse the next bytes; raise RelayError if they are invalid or too many."""
        self._framing_bytes += len(data)
        try:
            self._parse(data)
        except httptools.HttpParserError as error:
            # The error that a callback raised is its context.
            if isinstance(error.__context__, RelayError):
                raise error.__context__ from None
            raise RelayError("invalid_http_request", "Invalid HTTP request") from None
        if self._framing_bytes > MAX_HEADER_BYTES:
            raise _headers_too_large()

    def _parse(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            self._decline_upgrade(data[offer.args[0] :])

    def _decline_upgrade(self, rest: bytes) -> None:
        """Continue in HTTP/1.1 (RFC 9110, section 7.8).

        The parser has stopped behind the headers. A new one reads headers with the same
        framing, which are not a request, and continues with the body.
        """
        lines = b"".join(b"%b: %b\r\n" % pair for pair in self._upgrade_framing)
        self._parser = httptools.HttpRequestParser(self)
        self._is_replay = True
        self._parse(b"POST / HTTP/1.1\r\n%b\r\n%b" % (lines, rest))

    # Callbacks of httptools.

    def on_message_begin(self) -> None:
        """Expect headers."""
        self._url, self._headers = b"", []
        self._expects_continue = False

    def on_url(self, url: bytes) -> None:
        """Add a part of the request target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header; a trailer is dropped (RFC 9110, section 6.5.1)."""
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self._expects_continue = True
        self._headers.append((name, value))
        if len(self._headers) > MAX_HEADERS:
            raise _headers_too_large()

    def on_headers_complete(self) -> None:
        """Begin a request, unless these headers are read again."""
        self._framing_bytes = 0
        # The request has this list now; trailers go to another one.
        headers, self._headers = self._headers, []
        if self._is_replay:
            self._is_replay = False
            return
        if self._parser.should_upgrade():
            self._upgrade_framing = [p for p in headers if p[0] in _FRAMING]
        url = httptools.parse_url(self._url)
        path, version = url.path.decode("ascii"), self._parser.get_http_version()
        scope = {
            "http_version": version,
            "method": self._parser.get_method().decode("ascii"),
            "path": unquote(path) if "%" in path else path,
            "raw_path": url.path,
            "query_string": url.query or b"",
            "headers": headers,
        }
        self._connection.begin_request(
            scope,
            keep_alive=version != "1.0" and self._parser.should_keep_alive(),
            expects_continue=self._expects_continue,
        )

    def on_body(self, body: bytes) -> None:
        """Pass on a part of a body."""
        self._framing_bytes = 0
        self._connection.add_body(body)

    def on_message_complete(self) -> None:
        """End a request; one that offers an upgrade has not been read to its end."""
        if not self._parser.should_upgrade():
            self._framing_bytes = 0
            self._connection.end_request()


def _headers_too_large() -> RelayError:
    message = (
        f"Request headers exceed the limit of {MAX_HEADER_BYTES:,} bytes "
        f"or {MAX_HEADERS} headers"
    )
    return RelayError("request_too_large", message, status=431)
