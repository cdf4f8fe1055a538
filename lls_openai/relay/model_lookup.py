"""Which provider serves a model: Llama Stack's router is asked, and decides.

This is the project's one reach into the router. No public way exists: the router's
public methods make the call themselves. `tests/test_internals.py` fails when what is
used here is not there.
"""

from collections.abc import Iterable

from starlette.types import Scope

from lls_openai.errors import RelayError
from lls_openai.relay.routes import ROUTES
from lls_openai.stack import (
    Api,
    Inference,
    Model,
    ModelType,
    Stack,
    Untyped,
    api,
    errors,
    request_headers,
)

# A longer name is no model's; it is not looked up, nor repeated.
LONGEST_NAME = 256

# Stands for all models that are not listed, in log and metrics.
OTHER = "other"

type Found = tuple[Inference, str, str]


class Routing:
    """What the relay asks of the running stack, which has been initialised."""

    def __init__(self, stack: Stack) -> None:
        auth = stack.run_config.server.auth
        self.has_authentication: bool = bool(auth and auth.provider_config)
        self._same_for_all = not (auth and (auth.provider_config or auth.access_policy))
        self._known: dict[tuple[str, str], Found] = {}
        router: Untyped = stack.impls[Api.inference]
        self._provider_of = router._get_model_provider  # noqa: SLF001 (see above)
        self._table: Untyped = router.routing_table
        self.providers: dict[str, Inference] = self._table.impls_by_provider_id

    async def find(self, name: str, scope: Scope) -> Found:
        """Find the provider of a model.

        Access control is the router's: what a user may not read is not found.

        Args:
            name: the model as the caller names it.
            scope: the request's, with its path and its user.

        Returns:
            The provider, its name for the model, and the listed name or `other`.

        Raises:
            RelayError: no provider has it, several do, or its type is not the route's.
        """
        path = scope["path"]
        if known := self._known.get((name, path)):
            return known
        user = request_headers.user_from_scope(scope)
        with request_headers.request_provider_data_context({}, user):
            found = await self._ask(name, ROUTES[path].model_type)
        # Asking takes 40 us. The answer is kept where it does not depend on who asks,
        # and for listed models only, since callers make up any number of others.
        if self._same_for_all and found[2] != OTHER:
            self._known[name, path] = found
        return found

    async def _ask(self, name: str, kind: ModelType) -> Found:
        models: list[Model] = await self._table.get_all_with_type("model")
        listed = {model.identifier for model in models}
        full = name if name in listed else _full_name(name, models)
        # Skip the router's warning for unknown providers.
        if full.partition("/")[0] not in self.providers or len(full) > LONGEST_NAME:
            raise _not_found(name, listed)
        try:
            provider, model = await self._provider_of(full, kind)
        except api.ModelNotFoundError:
            raise _not_found(name, listed) from None
        except errors.ModelTypeError:
            message = f"This model is not of the type {kind.value}"
            raise RelayError("invalid_request_body", message, "model") from None
        return provider, model, full if full in listed else OTHER


def _full_name(name: str, models: Iterable[Model]) -> str:
    """Complete a bare name that is the vendor's own of exactly one listed model."""
    fitting = sorted(m.identifier for m in models if m.provider_resource_id == name)
    if len(fitting) > 1:
        message = f"Several models here have that name: {', '.join(fitting)}"
        raise RelayError("model_not_found", message, "model")
    return fitting[0] if fitting else name


def _not_found(name: str, listed: Iterable[str]) -> RelayError:
    named = f"'{name}'" if len(name) <= LONGEST_NAME else "That name"
    message = (
        f"{named} is no model of a provider here. "
        f"Registered: {', '.join(sorted(listed)) or 'none'}. "
        "Another is called as <provider>/<the vendor's name for it>"
    )
    return RelayError("model_not_found", message, "model")
