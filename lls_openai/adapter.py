"""The provider as Llama Stack sees it: where a request goes and with which headers."""

from typing import Any

from llama_stack.providers.remote.inference.passthrough.passthrough import (
    PassthroughInferenceAdapter,
)
from llama_stack.providers.utils.forward_headers import build_forwarded_headers
from llama_stack_api import Api, Model
from openai import AsyncOpenAI

from lls_openai.config import ProviderConfig
from lls_openai.credentials import HOW_TO_SEND, Credentials
from lls_openai.errors import MissingApiKey, ModelNotFound, RequestTooLarge
from lls_openai.lifecycle import give_up
from lls_openai.upstream import Upstream, pin_upstream


class PassthroughAdapter(PassthroughInferenceAdapter):  # type: ignore[misc]
    """The stock passthrough adapter, with its upstream pinned and without discovery.

    The relay asks it about each request. Callers inside Llama Stack use the stock
    methods, which come here for their client.

    Args:
        config: the provider's settings in run.yaml.
    """

    config: ProviderConfig

    def __init__(self, config: ProviderConfig) -> None:
        super().__init__(config)
        self.upstream: Upstream = pin_upstream(str(config.base_url), config.network)

    @property
    def needs_key(self) -> bool:
        """Whether a call is hopeless unless the caller sends a key."""
        return not (self._configured_key or self.config.forward_headers)

    @property
    def _configured_key(self) -> str | None:
        credential = self.config.auth_credential
        return credential.get_secret_value() if credential else None

    async def list_models(self) -> list[Model]:
        """Give none: the stock method asks the upstream, at boot and without a key."""
        return []

    def check(self, model: str, body_bytes: int) -> None:
        """Let a request pass that the provider's settings allow.

        Args:
            model: the upstream's own name for the model.
            body_bytes: how large the request's body is.

        Raises:
            ModelNotFound: `allowed_models` leaves the model out.
            RequestTooLarge: the body is over `max_request_bytes`.
        """
        allowed = self.config.allowed_models
        if allowed is not None and model not in allowed:
            names = ", ".join(allowed) or "none"
            message = f"This provider allows these models only: {names}"
            raise ModelNotFound(message, "model")
        if body_bytes > self.config.max_request_bytes:
            raise RequestTooLarge(self.config.max_request_bytes)

    def headers(self, credentials: Credentials) -> dict[str, str]:
        """Build the headers that carry a caller's credentials to the upstream.

        The order is the stock adapter's: `forward_headers`, then the key, of which a
        configured one goes before the caller's.

        Args:
            credentials: what the caller sent.

        Raises:
            UpstreamNotAllowed: the caller names another upstream.
            MissingApiKey: there is nothing to send.
        """
        if credentials.upstream_url is not None:
            self.upstream.check(credentials.upstream_url)
        forwarded = build_forwarded_headers(
            credentials.provider_data, self.config.forward_headers
        )
        key = self._configured_key or credentials.key
        if key:
            forwarded = _without_authorization(forwarded)
            forwarded["Authorization"] = f"Bearer {key}"
        if not forwarded:
            raise missing_api_key()
        network = self.config.network
        return {**((network and network.headers) or {}), **forwarded}

    def _get_openai_client(self) -> AsyncOpenAI:
        """Give callers inside Llama Stack a client for the pinned upstream.

        The stock one (`PassthroughInferenceAdapter._get_openai_client`) appends `/v1`
        to every URL and tries thrice.
        """
        client: AsyncOpenAI = super()._get_openai_client()
        return client.copy(base_url=str(self.upstream.base), max_retries=0)


def _without_authorization(headers: dict[str, str]) -> dict[str, str]:
    return {k: v for k, v in headers.items() if k.lower() != "authorization"}


def missing_api_key() -> MissingApiKey:
    """Make the error that shows a caller how to send its key."""
    return MissingApiKey(f"No API key. Send yours with each request: {HOW_TO_SEND}")


async def get_adapter_impl(
    config: ProviderConfig, _deps: dict[Api, Any]
) -> PassthroughAdapter:
    """Make the adapter: the name and signature by which Llama Stack finds it.

    Args:
        config: the provider's settings in run.yaml.
        _deps: other APIs' implementations; this one needs none.
    """
    try:
        return PassthroughAdapter(config)
    except OSError as error:
        reason = error.strerror or error.args[0]
        give_up(f"run.yaml: the network block of {config.base_url}: {reason}")
