"""Finds the provider of a model, by Llama Stack's own router.

The router has no public method for it: its public methods make the call themselves.
"""

from collections.abc import Iterable
from contextlib import AbstractContextManager
from fnmatch import fnmatchcase
from typing import NamedTuple

from starlette.types import Scope

from lls_openai.errors import RelayError
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

# A longer name is neither looked up nor repeated in a message.
MAX_NAME_LENGTH = 256

# The name of every unlisted model in log and metrics.
OTHER = "other"


class ResolvedModel(NamedTuple):
    """A model, and the adapter of the provider that serves it."""

    provider: Inference
    provider_id: str
    # The upstream's name of it, and that in `GET /v1/models`, or `OTHER`.
    name: str
    listed_name: str


class ModelLookup:
    """Resolves the names of models."""

    def __init__(self, stack: Stack) -> None:
        auth = stack.run_config.server.auth
        self.has_authentication: bool = bool(auth and auth.provider_config)
        self._is_cacheable = not (auth and (auth.provider_config or auth.access_policy))
        self._cache: dict[tuple[str, ModelType], ResolvedModel] = {}
        router: Untyped = stack.impls[Api.inference]
        self._resolve_provider = router._get_model_provider  # noqa: SLF001 (docs/design.md)
        self._table: Untyped = router.routing_table
        self.providers: dict[str, Inference] = self._table.impls_by_provider_id
        self._patterns = {
            name: getattr(getattr(provider, "config", None), "model_patterns", [])
            for name, provider in self.providers.items()
        }

    async def resolve(
        self, name: str, model_type: ModelType, scope: Scope
    ) -> ResolvedModel:
        """Find a model by the name that the client sent, or raise RelayError.

        Access control is the router's: a user finds only models that it may read.
        """
        if found := self._cache.get((name, model_type)):
            return found
        with _as_user_of(scope):
            found = await self._resolve(name, model_type)
        # A look-up takes 40 us. Only listed models are cached, since clients can send
        # any number of other names.
        if self._is_cacheable and found.listed_name != OTHER:
            self._cache[name, model_type] = found
        return found

    async def listed_name(self, name: str, scope: Scope) -> str:
        """Return the listed name for a full or bare one, or raise RelayError."""
        with _as_user_of(scope):
            full_name, listed = await self._full_name(name)
        if full_name not in listed:
            raise _unknown_model(name, listed)
        return full_name

    async def _resolve(self, name: str, model_type: ModelType) -> ResolvedModel:
        full_name, listed = await self._full_name(name)
        provider_id = full_name.partition("/")[0]
        # The router would log a warning for an unknown provider.
        if provider_id not in self.providers or len(full_name) > MAX_NAME_LENGTH:
            raise _unknown_model(name, listed)
        try:
            provider, model = await self._resolve_provider(full_name, model_type)
        except api.ModelNotFoundError:
            raise _unknown_model(name, listed) from None
        except errors.ModelTypeError:
            message = (
                "This model does not support this endpoint "
                f"(expected type: {model_type.value})"
            )
            raise RelayError("invalid_request_body", message, "model") from None
        listed_name = full_name if full_name in listed else OTHER
        return ResolvedModel(provider, provider_id, model, listed_name)

    async def _full_name(self, name: str) -> tuple[str, set[str]]:
        """Return the name with its provider, and the names that are listed."""
        models: list[Model] = await self._table.get_all_with_type("model")
        return self._complete_name(name, models), {m.identifier for m in models}

    def _complete_name(self, name: str, models: Iterable[Model]) -> str:
        """Add the provider to a bare name: that of a listed model, else by pattern."""
        if len(name) > MAX_NAME_LENGTH or any(m.identifier == name for m in models):
            return name
        found = [m.identifier for m in models if m.provider_resource_id == name]
        if not found and name.partition("/")[0] not in self.providers:
            found = [
                f"{provider}/{name}"
                for provider, patterns in self._patterns.items()
                if any(fnmatchcase(name, pattern) for pattern in patterns)
            ]
        if len(found) > 1:
            message = f"Ambiguous model name; use one of: {', '.join(sorted(found))}"
            raise RelayError("model_not_found", message, "model")
        return found[0] if found else name


def _as_user_of(scope: Scope) -> AbstractContextManager[None]:
    """Return a context in which the router applies the rules for this client."""
    user = request_headers.user_from_scope(scope)
    context: AbstractContextManager[None]
    context = request_headers.request_provider_data_context({}, user)
    return context


def _unknown_model(name: str, listed: Iterable[str]) -> RelayError:
    shown = f"'{name}'" if len(name) <= MAX_NAME_LENGTH else "name"
    message = (
        f"Unknown model {shown}. "
        f"Registered models: {', '.join(sorted(listed)) or 'none'}. "
        "Call any other model as <provider>/<vendor model name>"
    )
    return RelayError("model_not_found", message, "model")
