"""Which provider serves a model: Llama Stack's router is asked, and decides.

This is the project's one reach into the router. No public way exists: the router's
public methods make the call themselves. `tests/test_internals.py` fails when what is
used here is not there.
"""

from typing import Any

from llama_stack.core.request_headers import (
    request_provider_data_context,
    user_from_scope,
)
from llama_stack.core.stack import Stack
from llama_stack_api import Api, Inference, ModelNotFoundError, ModelType
from llama_stack_api.common.errors import ModelTypeError
from starlette.types import Scope

from lls_openai.adapter import PassthroughAdapter
from lls_openai.errors import InvalidRequestBody, ModelNotFound
from lls_openai.routes import MODEL_TYPES

# How many answers of the router are kept: 40 us a request each.
REMEMBERED = 1024

# A longer name is no model's; it is not looked up, nor repeated.
LONGEST_NAME = 256

type Key = tuple[str, ModelType]
type Found = tuple[Inference, str]


class Routing:
    """What the relay asks of the running stack.

    Args:
        stack: Llama Stack's own object, initialised.
    """

    def __init__(self, stack: Stack) -> None:
        auth = stack.run_config.server.auth
        self.has_authentication: bool = bool(auth and auth.provider_config)
        self._same_for_all = not (auth and (auth.provider_config or auth.access_policy))
        self._known: dict[Key, Found] = {}
        self._router: Any = stack.impls[Api.inference]
        self._table: Any = self._router.routing_table
        self._providers: dict[str, Inference] = self._table.impls_by_provider_id
        ours = [
            p for p in self._providers.values() if isinstance(p, PassthroughAdapter)
        ]
        self.body_limit: int = max(p.config.max_request_bytes for p in ours)
        self.needs_key: bool = len(ours) == len(self._providers) and all(
            provider.needs_key for provider in ours
        )

    async def find(self, model: str, scope: Scope) -> Found:
        """Find the provider of a model, and the upstream's own name for the model.

        Access control is the router's: what the authenticated user may not read is
        not found.

        Args:
            model: the model as the caller names it.
            scope: the request's, with its route and its user.

        Raises:
            ModelNotFound: no provider has it.
            InvalidRequestBody: it is a model of another type than the route wants.
        """
        wanted = MODEL_TYPES[scope["path"]]
        if known := self._known.get((model, wanted)):
            return known
        with request_provider_data_context({}, user_from_scope(scope)):
            return self._remember((model, wanted), await self._ask(model, wanted))

    async def _ask(self, model: str, wanted: ModelType) -> Found:
        try:
            # Asked about others the router logs a warning; here it is a caller's slip.
            if (
                model.partition("/")[0] in self._providers
                and len(model) <= LONGEST_NAME
            ):
                return await self._router._get_model_provider(model, wanted)  # type: ignore[no-any-return]  # noqa: SLF001 (see above)
        except ModelNotFoundError:
            pass
        except ModelTypeError:
            message = f"This model is not of the type {wanted.value}"
            raise InvalidRequestBody(message, "model") from None
        raise await self._not_found(model)

    def _remember(self, key: Key, found: Found) -> Found:
        """Keep the router's word, where it does not depend on who asks."""
        if self._same_for_all and len(self._known) < REMEMBERED:
            self._known[key] = found
        return found

    async def _not_found(self, model: str) -> ModelNotFound:
        models = await self._table.get_all_with_type("model")
        names = ", ".join(sorted(each.identifier for each in models)) or "none"
        named = f"'{model}'" if len(model) <= LONGEST_NAME else "That name"
        message = (
            f"{named} is no model of a provider here. Registered: {names}. "
            "Another is called as <provider>/<the vendor's name for it>"
        )
        return ModelNotFound(message, "model")
