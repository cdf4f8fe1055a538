"""Drives the OpenAI SDK for Python, its synchronous client."""

from typing import override

from openai import APIError, APIStatusError, OpenAI
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


class OpenAISync(Driver):
    """The client as a user makes it: address and key from the environment."""

    def __init__(self) -> None:
        """Make the client."""
        self._client = OpenAI()
        self._once = self._client.with_options(max_retries=0)

    def _ask(self, model: str, prompt: str = content.PROMPT) -> ChatCompletion:
        completions = self._client.chat.completions
        return completions.create(model=model, messages=[user(prompt)])

    def _pieces(self, model: str) -> list[str]:
        chunks = self._once.chat.completions.create(
            model=model, messages=[user()], stream=True
        )
        return [chunk.choices[0].delta.content or "" for chunk in chunks]

    def _refused(self, refusal: Refusal) -> APIStatusError:
        client = self._once.with_options(api_key=refusal.key or self._once.api_key)
        try:
            client.chat.completions.create(model=refusal.model, messages=[user()])
        except APIStatusError as error:
            return error
        raise AssertionError(f"{refusal} was answered")

    @override
    def models(self) -> None:
        expect(content.LISTED, tuple(model.id for model in self._client.models.list()))

    @override
    def regular(self) -> None:
        for model in content.ONE_OF_EACH:
            answer = self._ask(model)
            expect(content.heard(model), answer.choices[0].message.content)

    @override
    def stream(self) -> None:
        for model in content.ONE_OF_EACH:
            driver.expect_pieces(content.heard(model), self._pieces(model))

    @override
    def tools(self) -> None:
        self._two_turns(content.OPENAI)
        self._two_turns(content.ANTHROPIC)

    @override
    def signature(self) -> None:
        self._two_turns(content.GEMINI)

    def _two_turns(self, model: str) -> None:
        completions = self._client.chat.completions
        messages = [user()]
        answer = completions.create(
            model=model, messages=messages, tools=[WEATHER_TOOL]
        )
        messages += turn_of(answer.choices[0].message)
        answer = completions.create(
            model=model, messages=messages, tools=[WEATHER_TOOL]
        )
        expect(content.read(model), answer.choices[0].message.content)

    @override
    def schema(self) -> None:
        answer = self._client.chat.completions.parse(
            model=content.OPENAI, messages=[user()], response_format=City
        )
        expect(City.model_validate(content.CITY), answer.choices[0].message.parsed)

    @override
    def image(self) -> None:
        answer = self._client.chat.completions.create(
            model=content.OPENAI, messages=[IMAGE_MESSAGE]
        )
        expect(content.saw(content.OPENAI), answer.choices[0].message.content)

    @override
    def errors(self) -> None:
        for refusal in content.REFUSALS:
            expect_refusal(refusal, self._refused(refusal))
        try:
            self._pieces(content.BREAKING)
        except APIError as error:
            expect_broken(error)
        else:
            raise AssertionError("a broken stream ended as if it were whole")

    @override
    def retry(self) -> None:
        headers = self._refused(content.RATE_LIMITED).response.headers
        expect("1", headers.get("retry-after"))
        answer = self._ask(content.OPENAI, content.BUSY_PROMPT)
        expected = content.heard(content.OPENAI, content.BUSY_PROMPT)
        expect(expected, answer.choices[0].message.content)

    @override
    def id(self) -> None:
        # The underscore is the SDK's: it documents the attribute as public.
        driver.expect_id(self._ask(content.OPENAI)._request_id)  # noqa: SLF001
        driver.expect_id(self._refused(content.RATE_LIMITED).request_id)

    @override
    def bearer(self) -> None:
        self._ask(content.OPENAI)

    @override
    def header(self) -> None:
        headers = {content.HEADER: driver.header_value()}
        client = OpenAI(api_key=content.NO_KEY, default_headers=headers)
        client.chat.completions.create(model=content.OPENAI, messages=[user()])


if __name__ == "__main__":
    driver.run(OpenAISync())
