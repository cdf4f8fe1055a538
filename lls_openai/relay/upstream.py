"""Where a provider's calls go, over what kind of connection, and with which headers."""

import re
import ssl
from functools import cached_property
from importlib.metadata import version
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]

from aiohttp import ClientSession, ClientTimeout
from multidict import CIMultiDict
from yarl import URL

from lls_openai.errors import RelayError, too_large
from lls_openai.relay.client import open_pool
from lls_openai.relay.credentials import Credentials, RequestHeaders, missing_api_key
from lls_openai.relay.routes import ROUTES, Route
from lls_openai.settings import ProviderConfig
from lls_openai.stack import forward_headers, http_client
from lls_openai.stack import network as stock

# What the OpenAI SDKs wait for, in seconds: a caller that waits longer sets it.
CONNECT_TIMEOUT = 5.0
READ_TIMEOUT = 600.0

# The caller's headers that go on to the upstream.
_PASSED = frozenset(
    {b"idempotency-key", b"traceparent", b"tracestate", b"x-client-request-id"}
)
_PASSED_PREFIXES = (b"openai-", b"anthropic-")

_OWN_HEADERS = {
    "Accept": "*/*",
    # What comes compressed can be neither measured nor mended.
    "Accept-Encoding": "identity",
    "Content-Type": "application/json",
    "User-Agent": f"lls-openai/{version('lls-openai')}",
}

_VERSION = re.compile(r"/v\d+((alpha|beta)\d*)?(/|$)")


class Upstream:
    """An upstream as run.yaml pins it.

    Args:
        config: the provider's settings.

    Raises:
        OSError: a certificate or key file of its `network` block cannot be read.
    """

    def __init__(self, config: ProviderConfig) -> None:
        network = config.network or stock.NetworkConfig()
        self.config = config
        self._given = str(config.base_url).rstrip("/")
        given = URL(self._given)
        base = given if _VERSION.search(given.path) else given / "v1"
        self.base = str(base)
        self._own = {self._given, self.base, str(given.origin())}
        # The caller's must not take the place of the provider's.
        self._headers = CIMultiDict(_OWN_HEADERS)
        self._headers.update(network.headers or {})
        self._tls = _tls(network.tls, network.proxy)
        self._proxy = _proxy(network.proxy, given)
        self._timeout = _timeout(network.timeout)
        self._endpoints = {path: base / path.removeprefix("/v1/") for path in ROUTES}

    @cached_property
    def pool(self) -> ClientSession:
        """Connections to it; they belong to the loop that asks first."""
        return open_pool(tls=self._tls, proxy=self._proxy, timeout=self._timeout)

    def endpoint(self, path: str, query: bytes) -> URL:
        """Give the upstream's URL for a route, with the caller's query."""
        endpoint = self._endpoints[path]
        if query and query.isascii():
            return URL(f"{endpoint}?{query.decode()}", encoded=True)
        return endpoint

    def check(self, model: str, body_bytes: int, credentials: Credentials) -> None:
        """Let a request pass that the provider's settings allow.

        Args:
            model: the upstream's own name for the model.
            body_bytes: how large the request's body is.
            credentials: what the caller sent; an upstream in it is compared as text.

        Raises:
            RelayError: the model is not allowed, the body too large, or the upstream
                that the caller names another.
        """
        allowed = self.config.allowed_models
        if allowed is not None and model not in allowed:
            names = ", ".join(allowed) or "none"
            message = f"This provider allows these models only: {names}"
            raise RelayError("model_not_found", message, "model")
        if body_bytes > self.config.max_request_bytes:
            raise too_large(self.config.max_request_bytes)
        url = credentials.provider_data.get("passthrough_url")
        if url is not None and url.rstrip("/") not in self._own:
            message = (
                "passthrough_url is not this provider's upstream, which is "
                f"{self._given}: leave it out or send that"
            )
            raise RelayError("upstream_not_allowed", message, "passthrough_url")

    def headers(
        self, caller: RequestHeaders, credentials: Credentials, route: Route
    ) -> CIMultiDict[str]:
        """Build all headers of a call; the provider's go before the caller's.

        The order is the stock adapter's: `forward_headers`, then the key, of which a
        configured one goes before the caller's.

        Args:
            caller: the request's headers.
            credentials: what the caller sent.
            route: the route that was asked for.

        Raises:
            RelayError: there is no key to send, nor what stands for one.
        """
        headers = CIMultiDict(
            (name.decode(), value.decode())
            for name, value in caller
            if (name in _PASSED or name.startswith(_PASSED_PREFIXES))
            and value.isascii()
        )
        headers.update(self._headers)
        forwarded = forward_headers.build_forwarded_headers(
            credentials.provider_data, self.config.forward_headers
        )
        headers.update(forwarded)
        configured = self.config.auth_credential
        key = configured.get_secret_value() if configured else credentials.key
        if not key and not forwarded:
            raise missing_api_key()
        if key and route.anthropic and (configured or not credentials.is_bearer):
            headers["x-api-key"] = key
        elif key:
            headers["Authorization"] = f"Bearer {key}"
        return headers


def _timeout(timeout: float | stock.TimeoutConfig | None) -> ClientTimeout:
    connect = read = timeout
    if isinstance(timeout, stock.TimeoutConfig):
        connect, read = timeout.connect, timeout.read
    return ClientTimeout(
        total=None, connect=connect or CONNECT_TIMEOUT, sock_read=read or READ_TIMEOUT
    )


def _proxy(proxy: stock.ProxyConfig | None, upstream: URL) -> URL | None:
    """Choose the proxy as `ProxyConfig` describes it; the environment has no say."""
    if proxy is None:
        return None
    # "*" stands for all hosts, "*.name" for those below a name.
    exempt = proxy.no_proxy or []
    names = ",".join(name.removeprefix("*") for name in exempt)
    if "*" in exempt or proxy_bypass_environment(upstream.host or "", {"no": names}):
        return None
    chosen = proxy.url or (proxy.https if upstream.scheme == "https" else proxy.http)
    return URL(str(chosen)) if chosen else None


def _tls(
    tls: stock.TLSConfig | None, proxy: stock.ProxyConfig | None
) -> ssl.SSLContext | bool:
    """Say how a certificate is verified; True leaves it to the defaults."""
    proxy_ca = proxy.cacert if proxy else None
    if tls is None and proxy_ca is None:
        return True
    tls = tls or stock.TLSConfig()
    # Python's own least version: with one, Llama Stack always makes a context.
    least = {"min_version": tls.min_version or "TLSv1.2"}
    context: ssl.SSLContext = http_client._build_ssl_context(  # noqa: SLF001 (docs/design.md)
        tls.model_copy(update=least)
    )
    if proxy_ca:
        context.load_verify_locations(proxy_ca)
    return context
