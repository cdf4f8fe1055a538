"""The client's API key and provider data.

A key comes in Llama Stack's provider-data header (`llama_stack.core.request_headers`),
which OGX has renamed, in Anthropic's `x-api-key`, or as OpenAI's bearer token.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from lls_openai.errors import RelayError

PROVIDER_DATA_HEADERS = (b"x-llamastack-provider-data", b"x-ogx-provider-data")

_CREDENTIAL_HEADERS = frozenset(
    {*PROVIDER_DATA_HEADERS, b"x-api-key", b"authorization"}
)

HOW_TO_SEND = (
    'X-LlamaStack-Provider-Data: {"passthrough_api_key": "<your key>"} or x-api-key: '
    "<your key> or, if the server does not require its own token, "
    "Authorization: Bearer <your key>"
)

# ASGI's header pairs, names in lower case.
type RequestHeaders = Iterable[tuple[bytes, bytes]]


@dataclass(slots=True)
class Credentials:
    """A client's key and provider data; the repr shows neither."""

    key: str | None = field(repr=False)
    # Whether the key came as a bearer token.
    is_bearer: bool
    provider_data: dict[str, Any] = field(repr=False)


def read_credentials(headers: RequestHeaders, *, bearer_is_key: bool) -> Credentials:
    """Read a client's credentials, or raise RelayError if they are invalid.

    A bearer token is the client's key, unless it is a token for this server.
    """
    found = _find_credential_headers(headers)
    data: dict[str, Any] = {}
    for name in PROVIDER_DATA_HEADERS:
        if not data and (value := found.get(name)):
            data = _decode_provider_data(value)
    for field_name in ("passthrough_api_key", "passthrough_url"):
        if not isinstance(data.get(field_name, ""), str | None):
            message = f"{field_name} in the provider data must be a string"
            raise RelayError("invalid_provider_data", message, field_name)
    header_key = found.get(b"x-api-key", b"").decode("latin-1")
    key = data.get("passthrough_api_key") or header_key
    is_bearer = not key and bearer_is_key
    if is_bearer:
        key = _bearer_token(found.get(b"authorization", b""))
    return Credentials(_validate_key(key), is_bearer, data)


def missing_api_key() -> RelayError:
    """Build the error that shows a client how to send its key."""
    message = f"Missing API key. Send it as {HOW_TO_SEND}"
    return RelayError("missing_api_key", message)


def _find_credential_headers(headers: RequestHeaders) -> dict[bytes, bytes]:
    """Return the headers with credentials; duplicates are ambiguous."""
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _CREDENTIAL_HEADERS:
            if name in found:
                message = f"Duplicate {name.decode()} header"
                raise RelayError("invalid_provider_data", message)
            found[name] = value
    return found


def _decode_provider_data(value: bytes) -> dict[str, Any]:
    try:
        data = msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        data = None
    if not isinstance(data, dict):
        message = f"The provider data is not a JSON object. Send {HOW_TO_SEND}"
        raise RelayError("invalid_provider_data", message)
    return data


def _bearer_token(value: bytes) -> str:
    """Return the token of `Bearer <token>` (RFC 6750, section 2.1), or ""."""
    scheme, _, token = value.partition(b" ")
    return token.decode("latin-1") if scheme.lower() == b"bearer" else ""


def _validate_key(key: str) -> str | None:
    """Reject a key that could end a header or begin another one."""
    if not (key.isascii() and key.isprintable()):
        message = "API key must be printable ASCII"
        raise RelayError("invalid_provider_data", message, "passthrough_api_key")
    return key.strip() or None
