"""Drives pydantic-ai's agents, over its Chat Completions model."""

from typing import Any, override

from openai import AsyncOpenAI
from pydantic import BaseModel
from pydantic_ai import Agent, BinaryContent, NativeOutput
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from tests.clients.drivers import content, driver
from tests.clients.drivers.content import Refusal
from tests.clients.drivers.driver import Cannot, Driver, expect


class City(BaseModel):
    """What the structured output has to be."""

    name: str
    people: int


def weather(city: str) -> str:
    """Tell the weather in a city."""
    return content.TOOL_RESULT if city else ""


class PydanticAI(Driver):
    """An agent as a user makes it: address and key from the environment."""

    @override
    def models(self) -> None:
        raise Cannot("lists no models; the OpenAI SDK below it does, provider.client")

    @override
    async def regular(self) -> None:
        for model in content.ONE_OF_EACH:
            answer = await Agent(OpenAIChatModel(model)).run(content.PROMPT)
            expect(content.heard(model), answer.output)

    @override
    async def stream(self) -> None:
        for model in content.ONE_OF_EACH:
            driver.expect_pieces(content.heard(model), await self._pieces(model))

    async def _pieces(self, model: str) -> list[str]:
        async with Agent(OpenAIChatModel(model)).run_stream(content.PROMPT) as answer:
            texts = answer.stream_text(delta=True, debounce_by=None)
            return [text async for text in texts]

    @override
    async def tools(self) -> None:
        await self._two_turns(content.OPENAI)
        await self._two_turns(content.ANTHROPIC)

    @override
    async def signature(self) -> None:
        await self._two_turns(content.GEMINI)

    async def _two_turns(self, model: str) -> None:
        agent = Agent(OpenAIChatModel(model), tools=[weather])
        expect(content.read(model), (await agent.run(content.PROMPT)).output)

    @override
    async def schema(self) -> None:
        model = OpenAIChatModel(content.OPENAI)
        agent = Agent(model, output_type=NativeOutput(City))
        answer = await agent.run(content.PROMPT)
        expect(City.model_validate(content.CITY), answer.output)

    @override
    async def image(self) -> None:
        image = BinaryContent.from_data_uri(content.IMAGE)
        agent = Agent(OpenAIChatModel(content.OPENAI))
        answer = await agent.run([content.PROMPT, image])
        expect(content.saw(content.OPENAI), answer.output)

    @override
    async def errors(self) -> None:
        for refusal in content.REFUSALS:
            # The exceptions are its own; the body is OpenAI's error object.
            error = await self._refused(refusal)
            expect(refusal.status, error.status_code)
            expect(refusal.code, error.body["code"])
        try:
            await self._pieces(content.BREAKING)
        except ModelHTTPError as error:
            expect(content.BROKEN_STREAM_CODE, error.body["code"])
        else:
            raise AssertionError("a broken stream ended as if it were whole")

    async def _refused(self, refusal: Refusal) -> ModelHTTPError:
        key: dict[str, Any] = {"api_key": refusal.key} if refusal.key else {}
        provider = OpenAIProvider(openai_client=AsyncOpenAI(max_retries=0, **key))
        try:
            await Agent(OpenAIChatModel(refusal.model, provider=provider)).run("Hello.")
        except ModelHTTPError as error:
            return error
        raise AssertionError(f"{refusal} was answered")

    @override
    async def retry(self) -> None:
        refused = await self._refused(content.RATE_LIMITED)
        expect("1", refused.headers.get("retry-after"))
        answer = await Agent(OpenAIChatModel(content.OPENAI)).run(content.BUSY_PROMPT)
        expect(content.heard(content.OPENAI, content.BUSY_PROMPT), answer.output)

    @override
    async def id(self) -> None:
        headers = (await self._refused(content.RATE_LIMITED)).headers
        driver.expect_id(headers.get("x-request-id"))
        raise Cannot("gives the headers of an error, of an answer none")

    @override
    async def bearer(self) -> None:
        await Agent(OpenAIChatModel(content.OPENAI)).run(content.PROMPT)

    @override
    async def header(self) -> None:
        headers = {content.HEADER: driver.header_value()}
        sdk = AsyncOpenAI(api_key=content.NO_KEY, default_headers=headers)
        model = OpenAIChatModel(
            content.OPENAI, provider=OpenAIProvider(openai_client=sdk)
        )
        await Agent(model).run(content.PROMPT)


if __name__ == "__main__":
    driver.run(PydanticAI())
