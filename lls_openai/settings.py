"""The settings of one provider in run.yaml: the stock ones, some of them stricter."""

import os
import sys
from typing import NoReturn

from pydantic import ConfigDict, Field, HttpUrl, field_validator

from lls_openai.stack import network as stock
from lls_openai.stack import passthrough_config

# uvicorn's status for a server that does not come up.
STARTUP_FAILURE = 3


class ProviderConfig(passthrough_config.PassthroughImplConfig):  # type: ignore[misc]
    """The stock passthrough's settings, with the upstream pinned.

    Of the stock settings, `allowed_models`, `network`, `forward_headers` and `api_key`
    are honoured as `PassthroughImplConfig` describes them. The last three below count
    for the whole process: the largest of the providers' values.

    A certificate authority that `network` names is checked without
    `VERIFY_X509_STRICT`, also on Python 3.13 and later: those of companies often lack a
    field that it asks for.

    Args:
        base_url: the upstream; `/v1` is appended unless its path names a version.
        append_version: false where the upstream has no version in its paths.
        max_request_bytes: the largest request body, in bytes.
        max_bytes_in_flight: how much of request bodies is held at a time, in bytes.
        caller_timeout: how long a caller may keep a connection waiting, in seconds.
        drain_timeout: how long running answers have to end at a stop, in seconds.
    """

    # What is wrong may hold a password.
    model_config = ConfigDict(hide_input_in_errors=True)

    base_url: HttpUrl = Field(description="The upstream that every call goes to")
    # The vendor's name in metrics; the provider's id by default.
    metrics_provider_name: str | None = None
    # A proxy's URL and further headers may hold passwords.
    network: stock.NetworkConfig | None = Field(default=None, repr=False)
    append_version: bool = True
    max_request_bytes: int = Field(default=64 * 2**20, gt=0)
    max_bytes_in_flight: int = Field(default=512 * 2**20, gt=0)
    caller_timeout: float = Field(default=60, gt=0)
    drain_timeout: int = Field(default=60, gt=0)

    @field_validator("base_url")
    @classmethod
    def _reject_userinfo_and_query(cls, url: HttpUrl) -> HttpUrl:
        if url.username or url.password or url.query or url.fragment:
            message = "base_url is scheme, host, port and path, and nothing else"
            raise ValueError(message)
        return url


def give_up(message: str) -> NoReturn:
    """End the process before it serves, with one line that says why.

    `llama stack run` takes SystemExit for an interrupt and ends with status 0
    (`llama_stack.cli.stack.run`); nothing runs after this that could.
    """
    sys.stdout.flush()
    print(f"lls-openai: {message}", file=sys.stderr, flush=True)  # noqa: T201 (for a person)
    os._exit(STARTUP_FAILURE)
