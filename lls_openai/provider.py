"""The provider's specification and its adapter: Llama Stack's entry point.

`module: lls_openai` in run.yaml makes Llama Stack import `lls_openai.provider` and call
`get_provider_spec` (`llama_stack.core.distribution`), then `get_adapter_impl`.
"""

from typing import Any

from openai import AsyncOpenAI
from pydantic import BaseModel, ConfigDict

from lls_openai.relay.upstream import Upstream
from lls_openai.server.config_check import abort_startup, check_run_yaml
from lls_openai.server.logging_setup import set_up_logging
from lls_openai.server.patches import apply_patches
from lls_openai.settings import ProviderConfig
from lls_openai.stack import PASSTHROUGH, Api, Model, RemoteProviderSpec, passthrough


def get_provider_spec() -> RemoteProviderSpec:
    """Return the specification, and patch the server that asks for it."""
    apply_patches()
    return RemoteProviderSpec(
        api=Api.inference,
        adapter_type="passthrough",
        provider_type="remote::passthrough",
        module="lls_openai.provider",
        config_class="lls_openai.provider.UncheckedConfig",
        provider_data_validator=f"{PASSTHROUGH}.PassthroughProviderDataValidator",
        is_external=True,
    )


class UncheckedConfig(BaseModel):
    """The settings of a provider as they are in run.yaml.

    Llama Stack answers an invalid setting with a traceback. Here `get_adapter_impl`
    validates them, with one line that says what is wrong.
    """

    model_config = ConfigDict(extra="allow")

    def __repr_args__(self) -> list[tuple[str | None, Any]]:
        """Return nothing: a setting may be a password."""
        return []


class PassthroughAdapter(passthrough.PassthroughInferenceAdapter):  # type: ignore[misc]
    """The stock passthrough adapter, with its upstream pinned and without discovery.

    The relay uses its `upstream`, Llama Stack's own code the stock methods.
    """

    config: ProviderConfig

    def __init__(self, config: ProviderConfig) -> None:
        super().__init__(config)
        self.upstream = Upstream(config)

    async def list_models(self) -> list[Model]:
        """Return an empty list: the stock method asks the upstream, without a key."""
        return []

    async def shutdown(self) -> None:
        """Close the connections; Llama Stack calls this when no call is running."""
        await self.upstream.pool.close()

    def _get_openai_client(self) -> AsyncOpenAI:
        """Return the client for Llama Stack's own code; the stock one retries twice."""
        client: AsyncOpenAI = super()._get_openai_client()
        return client.copy(base_url=self.upstream.base, max_retries=0)


async def get_adapter_impl(
    config: BaseModel, _deps: dict[Api, Any]
) -> PassthroughAdapter:
    """Return the adapter: the name and signature by which Llama Stack finds it."""
    check_run_yaml()
    set_up_logging()
    checked = ProviderConfig.model_validate(config.model_dump())
    try:
        return PassthroughAdapter(checked)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error.args[0]
        abort_startup(f"invalid `network` settings for {checked.base_url}: {reason}")
