"""The clients, and what docs/clients.md shows and says of each."""

import re
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from tests.clients.drivers import CHAT_MODELS, Call, Env, cli, http, process, sdk
from tests.clients.installing import Installed, command, npm, python
from tests.support import http as http_paths
from tests.support.http import CLAUDE
from tests.support.server import PROJECT

type Source = tuple[Callable[[str, str, Path], Installed], str, str]

_PAGE = (PROJECT / "docs/clients.md").read_text()


class Route(NamedTuple):
    """Where a client calls, and the models that the mock has there."""

    paths: tuple[str, ...]
    models: tuple[str, ...]


CHATS = Route((http_paths.CHAT,), CHAT_MODELS)
RESPONDS = Route((http_paths.RESPONSES,), (http_paths.MODEL,))
MESSAGES = Route((http_paths.MESSAGES, http_paths.COUNT_TOKENS), (CLAUDE,))


class Client(NamedTuple):
    """A client that others wrote; its name is that of its section of the page."""

    name: str
    # An installer with what it installs.
    source: Source
    route: Route
    # None: takes so long to start that its snippet has to do.
    driver: Callable[[Installed, Env, str, ExitStack], Call] | None
    # What the driver is told.
    detail: str

    @property
    def snippets(self) -> list[tuple[str, str]]:
        """Language and text of each block of code in its section."""
        section = re.split(rf"(?m)^### {self.name}$", _PAGE)[1].partition("\n##")[0]
        return re.findall(r"(?ms)^```(\w+)\n(.*?)^```", section)

    def limit(self, column: str) -> str:
        """Why it cannot do something; empty if it can."""
        rows = re.findall(r"(?m)^\| (.+?) \| (.+?) \| (.+?) \|$", _PAGE)
        for names, columns, reason in rows:
            if self.name in names.split(", ") and column in columns.split(", "):
                return str(reason)
        return ""


_PYDANTIC = (python, "pydantic-ai-slim", "[openai]")
# Below 0.8: the server answers 426 to a client of another major.minor.
_LLAMA_STACK = (python, "llama-stack-client", "<0.8")
_CLAUDE_CODE = (npm, "@anthropic-ai/claude-code", "")
_JAVA = (command, "javac", "default-jdk-headless")

CLIENTS = (
    Client("openai", (python, "openai", ""), CHATS, sdk, "OpenAI"),
    Client("openai-node", (npm, "openai", ""), CHATS, sdk, "openai"),
    Client("llama-stack-client", _LLAMA_STACK, CHATS, sdk, "LlamaStack"),
    Client(
        "langchain-openai",
        (python, "langchain-openai", ""),
        CHATS,
        process,
        "LangChain",
    ),
    Client("litellm", (python, "litellm", ""), CHATS, sdk, "LiteLLM"),
    Client("pydantic-ai-chat", _PYDANTIC, CHATS, process, "PydanticAIChat"),
    Client("aider", (python, "aider-chat", ""), CHATS, None, ""),
    Client("llm", (python, "llm", ""), CHATS, cli, "llm"),
    Client("curl", (command, "curl", "curl"), CHATS, http, "curl"),
    Client("java", _JAVA, CHATS, http, "java"),
    Client("pydantic-ai", _PYDANTIC, RESPONDS, process, "PydanticAI"),
    Client("openai-agents", (python, "openai-agents", ""), RESPONDS, process, "Agents"),
    Client("ai-sdk", (npm, "@ai-sdk/openai", "ai"), RESPONDS, process, "aiSdk"),
    Client("codex", (npm, "@openai/codex", ""), RESPONDS, cli, "codex"),
    Client("anthropic", (python, "anthropic", ""), MESSAGES, sdk, "Anthropic"),
    Client("claude-code", _CLAUDE_CODE, MESSAGES, cli, "claude"),
)
