"""The errors this server answers by itself; an upstream's own are relayed as they are.

    RelayError
    ├── InvalidRequest              400  invalid_http_request
    ├── InvalidProviderData         400  invalid_provider_data
    ├── UpstreamNotAllowed          400  upstream_not_allowed
    ├── InvalidRequestBody          400  invalid_request_body
    ├── MissingApiKey               401  missing_api_key
    ├── ModelNotFound               404  model_not_found
    ├── UnknownRoute                404  unknown_route
    ├── MethodNotAllowed            405  method_not_allowed
    ├── RequestTooLarge             413  request_too_large
    ├── UnsupportedContentEncoding  415  unsupported_content_encoding
    ├── UnsupportedMediaType        415  unsupported_media_type
    ├── HeadTooLarge                431  request_too_large
    ├── UpstreamUnreachable         502  upstream_unreachable
    ├── UpstreamDisconnected        (an event inside a stream)  upstream_disconnected
    ├── ServerBusy                  503  server_busy
    └── UpstreamTimeout             504  upstream_timeout

A message is written here or where the error is raised, never taken from a library or
an upstream: no key and no prompt can stand in one.
"""

from collections.abc import Iterable
from typing import ClassVar

import msgspec
from starlette.types import Send

# Headers of an answer, names in lower case.
type AnswerHeaders = list[tuple[bytes, bytes]]

# Anthropic's types of these (https://docs.anthropic.com/en/api/errors).
_ANTHROPIC_TYPES = {
    401: "authentication_error",
    404: "not_found_error",
    413: "request_too_large",
    503: "overloaded_error",
    504: "timeout_error",
}


class RelayError(Exception):
    """An answer of the server's own to a request that it could not relay.

    Args:
        message: what is wrong and what to do, for the caller to read.
        param: the field of the request at fault, if it is one.
    """

    status: ClassVar[int] = 400
    code: ClassVar[str]
    type: ClassVar[str] = "invalid_request_error"
    headers: AnswerHeaders = []  # noqa: RUF012 (replaced, never changed)

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param

    def body(self, *, anthropic: bool = False) -> bytes:
        """Give the error as JSON, in OpenAI's form or in Anthropic's."""
        if anthropic:
            other = "invalid_request_error" if self.status < 500 else "api_error"  # noqa: PLR2004 (RFC 9110: a server's errors begin here)
            kind = _ANTHROPIC_TYPES.get(self.status, other)
            error = {"type": kind, "message": self.message}
            return msgspec.json.encode({"type": "error", "error": error})
        return error_body(self.message, self.type, self.param, self.code)

    def event(self, *, anthropic: bool = False) -> bytes:
        """Give the error as an event, the way the vendor puts one into a stream."""
        name = b"event: error\n" if anthropic else b""
        return name + b"data: " + self.body(anthropic=anthropic) + b"\n\n"


class InvalidRequest(RelayError):
    """What came is not HTTP."""

    code = "invalid_http_request"


class InvalidProviderData(RelayError):
    """The header that carries the key cannot be read."""

    code = "invalid_provider_data"


class UpstreamNotAllowed(RelayError):
    """The caller named an upstream that is not the provider's own."""

    code = "upstream_not_allowed"


class InvalidRequestBody(RelayError):
    """The body is not a request that names a model."""

    code = "invalid_request_body"


class MissingApiKey(RelayError):
    """The caller sent no key."""

    status = 401
    code = "missing_api_key"
    type = "authentication_error"
    # RFC 9110, section 11.6.1: a 401 names the scheme to use.
    headers = [(b"www-authenticate", b"Bearer")]  # noqa: RUF012 (never changed)


class ModelNotFound(RelayError):
    """No provider serves the model, or the provider does not allow it."""

    status = 404
    code = "model_not_found"


class UnknownRoute(RelayError):
    """The route is closed, or there is none of that name."""

    status = 404
    code = "unknown_route"


class MethodNotAllowed(RelayError):
    """The route has other methods; RFC 9110, section 15.5.6, wants them in `Allow`."""

    status = 405
    code = "method_not_allowed"

    def __init__(self, path: str, allowed: Iterable[str]) -> None:
        methods = ", ".join(sorted(allowed))
        super().__init__(f"{path} takes {methods}")
        self.headers = [(b"allow", methods.encode())]


class RequestTooLarge(RelayError):
    """The body is over the limit, given in bytes."""

    status = 413
    code = "request_too_large"

    def __init__(self, limit: int) -> None:
        super().__init__(f"The body is over the limit of {limit:,} bytes")


class UnsupportedContentEncoding(RelayError):
    """The body is compressed."""

    status = 415
    code = "unsupported_content_encoding"
    # RFC 9110, section 12.5.3: what would be taken.
    headers = [(b"accept-encoding", b"identity")]  # noqa: RUF012 (never changed)


class UnsupportedMediaType(RelayError):
    """The body is not JSON by its type."""

    status = 415
    code = "unsupported_media_type"


class HeadTooLarge(RelayError):
    """The request line and headers are over the limit."""

    status = 431
    code = "request_too_large"


class UpstreamUnreachable(RelayError):
    """The upstream gave no answer that can be relayed."""

    status = 502
    code = "upstream_unreachable"
    type = "server_error"


class UpstreamDisconnected(RelayError):
    """The upstream broke off after its answer had begun."""

    status = 502
    code = "upstream_disconnected"
    type = "server_error"


class ServerBusy(RelayError):
    """Too many bytes of request bodies are in memory."""

    status = 503
    code = "server_busy"
    type = "server_error"
    headers = [(b"retry-after", b"1")]  # noqa: RUF012 (never changed)


class UpstreamTimeout(RelayError):
    """The upstream was silent for longer than the provider's timeout."""

    status = 504
    code = "upstream_timeout"
    type = "server_error"


def error_body(message: str, type_: str, param: str | None, code: str | None) -> bytes:
    """Write OpenAI's error object, of which any field but the message may be None."""
    error = {"message": message, "type": type_, "param": param, "code": code}
    return msgspec.json.encode({"error": error})


async def send_json(
    send: Send, status: int, headers: AnswerHeaders, body: bytes
) -> None:
    """Answer with a whole JSON body; `headers` come beside its type and length."""
    head = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        *headers,
    ]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})
