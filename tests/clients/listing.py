"""The clients, and what docs/clients.md shows and says of each."""

import re
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tests.clients.drivers import CHAT_MODELS, Call, Env, cli, http, process, sdk
from tests.clients.installing import Installed, command, npm, python
from tests.support.http import CHAT, CLAUDE, COUNT_TOKENS, MESSAGES, MODEL, RESPONSES
from tests.support.server import PROJECT

_PAGE = (PROJECT / "docs/clients.md").read_text()


class Route(NamedTuple):
    """Where a client calls, and the models that the mock has there."""

    paths: tuple[str, ...]
    models: tuple[str, ...]


OF_CHAT = Route((CHAT,), CHAT_MODELS)
OF_RESPONSES = Route((RESPONSES,), (MODEL,))
OF_MESSAGES = Route((MESSAGES, COUNT_TOKENS), (CLAUDE,))


class Client(NamedTuple):
    """A client that others wrote; its name is that of its section of the page."""

    name: str
    install: Callable[[Path], Installed]
    route: Route
    driver: Callable[[Installed, Env, str, ExitStack], Call]
    # What the driver is told.
    detail: str

    @property
    def snippets(self) -> list[tuple[str, str]]:
        """Language and text of each block of code in its section."""
        section = re.search(rf"^### {self.name}\n(.*?)(?=^##|\Z)", _PAGE, re.M | re.S)
        assert section, f"docs/clients.md has no section {self.name}"
        return re.findall(r"^```(\w+)\n(.*?)^```", section[1], re.M | re.S)

    def limit(self, column: str) -> str:
        """Why it cannot do something; empty if it can."""
        rows = re.findall(r"^\| (.+?) \| (.+?) \| (.+?) \|$", _PAGE, re.M)
        for names, columns, reason in rows:
            if self.name in names.split(", ") and column in columns.split(", "):
                return str(reason)
        return ""


_OPENAI = partial(python, "openai", "")
_PYDANTIC = partial(python, "pydantic-ai-slim", "[openai]")
# Below 0.8: the server answers 426 to a client of another major.minor.
_LLAMA_STACK = partial(python, "llama-stack-client", "<0.8")
_LANGCHAIN = partial(python, "langchain-openai", "")
_LITELLM = partial(python, "litellm", "")
_AGENTS = partial(python, "openai-agents", "")
_ANTHROPIC = partial(python, "anthropic", "")
_CLAUDE_CODE = partial(npm, "@anthropic-ai/claude-code", "")
_JAVA = partial(command, "javac", "default-jdk-headless")

CLIENTS = (
    Client("openai", _OPENAI, OF_CHAT, sdk, "OpenAI"),
    Client("openai-async", _OPENAI, OF_CHAT, sdk, "AsyncOpenAI"),
    Client("openai-node", partial(npm, "openai", ""), OF_CHAT, sdk, "openai"),
    Client("llama-stack-client", _LLAMA_STACK, OF_CHAT, sdk, "LlamaStack"),
    Client("langchain-openai", _LANGCHAIN, OF_CHAT, process, "LangChain"),
    Client("litellm", _LITELLM, OF_CHAT, sdk, "LiteLLM"),
    Client("pydantic-ai-chat", _PYDANTIC, OF_CHAT, process, "PydanticAIChat"),
    Client("aider", partial(python, "aider-chat", ""), OF_CHAT, cli, "aider"),
    Client("llm", partial(python, "llm", ""), OF_CHAT, cli, "llm"),
    Client("curl", partial(command, "curl", "curl"), OF_CHAT, http, "curl"),
    Client("java", _JAVA, OF_CHAT, http, "java"),
    Client("pydantic-ai", _PYDANTIC, OF_RESPONSES, process, "PydanticAI"),
    Client("openai-agents", _AGENTS, OF_RESPONSES, process, "Agents"),
    Client(
        "ai-sdk", partial(npm, "@ai-sdk/openai", "ai"), OF_RESPONSES, process, "aiSdk"
    ),
    Client("codex", partial(npm, "@openai/codex", ""), OF_RESPONSES, cli, "codex"),
    Client("anthropic", _ANTHROPIC, OF_MESSAGES, sdk, "Anthropic"),
    Client("claude-code", _CLAUDE_CODE, OF_MESSAGES, cli, "claude"),
)
