"""The provider's specification: Llama Stack finds it by this module's name.

`module: lls_openai` in run.yaml makes Llama Stack import `lls_openai.provider` and call
`get_provider_spec` (`llama_stack.core.distribution`).
"""

from llama_stack_api import Api, RemoteProviderSpec

from lls_openai import hooks

STOCK = "llama_stack.providers.remote.inference.passthrough"


def get_provider_spec() -> RemoteProviderSpec:
    """Describe the provider, and put its relay into the server that is being built."""
    hooks.install()
    return RemoteProviderSpec(
        api=Api.inference,
        adapter_type="passthrough",
        provider_type="remote::passthrough",
        module="lls_openai.adapter",
        config_class="lls_openai.config.load_config",
        provider_data_validator=f"{STOCK}.PassthroughProviderDataValidator",
        is_external=True,
    )
