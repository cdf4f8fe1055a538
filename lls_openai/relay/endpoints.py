"""Where a connection goes: to an upstream, or to a proxy on the way to it."""

from base64 import b64encode
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import unquote
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]

from pydantic import HttpUrl

from lls_openai.relay.tls import ClientContext, proxy_context
from lls_openai.stack import network as stock


class Endpoint(NamedTuple):
    """A host and a port; with a context, TLS is spoken there."""

    host: str
    port: int
    tls: ClientContext | None = None

    @property
    def authority(self) -> str:
        """The host and port, an IPv6 address in brackets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy; its header line with credentials is not shown."""

    endpoint: Endpoint
    authorization: bytes = field(default=b"", repr=False)


def endpoint_of(url: HttpUrl, tls: ClientContext | None) -> Endpoint:
    """Return host and port of a URL; pydantic encodes the host (IDNA)."""
    return Endpoint((url.host or "").strip("[]"), url.port or 0, tls)


def choose_proxy(network: stock.NetworkConfig, upstream: HttpUrl) -> Proxy | None:
    """Return the proxy that `ProxyConfig` chooses; the environment has no say."""
    proxy = network.proxy
    if proxy is None:
        return None
    # "*" means all hosts, "*.name" those below a name.
    exempt = proxy.no_proxy or []
    names = ",".join(name.removeprefix("*") for name in exempt)
    if "*" in exempt or proxy_bypass_environment(upstream.host or "", {"no": names}):
        return None
    url = proxy.url or (proxy.https if upstream.scheme == "https" else proxy.http)
    if url is None:
        return None
    tls = proxy_context(network) if url.scheme == "https" else None
    return Proxy(endpoint_of(url, tls), _authorization(url))


def _authorization(proxy: HttpUrl) -> bytes:
    if proxy.username is None and proxy.password is None:
        return b""
    pair = f"{unquote(proxy.username or '')}:{unquote(proxy.password or '')}"
    return b"Proxy-Authorization: Basic " + b64encode(pair.encode())
