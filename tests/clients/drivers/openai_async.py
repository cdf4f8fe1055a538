"""Drives the OpenAI SDK for Python, its asynchronous client."""

from typing import override

from openai import APIError, APIStatusError, AsyncOpenAI
from openai.types.chat import ChatCompletion

from tests.clients.drivers import content, driver
from tests.clients.drivers.content import Refusal
from tests.clients.drivers.driver import Driver, expect
from tests.clients.drivers.openai_messages import (
    IMAGE_MESSAGE,
    WEATHER_TOOL,
    City,
    expect_broken,
    expect_refusal,
    turn_of,
    user,
)


class OpenAIAsync(Driver):
    """The client as a user makes it: address and key from the environment."""

    def __init__(self) -> None:
        """Make the client."""
        self._client = AsyncOpenAI()
        self._once = self._client.with_options(max_retries=0)

    async def _ask(self, model: str, prompt: str = content.PROMPT) -> ChatCompletion:
        completions = self._client.chat.completions
        return await completions.create(model=model, messages=[user(prompt)])

    async def _pieces(self, model: str) -> list[str]:
        chunks = await self._once.chat.completions.create(
            model=model, messages=[user()], stream=True
        )
        return [chunk.choices[0].delta.content or "" async for chunk in chunks]

    async def _refused(self, refusal: Refusal) -> APIStatusError:
        client = self._once.with_options(api_key=refusal.key or self._once.api_key)
        try:
            await client.chat.completions.create(model=refusal.model, messages=[user()])
        except APIStatusError as error:
            return error
        raise AssertionError(f"{refusal} was answered")

    @override
    async def models(self) -> None:
        models = [model.id async for model in self._client.models.list()]
        expect(content.LISTED, tuple(models))

    @override
    async def regular(self) -> None:
        for model in content.ONE_OF_EACH:
            answer = await self._ask(model)
            expect(content.heard(model), answer.choices[0].message.content)

    @override
    async def stream(self) -> None:
        for model in content.ONE_OF_EACH:
            driver.expect_pieces(content.heard(model), await self._pieces(model))

    @override
    async def tools(self) -> None:
        await self._two_turns(content.OPENAI)
        await self._two_turns(content.ANTHROPIC)

    @override
    async def signature(self) -> None:
        await self._two_turns(content.GEMINI)

    async def _two_turns(self, model: str) -> None:
        completions = self._client.chat.completions
        messages = [user()]
        answer = await completions.create(
            model=model, messages=messages, tools=[WEATHER_TOOL]
        )
        messages += turn_of(answer.choices[0].message)
        answer = await completions.create(
            model=model, messages=messages, tools=[WEATHER_TOOL]
        )
        expect(content.read(model), answer.choices[0].message.content)

    @override
    async def schema(self) -> None:
        answer = await self._client.chat.completions.parse(
            model=content.OPENAI, messages=[user()], response_format=City
        )
        expect(City.model_validate(content.CITY), answer.choices[0].message.parsed)

    @override
    async def image(self) -> None:
        answer = await self._client.chat.completions.create(
            model=content.OPENAI, messages=[IMAGE_MESSAGE]
        )
        expect(content.saw(content.OPENAI), answer.choices[0].message.content)

    @override
    async def errors(self) -> None:
        for refusal in content.REFUSALS:
            expect_refusal(refusal, await self._refused(refusal))
        try:
            await self._pieces(content.BREAKING)
        except APIError as error:
            expect_broken(error)
        else:
            raise AssertionError("a broken stream ended as if it were whole")

    @override
    async def retry(self) -> None:
        headers = (await self._refused(content.RATE_LIMITED)).response.headers
        expect("1", headers.get("retry-after"))
        answer = await self._ask(content.OPENAI, content.BUSY_PROMPT)
        expected = content.heard(content.OPENAI, content.BUSY_PROMPT)
        expect(expected, answer.choices[0].message.content)

    @override
    async def id(self) -> None:
        # The underscore is the SDK's: it documents the attribute as public.
        driver.expect_id((await self._ask(content.OPENAI))._request_id)  # noqa: SLF001
        driver.expect_id((await self._refused(content.RATE_LIMITED)).request_id)

    @override
    async def bearer(self) -> None:
        await self._ask(content.OPENAI)

    @override
    async def header(self) -> None:
        headers = {content.HEADER: driver.header_value()}
        client = AsyncOpenAI(api_key=content.NO_KEY, default_headers=headers)
        await client.chat.completions.create(model=content.OPENAI, messages=[user()])


if __name__ == "__main__":
    driver.run(OpenAIAsync())
