"""One provider's upstream: its URL, TLS, proxy, timeouts and request headers."""

import re
from collections.abc import Mapping
from functools import cached_property, lru_cache, partial
from importlib.metadata import version
from urllib.parse import quote

from starlette.types import Scope

from lls_openai.errors import RelayError, request_too_large
from lls_openai.relay.connector import Connector
from lls_openai.relay.credentials import Credentials, RequestHeaders, missing_api_key
from lls_openai.relay.endpoints import choose_proxy, endpoint_of
from lls_openai.relay.pool import Pool
from lls_openai.relay.routes import Route
from lls_openai.relay.tls import upstream_context
from lls_openai.settings import ProviderConfig
from lls_openai.stack import forward_headers
from lls_openai.stack import network as stock

# In seconds, as the OpenAI SDKs wait.
CONNECT_TIMEOUT = 5.0
READ_TIMEOUT = 600.0

# The client's headers that the upstream gets, unless the provider sets them.
_PASSED = frozenset(
    b"idempotency-key session_id traceparent tracestate user-agent x-app "
    b"x-client-request-id".split()
)
_PASSED_PREFIXES = (
    b"anthropic-",
    b"openai-",
    b"x-claude-code-",
    b"x-codex-",
    b"x-stainless-",
)

_OWN_HEADERS = {
    "Accept": "*/*",
    # A compressed stream could not be read event by event.
    "Accept-Encoding": "identity",
    "Content-Type": "application/json",
}
_USER_AGENT = f"User-Agent: lls-openai/{version('lls-openai')}".encode()

# These describe the body, which no setting knows.
_FRAMING = (b"content-length", b"transfer-encoding")

_VERSION = re.compile(r"/v\d+((alpha|beta)\d*)?(/|$)")
# RFC 9110, sections 5.1 and 5.5; RFC 3986, section 3.4.
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")
_QUERY = re.compile(rb"[!-~]*")

# How many paths of routes are kept in their encoded form, and how many decisions about
# header names.
_KEPT_PATHS = 256
_KEPT_DECISIONS = 256

type Lines = dict[bytes, bytes]


class Upstream:
    """An upstream as run.yaml pins it.

    Raises OSError if a file of its `network` block cannot be read, ValueError if a
    header or a key of the settings cannot be sent.
    """

    def __init__(self, config: ProviderConfig) -> None:
        network = config.network or stock.NetworkConfig()
        self.config = config
        self._configured_url = str(config.base_url).rstrip("/")
        path = (config.base_url.path or "").rstrip("/")
        suffix = "" if _VERSION.search(path) or not config.append_version else "/v1"
        self.base = self._configured_url + suffix
        origin = self._configured_url.removesuffix(path)
        self._allowed_urls = {self._configured_url, self.base, origin}
        self._key = _configured_key(config)
        self._own = _lines(_OWN_HEADERS | {"Host": origin.partition("//")[2]})
        self._own |= _lines(network.headers or {})
        context = upstream_context(network)
        is_tls = config.base_url.scheme == "https"
        self._endpoint = endpoint_of(config.base_url, context if is_tls else None)
        self._proxy = choose_proxy(network, config.base_url)
        if self._proxy and not is_tls:
            # It gets the whole URL, and credentials with each request.
            path = origin + path
            if self._proxy.authorization:
                self._own[b"proxy-authorization"] = self._proxy.authorization
        self._own_lines = b"\r\n".join(self._own.values())
        self._passes: dict[bytes, bool] = {}
        self._target = lru_cache(_KEPT_PATHS)(partial(_target, path + suffix))
        self._connect_timeout, self._read_timeout = _timeouts(network.timeout)

    @cached_property
    def pool(self) -> Pool:
        """The connections to it, bound to the event loop that asks first."""
        connector = Connector(self._endpoint, self._proxy, self._connect_timeout)
        return Pool(connector, self._read_timeout)

    @property
    def needs_client_key(self) -> bool:
        """Whether no setting provides a key or forwards another credential."""
        return not self._key and not self.config.forward_headers

    def check(self, model: str, body_bytes: int, credentials: Credentials) -> None:
        """Raise RelayError if the provider's settings do not allow a request.

        `model` is the upstream's name. A URL in the provider data is compared as text.
        """
        allowed = self.config.allowed_models
        if allowed is not None and model not in allowed:
            names = ", ".join(allowed) or "none"
            message = f"Model not allowed for this provider. Allowed models: {names}"
            raise RelayError("model_not_found", message, "model")
        if body_bytes > self.config.max_request_bytes:
            raise request_too_large(self.config.max_request_bytes)
        url = credentials.provider_data.get("passthrough_url")
        if url is not None and url.rstrip("/") not in self._allowed_urls:
            message = (
                f"passthrough_url must be omitted or equal to {self._configured_url}"
            )
            raise RelayError("upstream_not_allowed", message, "passthrough_url")

    def request_head(
        self, scope: Scope, credentials: Credentials, route: Route, body_bytes: int
    ) -> bytes:
        """Return the start line and all headers of a request to the upstream.

        The provider's headers go before the client's, credentials before both. Raises
        RelayError if there is neither a key nor another credential to forward.
        """
        own_lines = self._own_lines
        secrets = self._credential_lines(credentials, route)
        if not secrets.keys().isdisjoint(self._own):
            own = (line for name, line in self._own.items() if name not in secrets)
            own_lines = b"\r\n".join(own)
        target = self._target(scope["path"]) + _query(scope["query_string"])
        return b"\r\n".join(
            (
                b"POST " + target + b" HTTP/1.1",
                own_lines,
                *secrets.values(),
                *self._client_lines(scope["headers"], secrets),
                b"Content-Length: %d\r\n\r\n" % body_bytes,
            )
        )

    def _client_lines(self, headers: RequestHeaders, secrets: Lines) -> list[bytes]:
        """Return the lines of the client's headers that pass, and a user agent."""
        lines, has_agent = [], b"user-agent" in self._own
        for pair in headers:
            name, value = pair
            passes = self._passes.get(name)
            if passes is None:
                passes = self._decide(name)
            if passes and value.isascii() and name not in secrets:
                lines.append(b": ".join(pair))
                has_agent = has_agent or name == b"user-agent"
        return lines if has_agent else [*lines, _USER_AGENT]

    def _decide(self, name: bytes) -> bool:
        """Return whether a client's header passes; the decisions are kept."""
        is_known = name in _PASSED or name.startswith(_PASSED_PREFIXES)
        passes = is_known and name not in self._own
        if len(self._passes) < _KEPT_DECISIONS and len(name) < _KEPT_DECISIONS:
            self._passes[name] = passes
        return passes

    def _credential_lines(self, credentials: Credentials, route: Route) -> Lines:
        """Return what `forward_headers` names, and the key, a configured one first."""
        forwarded: Lines = {}
        if self.config.forward_headers:
            forwarded = _lines(
                forward_headers.build_forwarded_headers(
                    credentials.provider_data, self.config.forward_headers
                )
            )
        key = self._key or credentials.key
        if key is None:
            if not forwarded:
                raise missing_api_key()
        elif route.format == "anthropic" and (self._key or not credentials.is_bearer):
            forwarded[b"x-api-key"] = b"x-api-key: " + key.encode()
        else:
            forwarded[b"authorization"] = b"Authorization: Bearer " + key.encode()
        return forwarded


def _configured_key(config: ProviderConfig) -> str | None:
    credential = config.auth_credential
    key: str = credential.get_secret_value() if credential else ""
    if not (key.isascii() and key.isprintable()):
        raise ValueError("api_key is not a printable ASCII string")
    return key or None


def _lines(headers: Mapping[str, str]) -> Lines:
    """Return header lines by lower-case names; raise ValueError if one is invalid."""
    for name, value in headers.items():
        if not (_HEADER_NAME.fullmatch(name) and _HEADER_VALUE.fullmatch(value)):
            raise ValueError(f"the header {name!r} has a character that none may have")
    pairs = (
        (name.lower().encode(), f"{name}: {value}".encode())
        for name, value in headers.items()
    )
    return {name: line for name, line in pairs if name not in _FRAMING}


def _target(base_path: str, path: str) -> bytes:
    """Return a request target: the base URL's path, and the route's without `/v1`."""
    return (base_path + quote(path.removeprefix("/v1"), safe="/:@!$&'()*+,;=")).encode()


def _query(query: bytes) -> bytes:
    return b"?" + query if query and _QUERY.fullmatch(query) else b""


def _timeouts(timeout: float | stock.TimeoutConfig | None) -> tuple[float, float]:
    connect = read = timeout
    if isinstance(timeout, stock.TimeoutConfig):
        connect, read = timeout.connect, timeout.read
    return connect or CONNECT_TIMEOUT, read or READ_TIMEOUT
