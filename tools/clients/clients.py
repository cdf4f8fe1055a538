"""The clients: where they come from, and what docs/clients.md documents for each."""

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
    GEMINI_MODEL,
    MESSAGES,
    MODEL,
    RESPONSES,
)
from tools.clients.drivers import Call, Env, cli, curl, process, run, sdk

_PAGE = "docs/clients.md"
_LIMITS = docs.rows(docs.section(_PAGE, "Known client limitations"))


def python(requirement: str, directory: Path) -> str:
    """Install a Python package; return its version."""
    uv, interpreter = os.environ.get("UV", "uv"), str(directory / "bin/python")
    run([uv, "venv", "-q", "--python", sys.executable, "."], directory)
    run([uv, "pip", "install", "-q", "--python", interpreter, requirement], directory)
    (name,) = re.findall(r"^[\w-]+", requirement)
    code = f"import importlib.metadata as m; print(m.version({name!r}))"
    return run([interpreter, "-c", code], directory).strip()


def npm(packages: str, directory: Path) -> str:
    """Install a Node package, and those used with it; return its version."""
    name, *more = packages.split()
    # npm 11 runs the install scripts of packages listed here, and no others.
    package = {"private": True, "allowScripts": {name: True}}
    (directory / "package.json").write_text(json.dumps(package))
    run(["npm", "install", "--no-audit", "--no-fund", name, *more], directory)
    installed = directory / "node_modules" / name / "package.json"
    return str(json.loads(installed.read_text())["version"])


def command(name: str, directory: Path) -> str:
    """Return the version of a command that is already installed."""
    return run([name, "--version"], directory).split()[1]


class Api(NamedTuple):
    """The routes of an API, and a model of each vendor that has it."""

    paths: tuple[str, ...]
    models: tuple[str, ...]


CHAT_API = Api((CHAT,), (MODEL, GEMINI_MODEL, CLAUDE_MODEL))
RESPONSES_API = Api((RESPONSES,), (MODEL,))
MESSAGES_API = Api((MESSAGES, COUNT_TOKENS), (CLAUDE_MODEL,))

type Driver = Callable[[Path, Env, str], Call]


class Client(NamedTuple):
    """A third-party client; its name is that of its section of the page."""

    name: str
    install: Callable[[str, Path], str]
    api: Api
    # Without a driver, only the snippets of the page are run.
    driver: Driver | None = None
    # The class, function or command that the driver uses.
    target: str = ""
    # The requirement to install, where it is not the name.
    package: str = ""

    def snippets(self, language: str) -> list[str]:
        return docs.blocks(docs.section(_PAGE, self.name), language)

    def has_limit(self, column: str) -> bool:
        """Return whether the page documents that the client lacks something."""
        return any(
            self.name in names.split(", ") and column in columns.split(", ")
            for names, columns, _ in _LIMITS
        )


_PYDANTIC = "pydantic-ai-slim[openai]"
# Below 0.8: the server answers 426 to a client of another major.minor.
_STACK = "llama-stack-client<0.8"
_LANGCHAIN = "@langchain/openai @langchain/core"
_AI_ANTHROPIC = "@ai-sdk/anthropic ai"
_CLAUDE, _CODEX = "@anthropic-ai/claude-code", "@openai/codex"

CLIENTS = (
    Client("openai", python, CHAT_API, sdk, "OpenAI"),
    Client("openai-node", npm, CHAT_API, sdk, "openai", "openai"),
    Client("llama-stack-client", python, CHAT_API, sdk, "LlamaStack", _STACK),
    Client("langchain-openai", python, CHAT_API, process, "LangChain"),
    Client("langchain-js", npm, CHAT_API, process, "langChain", _LANGCHAIN),
    Client("litellm", python, CHAT_API, sdk, "LiteLLM"),
    Client("llama-index", python, CHAT_API, package="llama-index-llms-openai"),
    Client("pydantic-ai-chat", python, CHAT_API, process, "PydanticAIChat", _PYDANTIC),
    Client("aider", python, CHAT_API, package="aider-chat"),
    Client("llm", python, CHAT_API, cli, "llm"),
    Client("curl", command, CHAT_API, curl),
    Client("java", command, CHAT_API, package="javac"),
    Client("pydantic-ai", python, RESPONSES_API, process, "PydanticAI", _PYDANTIC),
    Client("openai-agents", python, RESPONSES_API, process, "Agents"),
    Client("ai-sdk", npm, RESPONSES_API, process, "aiSdk", "@ai-sdk/openai ai"),
    Client("codex", npm, RESPONSES_API, cli, "codex", _CODEX),
    Client("codex-builtin", npm, RESPONSES_API, cli, "codex-builtin", _CODEX),
    Client("anthropic", python, MESSAGES_API, sdk, "Anthropic"),
    Client("ai-sdk-anthropic", npm, MESSAGES_API, process, "aiSdk", _AI_ANTHROPIC),
    Client("claude-agent-sdk", python, MESSAGES_API, process, "ClaudeAgent"),
    Client("claude-code", npm, MESSAGES_API, cli, "claude", _CLAUDE),
    Client("opencode", npm, MESSAGES_API, cli, "opencode", "opencode-ai"),
)
