"""What the OpenAI SDK for Python does beyond the capabilities of tests/clients."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from tests.clients.drivers import content
from tests.clients.drivers.openai_messages import WEATHER_TOOL, user
from tests.server import Server
from tests.upstream import Connection, Gate, Request, Upstream
from tests.upstream.gemini import thought_signature

_KEY = "key-of-the-sdk"


@pytest.fixture
def client(server: Server) -> Iterator[OpenAI]:
    """The SDK as a user makes it, but with no second try."""
    with OpenAI(base_url=f"{server.url}/v1", api_key=_KEY, max_retries=0) as client:
        yield client


def test_the_stream_helper_puts_a_text_together(
    client: OpenAI, upstream: Upstream
) -> None:
    """Its events and its final completion are those of a vendor's own stream."""
    completions = client.chat.completions
    with completions.stream(model=content.OPENAI, messages=[user()]) as stream:
        pieces = [event.delta for event in stream if event.type == "content.delta"]
        final = stream.get_final_completion().choices[0].message.content
    assert len(upstream.openai.calls) == 1
    expected = ["", "gpt-4o ", "heard: ", "Say ", "hello."]
    assert expected == pieces
    assert content.heard(content.OPENAI) == final


def test_the_stream_helper_puts_a_tool_call_together(
    client: OpenAI, upstream: Upstream
) -> None:
    """From its parts, which the upstream sends one by one."""
    with client.chat.completions.stream(
        model=content.OPENAI, messages=[user()], tools=[WEATHER_TOOL]
    ) as stream:
        calls = stream.get_final_completion().choices[0].message.tool_calls or []
    assert len(upstream.openai.calls) == 1
    assert [call.id for call in calls] == ["call_weather"]
    assert [call.function.arguments for call in calls] == ['{"city": "Paris"}']


def test_a_streamed_tool_call_of_gemini_carries_its_signature(
    client: OpenAI, upstream: Upstream
) -> None:
    """The SDK keeps fields it does not know, and the server leaves them in."""
    chunks = client.chat.completions.create(
        model=content.GEMINI, messages=[user()], tools=[WEATHER_TOOL], stream=True
    )
    calls = [
        call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []
    ]
    assert len(upstream.gemini.calls) == 1
    signature = {"google": {"thought_signature": thought_signature("weather")}}
    assert [{"extra_content": signature}] == [call.model_extra for call in calls]


@pytest.mark.usefixtures("upstream")
def test_the_stream_helper_stumbles_over_a_tool_call_without_index(
    client: OpenAI,
) -> None:
    """Gemini's peculiarity and the SDK's limit: the README tells the way around."""
    stream = client.chat.completions.stream(
        model=content.GEMINI, messages=[user()], tools=[WEATHER_TOOL]
    )
    with stream as events, pytest.raises(TypeError):
        events.until_done()


def test_usage_comes_with_the_last_chunk(client: OpenAI, upstream: Upstream) -> None:
    """`include_usage` adds a chunk without choices, as OpenAI's own does."""
    *_, last = client.chat.completions.create(
        model=content.OPENAI,
        messages=[user()],
        stream=True,
        stream_options={"include_usage": True},
    )
    assert len(upstream.openai.calls) == 1
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.to_dict() == {
        "prompt_tokens": 2,
        "completion_tokens": 4,
        "total_tokens": 6,
    }


def test_extra_body_reaches_the_upstream_as_the_sdk_sends_it(
    client: OpenAI, upstream: Upstream
) -> None:
    """Gemini wants a literal `extra_body`, which the SDK sends when it is doubled."""
    google: dict[str, Any] = {"google": {"thinking_config": {"thinking_budget": 0}}}
    client.chat.completions.create(
        model=content.GEMINI, messages=[user()], extra_body={"extra_body": google}
    )
    assert google == upstream.gemini.calls[0].json["extra_body"]


def test_headers_of_the_answer_are_the_upstreams(
    client: OpenAI, upstream: Upstream
) -> None:
    """The SDK shows them beside the answer."""
    raw = client.chat.completions.with_raw_response
    answer = raw.create(model=content.OPENAI, messages=[user()])
    assert len(upstream.openai.calls) == 1
    assert answer.headers["x-ratelimit-remaining-requests"] == "9999"
    assert content.heard(content.OPENAI) == answer.parse().choices[0].message.content


def test_embeddings_come_in_the_form_that_the_sdk_asks_for(
    client: OpenAI, upstream: Upstream
) -> None:
    """It asks for base64 and unpacks it."""
    answer = client.embeddings.create(
        model="openai/text-embedding-3-small", input=["a", "b"], dimensions=4
    )
    assert upstream.openai.calls[0].json["encoding_format"] == "base64"
    expected = [[0.0, 0.125, 0.25, 0.375], [0.125, 0.25, 0.375, 0.5]]
    assert expected == [each.embedding for each in answer.data]


def test_completions_of_the_old_kind_work(client: OpenAI, upstream: Upstream) -> None:
    """Regular and streamed, with a model that is not registered."""
    model = "openai/gpt-3.5-turbo-instruct"
    regular = client.completions.create(model=model, prompt="Hello.")
    chunks = client.completions.create(model=model, prompt="Hello.", stream=True)
    expected = "gpt-3.5-turbo-instruct heard: Hello."
    assert expected == regular.choices[0].text
    assert expected == "".join(chunk.choices[0].text for chunk in chunks)
    assert len(upstream.openai.calls) == 2


def test_the_responses_api_is_closed(client: OpenAI, upstream: Upstream) -> None:
    """Llama Stack would build it on storage; the SDK gets a refusal at once."""
    with pytest.raises(openai.PermissionDeniedError):
        client.responses.create(model=content.OPENAI, input=content.PROMPT)
    assert upstream.openai.calls == []


def test_leaving_a_stream_ends_the_upstreams(
    client: OpenAI, upstream: Upstream
) -> None:
    """Closing the SDK's stream closes the connection that it came from."""
    never = Gate()

    async def answer(_request: Request, connection: Connection) -> None:
        await connection.head(200, {"content-type": "text/event-stream"})
        chunk = {"id": "1", "choices": [], "object": "chat.completion.chunk"}
        await connection.chunk(b"data: " + json.dumps(chunk).encode() + b"\n\n")
        await never.wait()

    upstream.openai.answer_with(answer)
    stream = client.chat.completions.create(
        model=content.OPENAI, messages=[user()], stream=True
    )
    next(iter(stream))
    stream.close()
    call = upstream.openai.calls[0]
    upstream.openai.wait_until(lambda: call.peer_closed_at is not None)


def test_callers_at_the_same_time_keep_their_own_keys(
    server: Server, upstream: Upstream
) -> None:
    """Fifty async calls through one SDK, each with its key and its prompt."""

    async def ask(sdk: AsyncOpenAI, number: int) -> str | None:
        one = sdk.with_options(api_key=f"key-{number}")
        messages = [user(f"number {number}")]
        answer = await one.chat.completions.create(
            model=content.OPENAI, messages=messages
        )
        return answer.choices[0].message.content

    async def ask_all() -> list[str | None]:
        url = f"{server.url}/v1"
        async with AsyncOpenAI(base_url=url, api_key=_KEY, max_retries=0) as sdk:
            return await asyncio.gather(*(ask(sdk, number) for number in range(50)))

    answers = asyncio.run(ask_all())
    assert [f"gpt-4o heard: number {number}" for number in range(50)] == answers
    expected = {f"key-{number}": f"number {number}" for number in range(50)}
    calls = upstream.openai.calls
    actual = {str(call.key): call.json["messages"][0]["content"] for call in calls}
    assert expected == actual
