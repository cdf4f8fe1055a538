"""How an upstream's certificate is verified, and TLS sessions are resumed."""

import asyncio
import ssl
import sys
from functools import cache
from pathlib import Path

from lls_openai.stack import network


class ClientContext(ssl.SSLContext):
    """A context that resumes the last session with a host, once.

    asyncio has no argument for a session; it calls `wrap_bio`, which has one.
    """

    def __init__(self, _protocol: int = ssl.PROTOCOL_TLS_CLIENT) -> None:
        self._sessions: dict[str, ssl.SSLSession] = {}
        self.minimum_version = ssl.TLSVersion.TLSv1_2
        self.set_alpn_protocols(["http/1.1"])

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,  # noqa: FBT001, FBT002 (as in `ssl`)
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """Return a TLS connection that offers to resume the host's last session."""
        session = session or self._sessions.pop(str(server_hostname), None)
        return super().wrap_bio(
            incoming, outgoing, server_side, server_hostname, session
        )

    def keep_session(self, transport: asyncio.Transport) -> None:
        """Keep a connection's session, which TLS 1.3 sends after the handshake."""
        tls: ssl.SSLObject = transport.get_extra_info("ssl_object")
        if tls.session:
            self._sessions[str(tls.server_hostname)] = tls.session


def upstream_context(settings: network.NetworkConfig) -> ClientContext:
    """Return the context for connections to an upstream.

    A proxy's authority counts, too: it may intercept. Raises OSError if a file cannot
    be read, or holds no certificate or key.
    """
    tls = settings.tls
    if tls is None:
        return proxy_context(settings)
    context = _trusting_context(_authorities(settings))
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if tls.min_version == "TLSv1.3":
        context.minimum_version = ssl.TLSVersion.TLSv1_3
    if tls.ciphers:
        context.set_ciphers(":".join(tls.ciphers))
    if tls.client_cert:
        context.load_cert_chain(tls.client_cert, tls.client_key)
    return context


def proxy_context(settings: network.NetworkConfig) -> ClientContext:
    """Return the context for connections to a proxy, which gets no certificate."""
    authorities = _authorities(settings)
    return _trusting_context(authorities) if authorities else _default_context()


def _authorities(settings: network.NetworkConfig) -> list[Path]:
    """Return the files of authorities that are trusted beside the system's."""
    named = [
        settings.tls.verify if settings.tls else None,
        settings.proxy.cacert if settings.proxy else None,
    ]
    return [each for each in named if isinstance(each, Path)]


@cache
def _default_context() -> ClientContext:
    return _trusting_context([])


def _trusting_context(authorities: list[Path]) -> ClientContext:
    context = ClientContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_default_certs()
    for each in authorities:
        context.load_verify_locations(each)
    # As `ssl.create_default_context` does for the system's authorities; those of
    # companies often lack a key usage.
    if sys.version_info >= (3, 13):
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        if not authorities:
            context.verify_flags |= ssl.VERIFY_X509_STRICT
    return context
