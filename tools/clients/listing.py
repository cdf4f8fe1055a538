"""The clients, where they come from, and what docs/clients.md says of each."""

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.support import docs
from tests.support.http import (
    CHAT,
    CLAUDE_MODEL,
    COUNT_TOKENS,
    MESSAGES,
    MODEL,
    RESPONSES,
)
from tools.clients.drivers import CHAT_MODELS, Call, Env, cli, curl, process, run, sdk

_PAGE = "docs/clients.md"
_LIMITS = docs.rows(docs.section(_PAGE, "Known client limitations"))


def python(requirement: str, directory: Path) -> str:
    """Install a distribution for Python; the version."""
    uv, own = os.environ.get("UV", "uv"), str(directory / "bin/python")
    run([uv, "venv", "-q", "--python", sys.executable, "."], directory)
    run([uv, "pip", "install", "-q", "--python", own, requirement], directory)
    (name,) = re.findall(r"^[\w-]+", requirement)
    code = f"import importlib.metadata as m; print(m.version({name!r}))"
    return run([own, "-c", code], directory).strip()


def npm(packages: str, directory: Path) -> str:
    """Install a package for Node, and those that it is used with; the version."""
    name, *more = packages.split()
    # npm 11 runs the install scripts of those packages alone that are named so.
    package = {"private": True, "allowScripts": {name: True}}
    (directory / "package.json").write_text(json.dumps(package))
    run(["npm", "install", "--no-audit", "--no-fund", name, *more], directory)
    installed = directory / "node_modules" / name / "package.json"
    return str(json.loads(installed.read_text())["version"])


def command(name: str, directory: Path) -> str:
    """Take a command of this machine; the version."""
    return run([name, "--version"], directory).split()[1]


class Route(NamedTuple):
    """Where a client calls, and the models that the mock has there."""

    paths: tuple[str, ...]
    models: tuple[str, ...]


CHATS = Route((CHAT,), CHAT_MODELS)
RESPONDS = Route((RESPONSES,), (MODEL,))
TALKS = Route((MESSAGES, COUNT_TOKENS), (CLAUDE_MODEL,))


class Client(NamedTuple):
    """A client that others wrote; its name is that of its section of the page."""

    name: str
    install: Callable[[str, Path], str]
    package: str
    route: Route
    # None: its snippet has to do.
    driver: Callable[[Path, Env, str], Call] | None
    # What the driver is told.
    detail: str

    def snippets(self, language: str) -> list[str]:
        """The blocks of code in its section."""
        return docs.blocks(docs.section(_PAGE, self.name), language)

    def has_limit(self, column: str) -> bool:
        """Whether the page says that it cannot do something."""
        return any(
            self.name in names.split(", ") and column in columns.split(", ")
            for names, columns, _ in _LIMITS
        )


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
    Client("curl", command, "curl", CHATS, curl, ""),
    Client("java", command, "javac", CHATS, None, ""),
    Client("pydantic-ai", python, _PYDANTIC, RESPONDS, process, "PydanticAI"),
    Client("openai-agents", python, "openai-agents", RESPONDS, process, "Agents"),
    Client("ai-sdk", npm, "@ai-sdk/openai ai", RESPONDS, process, "aiSdk"),
    Client("codex", npm, "@openai/codex", RESPONDS, cli, "codex"),
    Client("anthropic", python, "anthropic", TALKS, sdk, "Anthropic"),
    Client("claude-code", npm, "@anthropic-ai/claude-code", TALKS, cli, "claude"),
)
