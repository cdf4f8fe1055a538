"""Whose key: what a caller sends along to be let in by the upstream.

The provider-data header is Llama Stack's (`llama_stack.core.request_headers`), under
its name and under the one it has in OGX; `x-api-key` is what Anthropic's clients send,
a bearer token what OpenAI's do.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from lls_openai.errors import RelayError

PROVIDER_DATA_HEADERS = (b"x-llamastack-provider-data", b"x-ogx-provider-data")

_READ = frozenset({*PROVIDER_DATA_HEADERS, b"x-api-key", b"authorization"})

HOW_TO_SEND = (
    'X-LlamaStack-Provider-Data: {"passthrough_api_key": "<your key>"} or x-api-key: '
    "<your key> or, unless the server has tokens, Authorization: Bearer <your key>"
)

# ASGI's header pairs, names in lower case.
type RequestHeaders = Iterable[tuple[bytes, bytes]]


@dataclass(slots=True)
class Credentials:
    """A caller's key and provider data; its repr shows neither.

    Args:
        key: the caller's key, or None when it sent none.
        is_bearer: whether the key came as a bearer token.
        provider_data: the object of the provider-data header, empty without one.
    """

    key: str | None = field(repr=False)
    is_bearer: bool
    provider_data: dict[str, Any] = field(repr=False)


def read_credentials(headers: RequestHeaders, *, bearer_is_key: bool) -> Credentials:
    """Read a caller's credentials from the headers of its request.

    Args:
        headers: the request's.
        bearer_is_key: whether a bearer token is the caller's key, not the server's own.

    Raises:
        RelayError: provider data or key are not of the right form.
    """
    sent = _read_once(headers)
    data: dict[str, Any] = {}
    for name in PROVIDER_DATA_HEADERS:
        if not data and (value := sent.get(name)):
            data = _decode(value)
    for each in ("passthrough_api_key", "passthrough_url"):
        if not isinstance(data.get(each, ""), str | None):
            message = f"{each} in the provider data is not a string"
            raise RelayError("invalid_provider_data", message, each)
    own = sent.get(b"x-api-key", b"").decode("latin-1")
    key = data.get("passthrough_api_key") or own
    is_bearer = not key and bearer_is_key
    if is_bearer:
        key = _bearer_token(sent.get(b"authorization", b""))
    return Credentials(_sendable(key), is_bearer, data)


def missing_api_key() -> RelayError:
    """Make the error that shows a caller how to send its key."""
    return RelayError(
        "missing_api_key", f"No API key. Send yours with each request: {HOW_TO_SEND}"
    )


def _read_once(headers: RequestHeaders) -> dict[bytes, bytes]:
    """Pick the headers read here; reject duplicates as ambiguous."""
    sent: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _READ:
            if name in sent:
                raise RelayError(
                    "invalid_provider_data", f"More than one {name.decode()}: send one"
                )
            sent[name] = value
    return sent


def _decode(value: bytes) -> dict[str, Any]:
    try:
        data = msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        data = None
    if not isinstance(data, dict):
        message = f"The provider data is not a JSON object. Send {HOW_TO_SEND}"
        raise RelayError("invalid_provider_data", message)
    return data


def _bearer_token(value: bytes) -> str:
    """Take the token of `Bearer <token>` (RFC 6750, section 2.1); no other scheme."""
    scheme, _, token = value.partition(b" ")
    return token.decode("latin-1") if scheme.lower() == b"bearer" else ""


def _sendable(key: str) -> str | None:
    """Accept a key that can stand in a header, so that it cannot end one."""
    if not (key.isascii() and key.isprintable()):
        message = "The key is not a printable ASCII string"
        raise RelayError("invalid_provider_data", message, "passthrough_api_key")
    return key.strip() or None
