"""The settings of one provider in run.yaml: the stock ones, some of them stricter."""

import re

from pydantic import ConfigDict, Field, HttpUrl, field_validator

from lls_openai.stack import network as stock
from lls_openai.stack import passthrough_config

# The ends of the URLs that vendors' pages show, where only a base URL is wanted.
_ROUTE = re.compile(r"/(chat/completions|completions|embeddings|messages|responses)/?$")


class ProviderConfig(passthrough_config.PassthroughImplConfig):  # type: ignore[misc]
    """The stock passthrough settings, with the upstream pinned.

    Of the stock settings, `allowed_models`, `network`, `forward_headers` and `api_key`
    have the effect that `PassthroughImplConfig` documents. `max_bytes_in_flight`,
    `client_timeout` and `drain_timeout` are process-wide: the largest value wins.

    A certificate authority that `network` names is checked without
    `VERIFY_X509_STRICT`, also on Python 3.13 and later: those of companies often lack a
    field that it requires.

    Args:
        base_url: base URL of the upstream.
        append_version: append `/v1` to `base_url` unless its path has a version.
        metrics_provider_name: the vendor's name in metrics (the provider's id).
        model_patterns: shell patterns of the unlisted models that clients may call
            without the provider's name, for example `gpt-*`.
        max_request_bytes: limit of one request body, in bytes.
        max_bytes_in_flight: limit of all buffered request bodies, in bytes.
        client_timeout: time after which a connection without progress on the client's
            side is closed, in seconds.
        drain_timeout: time that running responses have to finish during a graceful
            shutdown, in seconds.
    """

    # Validation errors must not show values: a URL may contain a password.
    model_config = ConfigDict(hide_input_in_errors=True)

    base_url: HttpUrl = Field(description="Base URL of the upstream")
    # Out of the repr: proxy URLs and extra headers may contain passwords.
    network: stock.NetworkConfig | None = Field(default=None, repr=False)
    append_version: bool = True
    metrics_provider_name: str | None = None
    model_patterns: list[str] = Field(default_factory=list)
    max_request_bytes: int = Field(default=64 * 2**20, gt=0)
    max_bytes_in_flight: int = Field(default=512 * 2**20, gt=0)
    client_timeout: float = Field(default=60, gt=0)
    drain_timeout: int = Field(default=60, gt=0)

    @field_validator("base_url")
    @classmethod
    def _check_base_url(cls, url: HttpUrl) -> HttpUrl:
        if url.username or url.password or url.query or url.fragment:
            message = "base_url must not contain credentials, a query or a fragment"
            raise ValueError(message)
        if route := _ROUTE.search(url.path or ""):
            message = f"base_url must end before the route {route[0]}"
            raise ValueError(message)
        return url
