"""Drives LangChain's ChatOpenAI (`langchain-openai`)."""

from typing import Any, override

from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from openai import APIError, APIStatusError

from tests.clients.drivers import content, driver
from tests.clients.drivers.content import Refusal
from tests.clients.drivers.driver import Cannot, Driver, expect


def weather(city: str) -> str:
    """Tell the weather in a city."""
    return content.TOOL_RESULT if city else ""


class LangChain(Driver):
    """The chat model as a user makes it: address and key from the environment."""

    @override
    def models(self) -> None:
        reason = "lists no models; the OpenAI SDK below it does, ChatOpenAI.root_client"
        raise Cannot(reason)

    @override
    def regular(self) -> None:
        for model in content.ONE_OF_EACH:
            answer = ChatOpenAI(model=model).invoke(content.PROMPT)
            expect(content.heard(model), answer.content)

    @override
    def stream(self) -> None:
        for model in content.ONE_OF_EACH:
            chunks = ChatOpenAI(model=model).stream(content.PROMPT)
            pieces = [chunk.content for chunk in chunks]
            driver.expect_pieces(content.heard(model), pieces)

    @override
    def tools(self) -> None:
        self._two_turns(content.OPENAI)
        self._two_turns(content.ANTHROPIC)

    @override
    def signature(self) -> None:
        try:
            self._two_turns(content.GEMINI)
        except APIStatusError as error:
            if content.SIGNATURE_MISSING not in error.message:
                raise
            raise Cannot(content.NO_SIGNATURE) from None

    def _two_turns(self, model: str) -> None:
        weather_tool = tool(weather)
        chat = ChatOpenAI(model=model).bind_tools([weather_tool])
        messages = [HumanMessage(content.PROMPT)]
        call = chat.invoke(messages)
        messages += [call, weather_tool.invoke(call.tool_calls[0])]
        expect(content.read(model), chat.invoke(messages).content)

    @override
    def schema(self) -> None:
        schema = content.CITY_SCHEMA | {"title": "city", "description": "A city."}
        chat = ChatOpenAI(model=content.OPENAI).with_structured_output(schema)
        expect(content.CITY, chat.invoke(content.PROMPT))

    @override
    def image(self) -> None:
        answer = ChatOpenAI(model=content.OPENAI).invoke([content.IMAGE_MESSAGE])
        expect(content.saw(content.OPENAI), answer.content)

    @override
    def errors(self) -> None:
        for refusal in content.REFUSALS:
            error = self._refused(refusal)
            # Each is a subclass of the OpenAI SDK's, with a name of its own.
            names = [parent.__name__ for parent in type(error).__mro__]
            expect(True, refusal.error in names)  # noqa: FBT003 - compared, not passed
            expect((refusal.status, refusal.code), (error.status_code, error.code))
        try:
            list(ChatOpenAI(model=content.BREAKING).stream(content.PROMPT))
        except APIError as error:
            expect(content.BROKEN_STREAM_CODE, error.code)
        else:
            raise AssertionError("a broken stream ended as if it were whole")

    def _refused(self, refusal: Refusal) -> APIStatusError:
        key: dict[str, Any] = {"api_key": refusal.key} if refusal.key else {}
        try:
            ChatOpenAI(model=refusal.model, max_retries=0, **key).invoke(content.PROMPT)
        except APIStatusError as error:
            return error
        raise AssertionError(f"{refusal} was answered")

    @override
    def retry(self) -> None:
        headers = self._refused(content.RATE_LIMITED).response.headers
        expect("1", headers.get("retry-after"))
        answer = ChatOpenAI(model=content.OPENAI).invoke(content.BUSY_PROMPT)
        expect(content.heard(content.OPENAI, content.BUSY_PROMPT), answer.content)

    @override
    def id(self) -> None:
        chat = ChatOpenAI(model=content.OPENAI, include_response_headers=True)
        headers = chat.invoke(content.PROMPT).response_metadata["headers"]
        driver.expect_id(headers.get("x-request-id"))
        driver.expect_id(self._refused(content.RATE_LIMITED).request_id)

    @override
    def bearer(self) -> None:
        ChatOpenAI(model=content.OPENAI).invoke(content.PROMPT)

    @override
    def header(self) -> None:
        headers = {content.HEADER: driver.header_value()}
        chat = ChatOpenAI(
            model=content.OPENAI, api_key=content.NO_KEY, default_headers=headers
        )
        chat.invoke(content.PROMPT)


if __name__ == "__main__":
    driver.run(LangChain())
