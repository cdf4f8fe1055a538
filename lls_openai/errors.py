"""The errors this server answers by itself, in OpenAI's form.

Everything else an upstream says is relayed as it is. The tree:

    RelayError
    ├── MissingApiKey         401  missing_api_key
    ├── InvalidProviderData   400  invalid_provider_data
    ├── UpstreamNotAllowed    400  upstream_not_allowed
    ├── InvalidRequestBody    400  invalid_request_body
    ├── ModelNotFound         404  model_not_found
    ├── RequestTooLarge       413  request_too_large
    ├── UpstreamUnreachable   502  upstream_unreachable
    ├── UpstreamTimeout       504  upstream_timeout
    └── UpstreamDisconnected  (an event inside a stream)  upstream_disconnected

A message is written here or by the code that raises, never taken from a library or an
upstream: so no key and no prompt can stand in one.
"""

from typing import ClassVar

import msgspec
from starlette.types import Send

# Of an answer: names in lower case, in order.
Headers = list[tuple[bytes, bytes]]


class RelayError(Exception):
    """An answer of the server's own to a request that it could not relay.

    Args:
        message: what is wrong and what to do, for the caller to read.
        param: the field of the request at fault, if it is one.
    """

    status: ClassVar[int]
    code: ClassVar[str]
    type: ClassVar[str] = "invalid_request_error"
    headers: ClassVar[Headers] = []

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param

    def body(self) -> bytes:
        """Give the error as OpenAI's JSON: message, type, param, code."""
        return error_body(self.message, self.type, self.param, self.code)


class MissingApiKey(RelayError):
    """The caller sent no key."""

    status = 401
    code = "missing_api_key"
    type = "authentication_error"
    # RFC 9110, section 11.6.1: a 401 names the scheme to use.
    headers: ClassVar[Headers] = [(b"www-authenticate", b"Bearer")]


class InvalidProviderData(RelayError):
    """The header that carries the key cannot be read."""

    status = 400
    code = "invalid_provider_data"


class UpstreamNotAllowed(RelayError):
    """The caller named an upstream that is not the provider's own."""

    status = 400
    code = "upstream_not_allowed"


class InvalidRequestBody(RelayError):
    """The body is not a request that names a model."""

    status = 400
    code = "invalid_request_body"


class ModelNotFound(RelayError):
    """No provider serves the model, or the provider does not allow it."""

    status = 404
    code = "model_not_found"


class RequestTooLarge(RelayError):
    """The body is over the limit.

    Args:
        limit: the largest body that is taken, in bytes.
    """

    status = 413
    code = "request_too_large"

    def __init__(self, limit: int) -> None:
        super().__init__(f"The body is over the limit of {limit:,} bytes")


class UpstreamUnreachable(RelayError):
    """The upstream gave no answer that can be relayed."""

    status = 502
    code = "upstream_unreachable"
    type = "server_error"


class UpstreamTimeout(RelayError):
    """The upstream was silent for longer than the provider's timeout."""

    status = 504
    code = "upstream_timeout"
    type = "server_error"


class UpstreamDisconnected(RelayError):
    """The upstream broke off after its answer had begun."""

    status = 502
    code = "upstream_disconnected"
    type = "server_error"


def error_body(message: str, type_: str, param: str | None, code: str | None) -> bytes:
    """Write OpenAI's error object.

    Args:
        message: what a person reads.
        type_: the class of the error, such as `invalid_request_error`.
        param: the field at fault, or None.
        code: what a program reads, or None.
    """
    error = {"message": message, "type": type_, "param": param, "code": code}
    return msgspec.json.encode({"error": error})


async def send_error(send: Send, error: RelayError) -> None:
    """Answer a request with an error of the server's own.

    Args:
        send: ASGI's send, with nothing sent yet.
        error: what to answer.
    """
    await send_json(send, error.status, error.headers, error.body())


async def send_json(send: Send, status: int, headers: Headers, body: bytes) -> None:
    """Answer with a whole JSON body.

    Args:
        send: ASGI's send, with nothing sent yet.
        status: the HTTP status.
        headers: further headers, beside the type and length of the body.
        body: the JSON text.
    """
    head = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        *headers,
    ]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})
