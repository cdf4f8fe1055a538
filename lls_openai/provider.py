"""The door that Llama Stack opens: the provider's specification and its adapter.

`module: lls_openai` in run.yaml makes Llama Stack import `lls_openai.provider` and call
`get_provider_spec` (`llama_stack.core.distribution`).
"""

from typing import Any

from openai import AsyncOpenAI

from lls_openai.relay.upstream import Upstream
from lls_openai.server.patches import install
from lls_openai.settings import ProviderConfig, give_up
from lls_openai.stack import PASSTHROUGH, Api, Model, RemoteProviderSpec, passthrough


def get_provider_spec() -> RemoteProviderSpec:
    """Describe the provider, and put its relay into the server that is being built."""
    install()
    return RemoteProviderSpec(
        api=Api.inference,
        adapter_type="passthrough",
        provider_type="remote::passthrough",
        module="lls_openai.provider",
        config_class="lls_openai.settings.ProviderConfig",
        provider_data_validator=f"{PASSTHROUGH}.PassthroughProviderDataValidator",
        is_external=True,
    )


class PassthroughAdapter(passthrough.PassthroughInferenceAdapter):  # type: ignore[misc]
    """The stock passthrough adapter, with its upstream pinned and without discovery.

    The relay asks for its `upstream`; callers inside Llama Stack use the stock methods.
    """

    config: ProviderConfig

    def __init__(self, config: ProviderConfig) -> None:
        super().__init__(config)
        self.upstream = Upstream(config)

    async def list_models(self) -> list[Model]:
        """Give none: the stock method asks the upstream, at boot and without a key."""
        return []

    async def shutdown(self) -> None:
        """Close the connections: Llama Stack stops, and no call is running."""
        await self.upstream.pool.close()

    def _get_openai_client(self) -> AsyncOpenAI:
        """Give callers inside Llama Stack their client; the stock one tries thrice."""
        client: AsyncOpenAI = super()._get_openai_client()
        return client.copy(base_url=self.upstream.base, max_retries=0)


async def get_adapter_impl(
    config: ProviderConfig, _deps: dict[Api, Any]
) -> PassthroughAdapter:
    """Make the adapter: the name and signature by which Llama Stack finds it."""
    try:
        return PassthroughAdapter(config)
    except OSError as error:
        reason = error.strerror or error.args[0]
        give_up(f"run.yaml: the network block of {config.base_url}: {reason}")
