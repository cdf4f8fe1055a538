"""The contract's errors: those this server answers by itself.

Everything else an upstream says is relayed as it is. A message is written where the
error is raised, never taken from a library or an upstream: no key and no prompt can
stand in one.
"""

import msgspec

# Headers of an answer, names in lower case.
type AnswerHeaders = list[tuple[bytes, bytes]]

# The status of each code. `upstream_disconnected` is an event inside a stream.
STATUS = {
    "invalid_http_request": 400,
    "invalid_provider_data": 400,
    "invalid_request_body": 400,
    "upstream_not_allowed": 400,
    "invalid_token": 401,
    "missing_api_key": 401,
    "model_not_found": 404,
    "unknown_route": 404,
    "method_not_allowed": 405,
    "request_too_large": 413,
    "unsupported_content_encoding": 415,
    "unsupported_media_type": 415,
    "quota_exceeded": 429,
    "upstream_disconnected": 502,
    "upstream_unreachable": 502,
    "server_busy": 503,
    "upstream_timeout": 504,
}

# RFC 9110: a 401 names the scheme to use (11.6.1), a 415 the encoding that would be
# taken (12.5.3), and a 503 when to try again (10.2.3).
_HEADERS: dict[str, AnswerHeaders] = {
    "invalid_token": [(b"www-authenticate", b"Bearer")],
    "missing_api_key": [(b"www-authenticate", b"Bearer")],
    "unsupported_content_encoding": [(b"accept-encoding", b"identity")],
    "server_busy": [(b"retry-after", b"1")],
}

# OpenAI's and Anthropic's type of each status, where it is no invalid request
# (https://docs.anthropic.com/en/api/errors).
_TYPES = {
    401: ("authentication_error", "authentication_error"),
    404: ("invalid_request_error", "not_found_error"),
    413: ("invalid_request_error", "request_too_large"),
    429: ("rate_limit_error", "rate_limit_error"),
    502: ("server_error", "api_error"),
    503: ("server_error", "overloaded_error"),
    504: ("server_error", "timeout_error"),
}
_INVALID = ("invalid_request_error", "invalid_request_error")


class RelayError(Exception):
    """An answer of the server's own to a request that it could not relay.

    Args:
        code: which of the contract's errors it is.
        message: what is wrong and what to do, for the caller to read.
        param: the field of the request at fault, if it is one.
    """

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.param = code, message, param
        self.status = STATUS[code]
        self.headers = _HEADERS.get(code, [])

    def body(self, *, anthropic: bool = False) -> bytes:
        """Give the error as JSON, in OpenAI's form or in Anthropic's."""
        openais, anthropics = _TYPES.get(self.status, _INVALID)
        if anthropic:
            error = {"type": anthropics, "message": self.message}
            return msgspec.json.encode({"type": "error", "error": error})
        return error_body(self.message, openais, self.param, self.code)

    def event(self, *, anthropic: bool = False) -> bytes:
        """Give the error as an event, the way the vendor puts one into a stream."""
        name = b"event: error\n" if anthropic else b""
        return name + b"data: " + self.body(anthropic=anthropic) + b"\n\n"


def too_large(limit: int) -> RelayError:
    """Make the error of a body that is over the limit, given in bytes."""
    return RelayError(
        "request_too_large", f"The body is over the limit of {limit:,} bytes"
    )


def error_body(message: str, type_: str, param: str | None, code: str | None) -> bytes:
    """Write OpenAI's error object, of which any field but the message may be None."""
    error = {"message": message, "type": type_, "param": param, "code": code}
    return msgspec.json.encode({"error": error})
