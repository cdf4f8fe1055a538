"""Drives a client for Python in its environment: `python sdks.py CLIENT METHOD ARG`.

It prints what the method returned, or raised. An SDK has `create` alone: it is sent the
bodies of drivers.py, None for the models.
"""

# ruff: noqa: ANN401 - any client; a method does what its column is called
# ruff: noqa: PLC0415, SLF001 - each is installed alone; some keep the request id there

import asyncio
import json
import os
import sys
from typing import Any

PROMPT = "Say hello."
RESULT = "It is sunny."
# The parameters of the tool `weather`, whose result is RESULT.
WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
ADDRESS = os.environ.get("OPENAI_BASE_URL", "").removesuffix("/v1")


def weather(city: str) -> str:
    """Tell the weather in a city."""
    return RESULT if city else ""


def prefixed(model: str) -> str:
    """The name for clients that take `openai/` for their own and send what follows."""
    # As their users write it: the server gets `gpt-4o`.
    return model if model == "openai/gpt-4o" else f"openai/{model}"


class OpenAI:
    def create(self, body: Any) -> Any:
        from openai import OpenAI

        client = OpenAI()
        return client.chat.completions.create(**body) if body else client.models.list()


class Anthropic:
    def create(self, body: Any) -> Any:
        from anthropic import Anthropic

        client = Anthropic()
        return client.messages.create(**body) if body else client.models.list()


class LlamaStack:
    """`llama-stack-client`, with the key in its provider data."""

    def create(self, body: Any) -> Any:
        from llama_stack_client import LlamaStackClient

        data = {"passthrough_api_key": os.environ["OPENAI_API_KEY"]}
        client = LlamaStackClient(base_url=ADDRESS, provider_data=data)
        if not body:
            return client.models.list()
        raw = client.chat.completions.with_raw_response.create(**body)
        answer = raw.parse()
        answer._request_id = raw.headers["x-request-id"]
        return answer


class LiteLLM:
    def create(self, body: Any) -> Any:
        import litellm

        if not body:
            own: Any = {"api_key": os.environ["OPENAI_API_KEY"], "api_base": ADDRESS}
            own |= {"check_provider_endpoint": True, "custom_llm_provider": "openai"}
            return [{"id": name} for name in litellm.get_valid_models(**own)]
        answer = litellm.completion(**body | {"model": prefixed(body["model"])})
        headers = answer._hidden_params.get("additional_headers", {})
        answer._request_id = headers.get("llm_provider-x-request-id")
        return answer


class LangChain:
    def _chat(self, model: str, **more: Any) -> Any:
        from langchain_openai import ChatOpenAI

        return ChatOpenAI(model=model, **more)

    def streamed(self, model: str) -> Any:
        return [chunk.content for chunk in self._chat(model).stream(PROMPT)]

    def tools(self, model: str) -> Any:
        from langchain_core.messages import HumanMessage
        from langchain_core.tools import tool

        chat = self._chat(model).bind_tools([tool(weather)])
        call = chat.invoke([HumanMessage(PROMPT)])
        result = tool(weather).invoke(call.tool_calls[0])
        return chat.invoke([HumanMessage(PROMPT), call, result]).content

    def id(self, model: str) -> Any:
        answer = self._chat(model, include_response_headers=True).invoke(PROMPT)
        return answer.response_metadata["headers"]["x-request-id"]


class PydanticAI:
    """pydantic-ai's `openai:`, which is Responses."""

    prefix = "openai"

    def _agent(self, model: str, **more: Any) -> Any:
        from pydantic_ai import Agent

        return Agent(f"{self.prefix}:{model}", **more)

    def streamed(self, model: str) -> Any:
        result = self._agent(model).run_stream_sync(PROMPT)
        return list(result.stream_text(delta=True, debounce_by=None))

    def tools(self, model: str) -> Any:
        return self._agent(model, tools=[weather]).run_sync(PROMPT).output


class PydanticAIChat(PydanticAI):
    prefix = "openai-chat"


class Agents:
    """`openai-agents`, with its default, which is Responses."""

    def _run(self, model: str, run: str = "run_sync", **more: Any) -> Any:
        import agents

        agent = agents.Agent(name="agent", model=prefixed(model), **more)
        return getattr(agents.Runner, run)(agent, PROMPT)

    def streamed(self, model: str) -> Any:
        async def pieces() -> list[str]:
            events = self._run(model, "run_streamed").stream_events()
            raw = [e.data async for e in events if e.type == "raw_response_event"]
            return [d.delta for d in raw if d.type == "response.output_text.delta"]

        return asyncio.run(pieces())

    def tools(self, model: str) -> Any:
        from agents import function_tool

        return self._run(model, tools=[function_tool(weather)]).final_output

    def id(self, model: str) -> Any:
        return self._run(model).raw_responses[0].request_id


def plain(answer: Any) -> Any:
    """What an SDK gives, as JSON, with the request id where there is one."""
    if hasattr(answer, "model_dump"):
        own = {"_request_id": getattr(answer, "_request_id", None)}
        return answer.model_dump(mode="json", exclude_unset=True) | own
    is_plain = isinstance(answer, str | dict)
    return answer if is_plain else [plain(each) for each in answer]


if __name__ == "__main__":
    name, method, argument = sys.argv[1:]
    try:
        answer = getattr(globals()[name](), method)(json.loads(argument))
        print(json.dumps(plain(answer)))
    except Exception as error:  # noqa: BLE001 - whatever a client raises is told
        # Some have the code of an error in its body alone.
        facts = {n: vars(error).get(n) for n in ("status_code", "code", "body")}
        sys.exit(f"{type(error).__name__}: {error} {facts}")
