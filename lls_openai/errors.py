"""Every error that the server raises itself.

An upstream's own errors are relayed unchanged. A message is written where its error is
raised, and contains neither a key nor a prompt.
"""

from http import HTTPStatus
from typing import Literal

import msgspec

# Headers of a response, names in lower case.
type ResponseHeaders = list[tuple[bytes, bytes]]

# How a route's errors and streams look.
type Format = Literal["openai", "responses", "anthropic"]

# The status of each code; `upstream_disconnected` is an event in a stream.
STATUS = {
    "invalid_http_request": 400,
    "invalid_provider_data": 400,
    "invalid_request_body": 400,
    "upstream_not_allowed": 400,
    "missing_api_key": 401,
    "invalid_token": 401,
    "model_not_found": 404,
    "unknown_route": 404,
    "method_not_allowed": 405,
    "request_too_large": 413,
    "unsupported_content_encoding": 415,
    "unsupported_media_type": 415,
    "upgrade_required": 426,
    "quota_exceeded": 429,
    "internal_error": 500,
    "upstream_disconnected": 502,
    "upstream_unreachable": 502,
    "server_busy": 503,
    "upstream_timeout": 504,
}

# RFC 9110: a 401 names the scheme (11.6.1), a 415 the accepted encoding (12.5.3), a 426
# the protocol (15.5.22), and a 503 the time to retry (10.2.3).
_HEADERS: dict[str, ResponseHeaders] = {
    "missing_api_key": [(b"www-authenticate", b"Bearer")],
    "invalid_token": [(b"www-authenticate", b"Bearer")],
    "unsupported_content_encoding": [(b"accept-encoding", b"identity")],
    "upgrade_required": [(b"upgrade", b"HTTP/1.1")],
    "server_busy": [(b"retry-after", b"1")],
}

# The types of OpenAI and of Anthropic for each status that is not an invalid request
# (https://docs.anthropic.com/en/api/errors).
_TYPES = {
    401: ("authentication_error", "authentication_error"),
    404: ("invalid_request_error", "not_found_error"),
    413: ("invalid_request_error", "request_too_large"),
    431: ("invalid_request_error", "request_too_large"),
    429: ("rate_limit_error", "rate_limit_error"),
    500: ("server_error", "api_error"),
    502: ("server_error", "api_error"),
    503: ("server_error", "overloaded_error"),
    504: ("server_error", "timeout_error"),
}
_INVALID_REQUEST = ("invalid_request_error", "invalid_request_error")


class ClientDisconnected(Exception):  # noqa: N818 (not an error of the server)
    """The client has disconnected; there is nobody to respond to."""


class ResponseTruncated(Exception):  # noqa: N818 (the client sees it, not a developer)
    """The upstream disconnected, and only closing the connection can say so."""


class RelayError(Exception):
    """A request that could not be relayed, and the response that says why.

    `code` is one of `STATUS`, `param` the field of the request that is wrong, and
    `reason` the cause that the operator finds in the access log. `status` is for a code
    that has more than one.
    """

    def __init__(
        self,
        code: str,
        message: str,
        param: str | None = None,
        *,
        status: int | None = None,
        reason: str | None = None,
    ) -> None:
        super().__init__(message)
        self.code, self.message, self.param = code, message, param
        self.status = status or STATUS[code]
        self.reason = reason
        self.headers = _HEADERS.get(code, [])

    def body(self, *, anthropic: bool = False) -> bytes:
        """Return the error as JSON, in OpenAI's form or in Anthropic's."""
        return status_body(
            self.status,
            self.message,
            anthropic=anthropic,
            param=self.param,
            code=self.code,
        )

    def response_headers(self, body: bytes) -> ResponseHeaders:
        """Return the headers of a response with this body."""
        return [
            *self.headers,
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
        ]

    def http_response(self, request_id: bytes) -> bytes:
        """Return a complete response, after which the connection is closed."""
        status, body = HTTPStatus(self.status), self.body()
        return (
            b"HTTP/1.1 %d %b\r\nconnection: close\r\n"
            b"content-type: application/json\r\ncontent-length: %d\r\n"
            b"x-request-id: %b\r\n\r\n%b"
        ) % (status, status.phrase.encode(), len(body), request_id, body)

    def event(self, error_format: Format) -> bytes:
        """Return the error as an event of a stream.

        Each client of `/v1/responses` reads another field of it: Codex the type, the AI
        SDK the response's error, and openai-python the error beside it.
        """
        if error_format == "anthropic":
            return b"event: error\ndata: %b\n\n" % self.body(anthropic=True)
        body = self.body()
        if error_format == "openai":
            return b"data: %b\n\n" % body
        error = {"code": self.code, "message": self.message}
        event = {
            "type": "response.failed",
            "sequence_number": 0,
            "response": {"status": "failed", "error": error},
            **msgspec.json.decode(body),
        }
        return b"event: response.failed\ndata: %b\n\n" % msgspec.json.encode(event)


def request_too_large(limit: int) -> RelayError:
    """Build the error for a body over `limit` bytes."""
    message = f"Request body exceeds the limit of {limit:,} bytes"
    return RelayError("request_too_large", message)


def status_body(
    status: int,
    message: str,
    *,
    anthropic: bool,
    param: str | None = None,
    code: str | None = None,
) -> bytes:
    """Return an error of this status as JSON, in OpenAI's form or in Anthropic's."""
    openai_type, anthropic_type = _TYPES.get(status, _INVALID_REQUEST)
    if anthropic:
        error = {"type": anthropic_type, "message": message}
        return msgspec.json.encode({"type": "error", "error": error})
    return error_body(message, openai_type, param, code)


def error_body(message: str, type_: str, param: str | None, code: str | None) -> bytes:
    """Return OpenAI's error object as JSON."""
    error = {"message": message, "type": type_, "param": param, "code": code}
    return msgspec.json.encode({"error": error})
