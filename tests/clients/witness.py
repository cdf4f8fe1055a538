"""What the upstream must have seen when a client says that it could do a thing."""

from collections.abc import Callable
from typing import Any

from tests.clients.busy import is_busy_prompt
from tests.clients.drivers import content
from tests.upstream import Upstream, Vendor
from tests.upstream.gemini import thought_signature

# What a client may be early by: it counts its second from its own clock's ticks.
_TICK = 0.05

BEARER_KEY = "key-as-bearer"
HEADER_KEY = "key-in-header"

type Json = dict[str, Any]


def has_seen(upstream: Upstream, capability: str) -> bool:
    """Whether the upstream's recordings bear out what a client says.

    Args:
        upstream: The upstream, reset before the client ran.
        capability: One of the columns of the table.
    """
    witness = _WITNESSES.get(capability)
    return witness is None or witness(upstream)


def _chats(vendor: Vendor) -> list[Json]:
    """The bodies of the chat requests that a vendor got."""
    return [
        call.json for call in vendor.calls if call.path.endswith("/chat/completions")
    ]


def _asked_all(upstream: Upstream, *, stream: bool) -> bool:
    def asked(vendor: Vendor) -> bool:
        return any(
            bool(body.get("stream")) == stream and "tools" not in body
            for body in _chats(vendor)
        )

    return all(asked(vendor) for vendor in upstream.vendors)


def _second_turns(vendor: Vendor) -> list[Json]:
    """The calls of a tool that came back to a vendor with the tool's result."""
    turns = [body["messages"] for body in _chats(vendor)]
    return [
        message["tool_calls"][0]
        for messages in turns
        if messages[-1].get("content") == content.TOOL_RESULT
        for message in messages
        if message.get("tool_calls")
    ]


def _tools(upstream: Upstream) -> bool:
    ids = [
        {call["id"] for call in _second_turns(vendor)}
        for vendor in (upstream.openai, upstream.anthropic)
    ]
    return ids == [{"call_weather"}, {"call_weather"}]


def _signature(upstream: Upstream) -> bool:
    google = {"google": {"thought_signature": thought_signature("weather")}}
    calls = _second_turns(upstream.gemini)
    return any(call.get("extra_content") == google for call in calls)


def _schema(upstream: Upstream) -> bool:
    forms = [body.get("response_format") or {} for body in _chats(upstream.openai)]
    return any(form.get("type") == "json_schema" for form in forms)


def _image(upstream: Upstream) -> bool:
    parts = [
        part
        for body in _chats(upstream.openai)
        for message in body["messages"]
        if isinstance(message.get("content"), list)
        for part in message["content"]
    ]
    images = [part["image_url"]["url"] for part in parts if "image_url" in part]
    return content.IMAGE in images


def _retry(upstream: Upstream) -> bool:
    """Asked twice, the second time not before the second of `Retry-After`."""
    calls = [call for call in upstream.openai.calls if is_busy_prompt(call)]
    times = [call.answered_at or 0.0 for call in calls]
    return len(times) == 2 and times[1] - times[0] > 1 - _TICK


def _key(key: str) -> Callable[[Upstream], bool]:
    def witness(upstream: Upstream) -> bool:
        keys = {call.key for vendor in upstream.vendors for call in vendor.calls}
        return key in keys and content.NO_KEY not in keys

    return witness


_WITNESSES: dict[str, Callable[[Upstream], bool]] = {
    "regular": lambda upstream: _asked_all(upstream, stream=False),
    "stream": lambda upstream: _asked_all(upstream, stream=True),
    "tools": _tools,
    "signature": _signature,
    "schema": _schema,
    "image": _image,
    "retry": _retry,
    "bearer": _key(BEARER_KEY),
    "header": _key(HEADER_KEY),
}
