"""The settings of one provider in run.yaml: the stock ones, some of them stricter."""

from llama_stack.providers.remote.inference.passthrough.config import (
    PassthroughImplConfig,
)
from llama_stack.providers.utils.inference.model_registry import NetworkConfig
from pydantic import ConfigDict, Field, HttpUrl, ValidationError, field_validator

from lls_openai.lifecycle import give_up

MEBIBYTE = 1024 * 1024


class ProviderConfig(PassthroughImplConfig):  # type: ignore[misc]
    """The stock passthrough's settings, with the upstream pinned.

    Of the stock settings, `allowed_models`, `network`, `forward_headers` and `api_key`
    are honoured as `PassthroughImplConfig` describes them.

    Args:
        base_url: the upstream; `/v1` is appended unless its path names a version.
        max_request_bytes: the largest request body, in bytes.
    """

    # A misspelt `allowed_models` would allow every model, and nobody would notice.
    model_config = ConfigDict(extra="forbid")

    base_url: HttpUrl = Field(description="The upstream that every call goes to")
    # A proxy's URL and further headers may hold passwords.
    network: NetworkConfig | None = Field(default=None, repr=False)
    max_request_bytes: int = Field(default=64 * MEBIBYTE, gt=0)

    @field_validator("base_url")
    @classmethod
    def _no_more_than_a_place(cls, url: HttpUrl) -> HttpUrl:
        if url.username or url.password or url.query or url.fragment:
            message = "base_url is scheme, host, port and path, and nothing else"
            raise ValueError(message)
        return url


def load_config(**settings: object) -> ProviderConfig:
    """Read a provider's settings; what is wrong with them ends the process with a line.

    Args:
        settings: the `config` of the provider's entry in run.yaml.
    """
    try:
        return ProviderConfig(**settings)
    except ValidationError as error:
        give_up(f"run.yaml: a remote::passthrough provider: {explain(error)}")


def explain(error: ValidationError) -> str:
    """Say in one line what is wrong, without the values, which may be secret.

    Args:
        error: what pydantic found.
    """
    wrong = error.errors(include_input=False, include_url=False)
    return "; ".join(
        f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in wrong
    )
