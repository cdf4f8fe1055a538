"""The errors of a call to an upstream, each with its cause.

A message is one of ours around a cause from the operating system, OpenSSL or the HTTP
parser: it holds no byte of a request or a response.
"""

import os
import socket
import ssl


class UpstreamError(Exception):
    """A call to an upstream failed; the message may be shown and logged."""


class UpstreamTimeout(UpstreamError):  # noqa: N818 (an UpstreamError already)
    """The upstream was silent, or accepted no connection, for too long."""


def connect_timeout(seconds: float) -> UpstreamTimeout:
    """Return the error of a connection that was not made in time."""
    return UpstreamTimeout(
        f"The upstream accepted no connection within {seconds:g} s (network.timeout)"
    )


def read_timeout(seconds: float) -> UpstreamTimeout:
    """Return the error of an upstream that sent and received no byte for so long."""
    return UpstreamTimeout(
        f"The upstream was silent for longer than {seconds:g} s (network.timeout)"
    )


def connect_error(error: Exception, peer: str) -> UpstreamError:
    """Return the error of a connection that could not be made.

    `peer` is "upstream" or "proxy".
    """
    if isinstance(error, socket.gaierror | UnicodeError):
        message = f"The {peer}'s host name could not be resolved"
    elif isinstance(error, ssl.SSLError):
        message = f"The TLS handshake with the {peer} failed: {_tls_reason(error)}"
    elif isinstance(error, ConnectionRefusedError):
        message = f"The {peer} refused the connection"
    elif isinstance(error, ConnectionError):
        message = f"The {peer} closed the connection during the handshake"
    else:
        message = f"No connection to the {peer}: {_os_reason(error)}"
    return UpstreamError(message)


def proxy_refused(status: int) -> UpstreamError:
    """Return the error of a proxy that did not connect to the upstream."""
    return UpstreamError(f"The proxy refused to connect to the upstream: HTTP {status}")


def proxy_failed() -> UpstreamError:
    """Return the error of a proxy that sent no HTTP response, or closed."""
    return UpstreamError("The proxy sent no valid HTTP response to CONNECT")


def disconnected(cause: Exception | None, body_bytes: int | None) -> UpstreamError:
    """Return the error of a connection that ended before the response was complete.

    Without a cause, the upstream closed in order; `body_bytes` is None before the
    response's headers.
    """
    if body_bytes is None:
        when = "before its response headers were complete"
    else:
        unit = "byte" if body_bytes == 1 else "bytes"
        when = f"after {body_bytes:,} {unit} of the response body"
    if cause is None:
        return UpstreamError(f"The upstream closed the connection {when}")
    if isinstance(cause, ConnectionResetError | BrokenPipeError):
        return UpstreamError(f"The upstream reset the connection {when}")
    reason = (
        _tls_reason(cause) if isinstance(cause, ssl.SSLError) else _os_reason(cause)
    )
    return UpstreamError(f"The connection to the upstream failed {when}: {reason}")


def not_http(reason: str) -> UpstreamError:
    """Return the error of a response that is not valid."""
    return UpstreamError(f"The upstream's response is not valid HTTP: {reason}")


def _tls_reason(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    return (error.reason or "no reason given").replace("_", " ").lower()


def _os_reason(error: Exception) -> str:
    number = getattr(error, "errno", None)
    return os.strerror(number) if number else "the network failed"
