"""What every driver has to try, and how it tells what came of it.

A driver is a program in the environment of a foreign client. It is told by variables:
`OPENAI_BASE_URL`, `OPENAI_API_KEY`, and `HEADER_API_KEY`, a key for the provider-data
header alone.
"""

import asyncio
import json
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Awaitable

# A failure is told in so many characters, which is a footnote of two lines or three.
_LONGEST_DETAIL = 240


class Cannot(Exception):  # noqa: N818 (what happened, not an error)
    """The client cannot do this; the message is the reason, and the server is not."""


class Driver(ABC):
    """What is tried with each client: one method a capability, a column of the table.

    A method returns when all is as it should be, raises `Cannot` for a limit of the
    client, and anything else for a failure.
    """

    @abstractmethod
    def models(self) -> Awaitable[None] | None:
        """List the models: `LISTED`."""

    @abstractmethod
    def regular(self) -> Awaitable[None] | None:
        """Ask one model of each vendor `PROMPT`."""

    @abstractmethod
    def stream(self) -> Awaitable[None] | None:
        """Ask them again, and get the answer in pieces."""

    @abstractmethod
    def tools(self) -> Awaitable[None] | None:
        """Let OpenAI's and Anthropic's model call a tool, and tell them its result."""

    @abstractmethod
    def signature(self) -> Awaitable[None] | None:
        """Let Gemini's model: it wants the signature that came with its call back."""

    @abstractmethod
    def schema(self) -> Awaitable[None] | None:
        """Get an answer in the form of a JSON schema."""

    @abstractmethod
    def image(self) -> Awaitable[None] | None:
        """Show `IMAGE`."""

    @abstractmethod
    def errors(self) -> Awaitable[None] | None:
        """Fail as `REFUSALS` and `BROKEN_STREAM_CODE` say."""

    @abstractmethod
    def retry(self) -> Awaitable[None] | None:
        """Ask `BUSY_PROMPT`: refused with `Retry-After: 1`, then answered."""

    @abstractmethod
    def id(self) -> Awaitable[None] | None:
        """Get the upstream's request id, from an answer and from an error."""

    @abstractmethod
    def bearer(self) -> Awaitable[None] | None:
        """Send the key as a bearer token."""

    @abstractmethod
    def header(self) -> Awaitable[None] | None:
        """Send the key in the header `HEADER`, and another one as bearer token."""


CAPABILITIES = tuple(
    name
    for name, value in vars(Driver).items()
    if getattr(value, "__isabstractmethod__", False)
)


def base_url() -> str:
    """The address of the server, "/v1" included."""
    return os.environ["OPENAI_BASE_URL"]


def header_value() -> str:
    """The value of `HEADER`."""
    return json.dumps({"passthrough_api_key": os.environ["HEADER_API_KEY"]})


def expect(expected: object, actual: object) -> None:
    """Compare.

    Raises:
        AssertionError: They differ; the message shows both.
    """
    if expected != actual:
        raise AssertionError(f"expected {expected!r}, got {actual!r}")


def expect_pieces(expected: str, pieces: list[str]) -> None:
    """Compare the pieces of a stream, of which there have to be several.

    Raises:
        AssertionError: They differ, or came as one.
    """
    expect(expected, "".join(pieces))
    if len(list(filter(None, pieces))) < 2:
        raise AssertionError(f"not in pieces: {pieces!r}")


def expect_id(request_id: str | None) -> None:
    """Compare a request id with the form that OpenAI's have.

    Raises:
        AssertionError: There is none, or of another form.
    """
    expect("req_", (request_id or "")[:4])


def run(driver: Driver) -> None:
    """Try every capability, and print a line of JSON for each."""
    with asyncio.Runner() as loop:
        for name in CAPABILITIES:
            outcome, detail = _outcome(driver, name, loop)
            cell = {"capability": name, "outcome": outcome, "detail": detail}
            print(json.dumps(cell))
            sys.stdout.flush()


def _outcome(driver: Driver, name: str, loop: asyncio.Runner) -> tuple[str, str]:
    try:
        awaitable = getattr(driver, name)()
        if awaitable is not None:
            loop.run(awaitable)
    except Cannot as reason:
        return "no", str(reason)
    except Exception as error:  # noqa: BLE001 - whatever a client raises is told
        told = f"{type(error).__name__}: {' '.join(str(error).split())}"
        return "failed", told[:_LONGEST_DETAIL]
    return "ok", ""
