"""Where a provider's calls go, and over what kind of connection."""

import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import ClientTimeout
from llama_stack.providers.utils.inference.model_registry import (
    NetworkConfig,
    ProxyConfig,
    TimeoutConfig,
    TLSConfig,
)
from yarl import URL

from lls_openai.errors import UpstreamNotAllowed
from lls_openai.routes import MODEL_TYPES

# What the OpenAI SDKs wait for, in seconds: a caller that waits longer sets it.
CONNECT_TIMEOUT = 5.0
READ_TIMEOUT = 600.0

_VERSION = re.compile(r"/v\d+((alpha|beta)\d*)?(/|$)")
_TLS_VERSIONS = {
    "TLSv1.2": ssl.TLSVersion.TLSv1_2,
    "TLSv1.3": ssl.TLSVersion.TLSv1_3,
}


@dataclass(frozen=True, slots=True)
class Upstream:
    """An upstream as run.yaml pins it.

    Args:
        given: the URL as configured.
        base: the same with its version, to which an API's path is appended.
        tls: how its certificate is verified.
        proxy: the proxy on the way, or None.
        timeout: how long to wait for a connection and for the next byte.
        endpoints: the URL that each route of this server stands for.
    """

    given: URL
    base: URL
    tls: ssl.SSLContext | bool
    # Its URL may hold a password.
    proxy: URL | None = field(repr=False)
    timeout: ClientTimeout
    endpoints: dict[str, URL]

    def check(self, url: str) -> None:
        """Accept a URL that a caller names when it is this upstream.

        The caller's URL is compared and then forgotten; no request is built of it.

        Args:
            url: the caller's `passthrough_url`.

        Raises:
            UpstreamNotAllowed: it is another place, or no URL.
        """
        if _place(url) not in {_place(str(u)) for u in self._own_urls()}:
            message = (
                "passthrough_url is not this provider's upstream, which is "
                f"{self.given}: leave it out or send that"
            )
            raise UpstreamNotAllowed(message, "passthrough_url")

    def _own_urls(self) -> tuple[URL, ...]:
        return self.given, self.base, self.given.origin()


def pin_upstream(base_url: str, network: NetworkConfig | None) -> Upstream:
    """Make the upstream of a provider's settings.

    Args:
        base_url: the configured URL.
        network: the provider's `network` block.

    Raises:
        OSError: a certificate or key file cannot be read.
    """
    network = network or NetworkConfig()
    given = URL(base_url.rstrip("/"))
    base = given if _VERSION.search(given.path) else given / "v1"
    return Upstream(
        given=given,
        base=base,
        tls=_tls(network.tls, network.proxy),
        proxy=_proxy(network.proxy, given),
        timeout=_timeout(network.timeout),
        endpoints={each: base / each.removeprefix("/v1/") for each in MODEL_TYPES},
    )


def _place(url: str) -> tuple[str, str | None, int | None, str] | None:
    """Reduce a URL to what says where it leads; None when it says more, or nothing.

    What says more is not even parsed: yarl remembers what it has parsed, and a user's
    name, a query or a fragment may be a key.
    """
    if any(sign in url for sign in "@?#"):
        return None
    try:
        parsed = URL(url)
        return parsed.scheme, parsed.host, parsed.port, parsed.path.rstrip("/")
    except ValueError:
        return None


def _timeout(timeout: float | TimeoutConfig | None) -> ClientTimeout:
    connect = read = timeout
    if isinstance(timeout, TimeoutConfig):
        connect, read = timeout.connect, timeout.read
    return ClientTimeout(
        total=None,
        connect=connect or CONNECT_TIMEOUT,
        sock_read=read or READ_TIMEOUT,
        # Below this many seconds aiohttp keeps to the time given, above it rounds up.
        ceil_threshold=READ_TIMEOUT,
    )


def _proxy(proxy: ProxyConfig | None, upstream: URL) -> URL | None:
    """Choose the proxy as `ProxyConfig` describes it; the environment has no say."""
    if proxy is None or _bypasses(upstream.host or "", proxy.no_proxy or []):
        return None
    chosen = proxy.url or (proxy.https if upstream.scheme == "https" else proxy.http)
    return URL(str(chosen)) if chosen else None


def _bypasses(host: str, no_proxy: list[str]) -> bool:
    """Whether a host is listed, or below a domain that is; "*" stands for all."""
    names = (name.lstrip("*.").lower() for name in no_proxy)
    return "*" in no_proxy or any(
        host == name or host.endswith(f".{name}") for name in names
    )


def _tls(tls: TLSConfig | None, proxy: ProxyConfig | None) -> ssl.SSLContext | bool:
    """Say how a certificate is verified; True leaves it to the defaults."""
    proxy_ca = proxy.cacert if proxy else None
    if tls is None and proxy_ca is None:
        return True
    context = _context(tls or TLSConfig())
    if proxy_ca:
        context.load_verify_locations(proxy_ca)
    return context


def _context(tls: TLSConfig) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if isinstance(tls.verify, Path):
        context.load_verify_locations(tls.verify)
    elif not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if tls.min_version:
        context.minimum_version = _TLS_VERSIONS[tls.min_version]
    if tls.ciphers:
        context.set_ciphers(":".join(tls.ciphers))
    if tls.client_cert and tls.client_key:
        context.load_cert_chain(tls.client_cert, tls.client_key)
    return context
