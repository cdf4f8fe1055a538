"""Requests in the types of the OpenAI SDK for Python, for both of its clients."""

from typing import cast

from openai import APIError, APIStatusError
from openai.types.chat import (
    ChatCompletionFunctionToolParam,
    ChatCompletionMessage,
    ChatCompletionMessageParam,
)
from pydantic import BaseModel

from tests.clients.drivers import content
from tests.clients.drivers.content import Refusal
from tests.clients.drivers.driver import expect

IMAGE_MESSAGE = cast("ChatCompletionMessageParam", content.IMAGE_MESSAGE)
WEATHER_TOOL = cast("ChatCompletionFunctionToolParam", content.WEATHER_TOOL)


class City(BaseModel):
    """What the structured output has to be."""

    name: str
    people: int


def user(prompt: str = content.PROMPT) -> ChatCompletionMessageParam:
    """A prompt."""
    return {"role": "user", "content": prompt}


def turn_of(message: ChatCompletionMessage) -> list[ChatCompletionMessageParam]:
    """The model's call, as the SDK read it, and the tool's result."""
    call = (message.tool_calls or [])[0]
    result = content.TOOL_RESULT
    return [
        # The SDK takes a message as it came, which its types do not say.
        cast("ChatCompletionMessageParam", message),
        {"role": "tool", "tool_call_id": call.id, "content": result},
    ]


def expect_refusal(refusal: Refusal, error: APIStatusError) -> None:
    """Compare an exception with the refusal it has to be.

    Raises:
        AssertionError: Class, status or code differ.
    """
    expected = (refusal.error, refusal.status, refusal.code)
    expect(expected, (type(error).__name__, error.status_code, error.code))


def expect_broken(error: APIError) -> None:
    """Compare what ended a broken stream.

    Raises:
        AssertionError: It is another error.
    """
    expect(content.BROKEN_STREAM_CODE, error.code)
