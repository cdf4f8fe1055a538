"""The server underneath: Llama Stack, or its successor OGX.

This is the only module that imports either of them. Both have the same modules; the
first part of their names differs, and a few modules have moved.
"""

from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llama_stack.core.datatypes import StackConfig
    from llama_stack.core.stack import Stack
    from llama_stack_api import Api, Inference, Model, ModelType, RemoteProviderSpec

__all__ = [
    "Api",
    "Inference",
    "Model",
    "ModelType",
    "RemoteProviderSpec",
    "Stack",
    "StackConfig",
]

NAME = "ogx" if find_spec("ogx") else "llama_stack"
IS_OGX = NAME == "ogx"
DISTRIBUTION = "ogx" if IS_OGX else "llama-stack"
# The prefix of its environment variables.
VARIABLE = "OGX" if IS_OGX else "LLAMA_STACK"
PASSTHROUGH = f"{NAME}.providers.remote.inference.passthrough"

# An object of Llama Stack's, which ships no type information.
type Untyped = Any


def _module(path: str) -> ModuleType:
    return import_module(f"{NAME}.{path}")


api: Untyped = import_module(f"{NAME}_api")
errors: Untyped = import_module(f"{NAME}_api.common.errors")
datatypes: Untyped = _module("core.datatypes")
request_headers: Untyped = _module("core.request_headers")
server: Untyped = _module("core.server.server")
stack: Untyped = _module("core.stack")
forward_headers: Untyped = _module("providers.utils.forward_headers")
network: Untyped = _module(
    "providers.utils.inference." + ("network_config" if IS_OGX else "model_registry")
)
passthrough: Untyped = _module("providers.remote.inference.passthrough.passthrough")
passthrough_config: Untyped = _module("providers.remote.inference.passthrough.config")

if not TYPE_CHECKING:
    Api, Inference, Model = api.Api, api.Inference, api.Model
    ModelType, RemoteProviderSpec = api.ModelType, api.RemoteProviderSpec
    Stack, StackConfig = stack.Stack, datatypes.StackConfig


def import_command() -> Untyped:
    """Return the entry point of Llama Stack's command line.

    Importing it sets up logging and reads the environment.
    """
    (command,) = entry_points(group="console_scripts", name="llama")
    return command.load()
