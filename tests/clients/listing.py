"""The clients, and what docs/clients.md shows and says of each."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from tests.clients.drivers import CHAT_MODELS, Call, Env, cli, http, process, sdk
from tests.clients.installing import command, npm, python
from tests.support import docs
from tests.support.http import CHAT, CLAUDE, COUNT_TOKENS, MESSAGES, MODEL, RESPONSES

_PAGE = "docs/clients.md"
_LIMITS = docs.rows(docs.section(_PAGE, "Limits of the clients"))


class Route(NamedTuple):
    """Where a client calls, and the models that the mock has there."""

    paths: tuple[str, ...]
    models: tuple[str, ...]


CHATS = Route((CHAT,), CHAT_MODELS)
RESPONDS = Route((RESPONSES,), (MODEL,))
TALKS = Route((MESSAGES, COUNT_TOKENS), (CLAUDE,))


class Client(NamedTuple):
    """A client that others wrote; its name is that of its section of the page."""

    name: str
    install: Callable[[str, Path], str]
    package: str
    route: Route
    # None: takes so long to start that its snippet has to do.
    driver: Callable[[Path, Env, str, ExitStack], Call] | None
    # What the driver is told.
    detail: str

    def snippets(self, language: str) -> list[str]:
        """The blocks of code in its section."""
        return docs.blocks(docs.section(_PAGE, self.name), language)

    def limit(self, column: str) -> str:
        """Why it cannot do something; empty if it can."""
        for names, columns, reason in _LIMITS:
            if self.name in names.split(", ") and column in columns.split(", "):
                return reason
        return ""


_PYDANTIC = "pydantic-ai-slim[openai]"
# Below 0.8: the server answers 426 to a client of another major.minor.
_STACK = "llama-stack-client<0.8"

CLIENTS = (
    Client("openai", python, "openai", CHATS, sdk, "OpenAI"),
    Client("openai-node", npm, "openai", CHATS, sdk, "openai"),
    Client("llama-stack-client", python, _STACK, CHATS, sdk, "LlamaStack"),
    Client("langchain-openai", python, "langchain-openai", CHATS, process, "LangChain"),
    Client("litellm", python, "litellm", CHATS, sdk, "LiteLLM"),
    Client("pydantic-ai-chat", python, _PYDANTIC, CHATS, process, "PydanticAIChat"),
    Client("aider", python, "aider-chat", CHATS, None, ""),
    Client("llm", python, "llm", CHATS, cli, "llm"),
    Client("curl", command, "curl", CHATS, http, "curl"),
    Client("java", command, "javac", CHATS, http, "java"),
    Client("pydantic-ai", python, _PYDANTIC, RESPONDS, process, "PydanticAI"),
    Client("openai-agents", python, "openai-agents", RESPONDS, process, "Agents"),
    Client("ai-sdk", npm, "@ai-sdk/openai ai", RESPONDS, process, "aiSdk"),
    Client("codex", npm, "@openai/codex", RESPONDS, cli, "codex"),
    Client("anthropic", python, "anthropic", TALKS, sdk, "Anthropic"),
    Client("claude-code", npm, "@anthropic-ai/claude-code", TALKS, cli, "claude"),
)
