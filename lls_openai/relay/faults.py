"""What an HTTP client raises, as an error of the contract."""

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError

from lls_openai.errors import RelayError

_SILENT = "The upstream was silent for longer than its timeout in run.yaml"
NOT_HTTP = "The upstream's answer is not HTTP"
# From the special to the general.
_FAULTS = (
    (aiohttp.ClientConnectorDNSError, "The upstream's name could not be resolved"),
    (aiohttp.ClientSSLError, "No TLS to the upstream: its certificate or ours failed"),
    (aiohttp.ClientConnectorError, "The network or TLS to the upstream failed"),
    (aiohttp.ClientHttpProxyError, "The proxy on the way to the upstream refused"),
    (aiohttp.ClientResponseError, NOT_HTTP),
    (HttpProcessingError, NOT_HTTP),
    (Exception, "The upstream closed the connection before its answer was whole"),
)
_CLIENT_ERRORS = (aiohttp.ClientError, HttpProcessingError, OSError)


class upstream_errors:  # noqa: N801 (used like a function, as in contextlib)
    """Turns what an HTTP client raises in a block into a `RelayError`.

    The message is one of ours; the client's own may show what was sent.

    Args:
        broken: what stands for everything but a timeout.
    """

    def __init__(self, broken: str = "upstream_unreachable") -> None:
        self._broken = broken

    def __enter__(self) -> None:
        """Begin the block."""

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        """Raise the contract's error in the place of the client's."""
        if isinstance(error, TimeoutError):
            raise RelayError("upstream_timeout", _SILENT) from None
        if isinstance(error, _CLIENT_ERRORS):
            raise RelayError(self._broken, _explain(error)) from None


def _explain(error: Exception) -> str:
    """Say which part of the way failed, in words that hold nothing of the request."""
    if isinstance(getattr(error, "os_error", None), ConnectionRefusedError):
        return "The upstream refused the connection"
    return next(text for kind, text in _FAULTS if isinstance(error, kind))
