"""The kinds of calls that are mixed, each with what has to come of it."""

from itertools import count, cycle, islice
from typing import Any, NamedTuple

from tests.calls import chat, provider_data

KEYS = 1000
# A part of every key, wrong ones included, that is nowhere else.
MARK = "k3y0fs0ak"

_VENDORS = {
    "openai/gpt-4o": "openai",
    "openai-mini/gpt-4.1-nano": "openai-mini",
    "gemini/gemini-2.5-flash-lite": "gemini",
    "anthropic/claude-haiku-4-5-20251001": "anthropic",
}
# Enough words that a stream is under way when its caller leaves.
_LONG = [{"role": "user", "content": "on and on " * 100}]


class Kind(NamedTuple):
    """A kind of call.

    Attributes:
        name: What it is.
        body: The request's body.
        status: The status it has to get.
        holds: What has to stand in the body of the answer.
        key: How its key begins; one with "wrong" is refused by the upstream.
        leaves: Whether its caller leaves after the first of the answer.
    """

    name: str
    body: bytes
    status: int = 200
    holds: bytes = b""
    key: str = "good"
    leaves: bool = False


class Call(NamedTuple):
    """One call.

    Attributes:
        kind: What kind it is of.
        headers: The header that carries its key.
    """

    kind: Kind
    headers: dict[str, str]


def _of(model: str, name: str) -> list[Kind]:
    """The calls to one vendor."""

    def refused(status: int, reason: str, **fields: Any) -> Kind:  # noqa: ANN401 - any JSON
        return Kind(f"{name}: {reason}", chat(**fields), status, b'"error"')

    wrong = refused(400 if name == "gemini" else 401, "wrong key", model=model)
    return [
        Kind(f"{name}: regular", chat(model), holds=b"heard: hello"),
        Kind(f"{name}: streamed", chat(model, stream=True), holds=b"data: [DONE]"),
        Kind(f"{name}: left", chat(model, messages=_LONG, stream=True), leaves=True),
        wrong._replace(key="wrong"),
        refused(429, "rate limit", model=f"{name}/rate-limited"),
        refused(404, "unknown model", model=f"{name}/no-such-model"),
        Kind(f"{name}: breaks off", chat(f"{name}/breaks-off"), 502, b'"error"'),
        Kind(f"{name}: broken JSON", chat(model)[:-1], 400, b"invalid_request_body"),
    ]


KINDS = [kind for model, name in _VENDORS.items() for kind in _of(model, name)]
KINDS.append(Kind("no provider", chat("nobody/m"), 404, b"model_not_found"))


def mixed(calls: int, start: int = 0) -> list[Call]:
    """Calls of all kinds in turns, with one of a thousand keys each.

    Args:
        calls: How many.
        start: How many there were before: keys and kinds go on from there.
    """
    numbered = zip(count(), cycle(KINDS))
    return [
        _call(number, kind) for number, kind in islice(numbered, start, start + calls)
    ]


def _call(number: int, kind: Kind) -> Call:
    key = f"sk-{kind.key}-{MARK}-{number % KEYS:04}"
    if number % 2:
        return Call(kind, provider_data(passthrough_api_key=key))
    return Call(kind, {"Authorization": f"Bearer {key}"})
