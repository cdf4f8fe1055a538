"""What every client asks, and what has to come of it.

The answers are those of the mock upstream (tests.upstream). This module and its
neighbour driver.py run beside a foreign client: they need the standard library alone.
"""

import json
from typing import NamedTuple

OPENAI = "openai/gpt-4o"
GEMINI = "gemini/gemini-2.5-flash-lite"
ANTHROPIC = "anthropic/claude-haiku-4-5-20251001"
ONE_OF_EACH = (OPENAI, GEMINI, ANTHROPIC)
LISTED = (
    OPENAI,
    "openai-mini/gpt-4o-mini",
    "openai-mini/gpt-4.1-nano",
    GEMINI,
    ANTHROPIC,
)
# Streams half of its events, then the upstream's connection is reset.
BREAKING = "openai/breaks-off"

PROMPT = "Say hello."
# The upstream is busy when it hears this for the first time (tests.clients.busy).
BUSY_PROMPT = "Say hello when you can."

# One red pixel.
PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR42mP4z8AAAAMBAQD3A0FDAAAA"
    "AElFTkSuQmCC"
)
IMAGE = f"data:image/png;base64,{PNG}"

USER_MESSAGE = {"role": "user", "content": PROMPT}
IMAGE_MESSAGE = {
    "role": "user",
    "content": [
        {"type": "text", "text": PROMPT},
        {"type": "image_url", "image_url": {"url": IMAGE}},
    ],
}

HEADER = "X-LlamaStack-Provider-Data"
# What a client that insists on a key gets when the real one is in the header.
NO_KEY = "unused"

TOOL_RESULT = "It is sunny."
# What Gemini says to a second turn without the signature, and what that means.
SIGNATURE_MISSING = "thought_signature is missing"
NO_SIGNATURE = (
    "drops `extra_content` of a tool call, so that Gemini refuses the second turn; the "
    "first works"
)
WEATHER_TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}

# The schema of a city, and what the upstream makes up for it.
CITY_SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "people": {"type": "integer"}},
    "required": ["name", "people"],
    "additionalProperties": False,
}
CITY_FORMAT = {
    "type": "json_schema",
    "json_schema": {"name": "city", "schema": CITY_SCHEMA, "strict": True},
}
CITY = {"name": "Paris", "people": 7}


class Refusal(NamedTuple):
    """A call that fails, and how it has to fail.

    Attributes:
        model: The model to call.
        error: The name of the exception in the OpenAI SDKs.
        status: The HTTP status.
        code: The error's `code`.
        key: The key to send, or None for a good one.
    """

    model: str
    error: str
    status: int
    code: str
    key: str | None = None


RATE_LIMITED = Refusal(
    "openai/rate-limited", "RateLimitError", 429, "rate_limit_exceeded"
)
REFUSALS = (
    Refusal(OPENAI, "AuthenticationError", 401, "invalid_api_key", "wrong-key"),
    Refusal(GEMINI, "BadRequestError", 400, "API_KEY_INVALID", "wrong-key"),
    Refusal(ANTHROPIC, "AuthenticationError", 401, "authentication_error", "wrong-key"),
    Refusal("openai/unheard-of", "NotFoundError", 404, "model_not_found"),
    Refusal("nobody/gpt-4o", "NotFoundError", 404, "model_not_found"),
    RATE_LIMITED,
    Refusal("anthropic/overloaded", "InternalServerError", 529, "overloaded_error"),
    Refusal(BREAKING, "InternalServerError", 502, "upstream_unreachable"),
)
# What ends a stream that the upstream breaks off.
BROKEN_STREAM_CODE = "upstream_disconnected"


def as_json() -> str:
    """The constants of this module, for a driver in another language."""
    values = {name: value for name, value in globals().items() if name.isupper()}
    named = {
        "RATE_LIMITED": RATE_LIMITED._asdict(),
        "REFUSALS": [refusal._asdict() for refusal in REFUSALS],
    }
    return json.dumps(values | named)


def heard(model: str, prompt: str = PROMPT) -> str:
    """What a model answers to a prompt."""
    return f"{model.partition('/')[2]} heard: {prompt}"


def read(model: str) -> str:
    """What a model answers to the tool's result."""
    return f"{model.partition('/')[2]} read: {TOOL_RESULT}"


def saw(model: str) -> str:
    """What a model answers to `PROMPT` with an image."""
    return f"{heard(model)} (1 images)"
