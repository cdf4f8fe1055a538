"""What a caller sends along with its request: its key and, rarely, an upstream's URL.

The header is Llama Stack's (`llama_stack.core.request_headers`), under its name and
under the one it has in OGX; a plain bearer token means the same, so that any OpenAI
client works with a base URL and a key alone.
"""

from collections.abc import Iterable
from typing import Any

import msgspec

from lls_openai.errors import InvalidProviderData

PROVIDER_DATA_HEADERS = (b"x-llamastack-provider-data", b"x-ogx-provider-data")

_READ = frozenset({*PROVIDER_DATA_HEADERS, b"authorization"})

HOW_TO_SEND = (
    'X-LlamaStack-Provider-Data: {"passthrough_api_key": "<your key>"} '
    "or, where the server wants no token of its own there, "
    "Authorization: Bearer <your key>"
)

Headers = Iterable[tuple[bytes, bytes]]


class Credentials:
    """A caller's key and provider data; its repr shows neither.

    Args:
        key: the caller's key, or None when it sent none.
        provider_data: the object of the provider-data header, empty without one.
    """

    __slots__ = ("key", "provider_data")

    def __init__(self, key: str | None, provider_data: dict[str, Any]) -> None:
        self.key = key
        self.provider_data = provider_data

    @property
    def upstream_url(self) -> str | None:
        """The upstream that the caller names, which may only be the pinned one."""
        return self.provider_data.get("passthrough_url")


def read_credentials(headers: Headers, *, bearer_is_key: bool) -> Credentials:
    """Read a caller's credentials from the headers of its request.

    Args:
        headers: ASGI's header pairs, names in lower case.
        bearer_is_key: whether `Authorization` carries the caller's key. It does not
            when the server itself asks for a token there.

    Raises:
        InvalidProviderData: the header is not a JSON object, or what it holds is not
            of the right form.
    """
    sent = _by_name(headers)
    data: dict[str, Any] = {}
    for name in PROVIDER_DATA_HEADERS:
        if not data and (value := sent.get(name)):
            data = _decode(value)
    key = _text(data, "passthrough_api_key")
    _text(data, "passthrough_url")
    if not key and bearer_is_key:
        key = _bearer(sent.get(b"authorization", b""))
    return Credentials(_checked(key), data)


def _by_name(headers: Headers) -> dict[bytes, bytes]:
    """Pick out the headers read here; two of one name are refused: which is meant?"""
    sent: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _READ:
            if name in sent:
                message = (
                    f"The header {name.decode()} is there more than once: send one"
                )
                raise InvalidProviderData(message)
            sent[name] = value
    return sent


def _decode(value: bytes) -> dict[str, Any]:
    try:
        data = msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        data = None
    if not isinstance(data, dict):
        message = f"The provider data is not a JSON object. Send {HOW_TO_SEND}"
        raise InvalidProviderData(message)
    return data


def _text(data: dict[str, Any], field: str) -> str | None:
    value = data.get(field)
    if value is not None and not isinstance(value, str):
        message = f"{field} in the provider data is not a string"
        raise InvalidProviderData(message, field)
    return value


def _bearer(value: bytes) -> str | None:
    """Take the token of `Bearer <token>` (RFC 6750, section 2.1); no other scheme."""
    scheme, _, token = value.partition(b" ")
    return token.strip().decode("latin-1") if scheme.lower() == b"bearer" else None


def _checked(key: str | None) -> str | None:
    """Pass on a key that can stand in a header, so that it cannot end one."""
    if not key:
        return None
    if not (key.isascii() and key.isprintable()):
        message = "The key is not a printable ASCII string"
        raise InvalidProviderData(message, "passthrough_api_key")
    return key.strip() or None
