"""Drives `llama-stack-client`, Llama Stack's own client."""

import json
import logging
import os
from typing import Any, override

from llama_stack_client import APIError, APIStatusError, LlamaStackClient
from llama_stack_client.types.chat import CompletionCreateResponse

from tests.clients.drivers import content, driver
from tests.clients.drivers.content import Refusal
from tests.clients.drivers.driver import Driver, expect


class LlamaStack(Driver):
    """The client with a key as bearer token; its address has no "/v1"."""

    def __init__(self) -> None:
        """Make the client."""
        self._address = driver.base_url().removesuffix("/v1")
        self._key = os.environ["OPENAI_API_KEY"]
        self._client = LlamaStackClient(base_url=self._address, api_key=self._key)
        self._once = self._client.with_options(max_retries=0)

    def _ask(self, model: str, messages: list[Any]) -> CompletionCreateResponse:
        completions = self._client.chat.completions
        return completions.create(model=model, messages=messages)

    def _pieces(self, model: str) -> list[str]:
        messages: list[Any] = [content.USER_MESSAGE]
        chunks = self._once.chat.completions.create(
            model=model, messages=messages, stream=True
        )
        return [chunk.choices[0].delta.content or "" for chunk in chunks]

    def _refused(self, refusal: Refusal) -> APIStatusError:
        client = self._once.with_options(api_key=refusal.key or self._key)
        messages: list[Any] = [content.USER_MESSAGE]
        try:
            client.chat.completions.create(model=refusal.model, messages=messages)
        except APIStatusError as error:
            return error
        raise AssertionError(f"{refusal} was answered")

    @override
    def models(self) -> None:
        expect(content.LISTED, tuple(model.id for model in self._client.models.list()))

    @override
    def regular(self) -> None:
        for model in content.ONE_OF_EACH:
            answer = self._ask(model, [content.USER_MESSAGE])
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
        create = self._client.chat.completions.create
        messages: list[Any] = [content.USER_MESSAGE]
        tools: list[Any] = [content.WEATHER_TOOL]
        message = create(model=model, messages=messages, tools=tools).choices[0].message
        call = (message.tool_calls or [])[0]
        result = {
            "role": "tool",
            "tool_call_id": call.id,
            "content": content.TOOL_RESULT,
        }
        messages += [message.to_dict(), result]
        answer = create(model=model, messages=messages, tools=tools)
        expect(content.read(model), answer.choices[0].message.content)

    @override
    def schema(self) -> None:
        form: Any = content.CITY_FORMAT
        messages: list[Any] = [content.USER_MESSAGE]
        answer = self._client.chat.completions.create(
            model=content.OPENAI, messages=messages, response_format=form
        )
        expect(content.CITY, json.loads(answer.choices[0].message.content or ""))

    @override
    def image(self) -> None:
        answer = self._ask(content.OPENAI, [content.IMAGE_MESSAGE])
        expect(content.saw(content.OPENAI), answer.choices[0].message.content)

    @override
    def errors(self) -> None:
        for refusal in content.REFUSALS:
            error = self._refused(refusal)
            # No attribute for the code, as the OpenAI SDKs have: it is in the body.
            body: Any = error.body
            expect(refusal.error, type(error).__name__)
            expect(refusal.status, error.status_code)
            expect(refusal.code, body["error"]["code"])
        try:
            self._pieces(content.BREAKING)
        except APIError as error:
            broken: Any = error.body
            expect(content.BROKEN_STREAM_CODE, broken["code"])
        else:
            raise AssertionError("a broken stream ended as if it were whole")

    @override
    def retry(self) -> None:
        headers = self._refused(content.RATE_LIMITED).response.headers
        expect("1", headers.get("retry-after"))
        message = {"role": "user", "content": content.BUSY_PROMPT}
        answer = self._ask(content.OPENAI, [message])
        expected = content.heard(content.OPENAI, content.BUSY_PROMPT)
        expect(expected, answer.choices[0].message.content)

    @override
    def id(self) -> None:
        messages: list[Any] = [content.USER_MESSAGE]
        raw = self._client.chat.completions.with_raw_response
        answer = raw.create(model=content.OPENAI, messages=messages)
        refusal = self._refused(content.RATE_LIMITED).response
        driver.expect_id(answer.headers.get("x-request-id"))
        driver.expect_id(refusal.headers.get("x-request-id"))

    @override
    def bearer(self) -> None:
        self._ask(content.OPENAI, [content.USER_MESSAGE])

    @override
    def header(self) -> None:
        # What the client is made for; it writes the header itself.
        data = json.loads(driver.header_value())
        client = LlamaStackClient(base_url=self._address, provider_data=data)
        messages: list[Any] = [content.USER_MESSAGE]
        client.chat.completions.create(model=content.OPENAI, messages=messages)


if __name__ == "__main__":
    # The client switches on a log line for every request.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    driver.run(LlamaStack())
