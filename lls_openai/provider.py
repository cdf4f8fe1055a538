"""The provider's specification: Llama Stack finds it by this module's name.

`module: lls_openai` in run.yaml makes Llama Stack import `lls_openai.provider` and call
`get_provider_spec` (`llama_stack.core.distribution`).
"""

from llama_stack.core.server import server
from llama_stack_api import Api, RemoteProviderSpec

from lls_openai.relay import Relay

STOCK = "llama_stack.providers.remote.inference.passthrough"


def get_provider_spec() -> RemoteProviderSpec:
    """Describe the provider, and put the relay into the server's chain.

    The server looks its middlewares up by name after it has loaded the providers
    (`llama_stack.core.server.server.create_app`), and offers no hook of its own for
    one: rebinding the name is the way in. `tests/test_internals.py` fails when that
    name is not there.

    Raises:
        AttributeError: this Llama Stack has no such middleware.
    """
    server.ProviderDataMiddleware  # noqa: B018 (a name that is gone is not to be made)
    server.ProviderDataMiddleware = Relay
    return RemoteProviderSpec(
        api=Api.inference,
        adapter_type="passthrough",
        provider_type="remote::passthrough",
        module="lls_openai.adapter",
        config_class="lls_openai.config.ProviderConfig",
        provider_data_validator=f"{STOCK}.PassthroughProviderDataValidator",
        is_external=True,
    )
