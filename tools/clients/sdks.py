"""Calls a Python client in its environment: `python sdks.py CLASS METHOD ARGUMENT`.

Prints the method's result as JSON, or the exception. A class with `create` takes bodies
built by drivers.py, or None for the models; others have a method for each column.
"""

# ruff: noqa: ANN401 - any client's types
# ruff: noqa: PLC0415, SLF001 - one client is installed; some keep the request id there

import asyncio
import json
import os
import sys
from typing import Any

PROMPT = "Say hello."
RESULT = "It is sunny."
# The parameters of the tool `weather`, which returns RESULT.
WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
ADDRESS = os.environ.get("OPENAI_BASE_URL", "").removesuffix("/v1")


def weather(city: str) -> str:
    """Return the weather in a city."""
    return RESULT if city else ""


def prefixed(model: str) -> str:
    """Return the name for a client that strips `openai/` from it."""
    # Its users write `openai/gpt-4o` too, and the server receives `gpt-4o`.
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
    """llama-stack-client, with the key in its provider data."""

    def create(self, body: Any) -> Any:
        from llama_stack_client import LlamaStackClient

        data = {"passthrough_api_key": os.environ["OPENAI_API_KEY"]}
        client = LlamaStackClient(base_url=ADDRESS, provider_data=data)
        if not body:
            return client.models.list()
        raw = client.chat.completions.with_raw_response.create(**body)
        response = raw.parse()
        response._request_id = raw.headers["x-request-id"]
        return response


class LiteLLM:
    def create(self, body: Any) -> Any:
        import litellm

        if not body:
            models: Any = litellm.get_valid_models(
                check_provider_endpoint=True,
                custom_llm_provider="openai",
                api_key=os.environ["OPENAI_API_KEY"],
                api_base=ADDRESS,
            )
            return [{"id": name} for name in models]
        response = litellm.completion(**body | {"model": prefixed(body["model"])})
        headers = response._hidden_params.get("additional_headers", {})
        response._request_id = headers.get("llm_provider-x-request-id")
        return response


class LangChain:
    def _chat(self, model: str, **options: Any) -> Any:
        from langchain_openai import ChatOpenAI

        return ChatOpenAI(model=model, **options)

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
        response = self._chat(model, include_response_headers=True).invoke(PROMPT)
        return response.response_metadata["headers"]["x-request-id"]


class PydanticAI:
    """pydantic-ai's `openai:`, which uses the Responses API."""

    prefix = "openai"

    def _agent(self, model: str, **options: Any) -> Any:
        from pydantic_ai import Agent

        return Agent(f"{self.prefix}:{model}", **options)

    def streamed(self, model: str) -> Any:
        result = self._agent(model).run_stream_sync(PROMPT)
        return list(result.stream_text(delta=True, debounce_by=None))

    def tools(self, model: str) -> Any:
        return self._agent(model, tools=[weather]).run_sync(PROMPT).output


class PydanticAIChat(PydanticAI):
    prefix = "openai-chat"


class Agents:
    """openai-agents, which uses the Responses API by default."""

    def _run(self, model: str, run: str = "run_sync", **options: Any) -> Any:
        import agents

        agent = agents.Agent(name="agent", model=prefixed(model), **options)
        return getattr(agents.Runner, run)(agent, PROMPT)

    def streamed(self, model: str) -> Any:
        async def read() -> list[str]:
            events = self._run(model, "run_streamed").stream_events()
            raw = [e.data async for e in events if e.type == "raw_response_event"]
            return [d.delta for d in raw if d.type == "response.output_text.delta"]

        return asyncio.run(read())

    def tools(self, model: str) -> Any:
        from agents import function_tool

        return self._run(model, tools=[function_tool(weather)]).final_output

    def id(self, model: str) -> Any:
        return self._run(model).raw_responses[0].request_id


class ClaudeAgent:
    def _run(self, model: str) -> str:
        from claude_agent_sdk import ClaudeAgentOptions, query

        async def read() -> str:
            options = ClaudeAgentOptions(model=model, tools=["Read"])
            result = None
            async for message in query(prompt=PROMPT, options=options):
                result = getattr(message, "result", None) or result
            return str(result)

        return asyncio.run(read())

    streamed = tools = _run


def to_json(response: Any) -> Any:
    """Convert an SDK's object to JSON, with the request id if it has one."""
    if hasattr(response, "model_dump"):
        request_id = {"_request_id": getattr(response, "_request_id", None)}
        return response.model_dump(mode="json", exclude_unset=True) | request_id
    is_json = isinstance(response, str | dict)
    return response if is_json else [to_json(each) for each in response]


if __name__ == "__main__":
    name, method, argument = sys.argv[1:]
    try:
        result = getattr(globals()[name](), method)(json.loads(argument))
        print(json.dumps(to_json(result)))
    except Exception as error:  # noqa: BLE001 - the tool shows whatever a client raises
        # Some have the error's code in the body alone.
        details = {key: vars(error).get(key) for key in ("status_code", "code", "body")}
        sys.exit(f"{type(error).__name__}: {error} {details}")
