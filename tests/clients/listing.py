"""The clients: where each comes from, its driver, and what the README shows of it."""

from dataclasses import dataclass

from tests.clients.installing import Command, Npm, Python, Source


@dataclass(frozen=True)
class Client:
    """A client that others wrote.

    Attributes:
        name: What the table calls it.
        source: How it is installed.
        driver: The program in drivers/ that tries it.
        snippets: The files in snippets/ that show its use.
    """

    name: str
    source: Source
    driver: str
    snippets: tuple[str, ...]


_OPENAI = Python("openai>=3", "openai")

CLIENTS = (
    Client("openai", _OPENAI, "openai_sync", ("with_openai.py", "with_header.py")),
    Client("openai-async", _OPENAI, "openai_async", ("with_openai_async.py",)),
    Client("openai-node", Npm("openai"), "openai_node", ("with_openai.mjs",)),
    Client(
        "llama-stack-client",
        # The server answers 426 to a client of another major.minor version.
        Python("llama-stack-client<0.8", "llama-stack-client"),
        "llama_stack",
        ("with_llama_stack_client.py",),
    ),
    Client(
        "langchain-openai",
        Python("langchain-openai", "langchain-openai"),
        "langchain_chat",
        ("with_langchain.py",),
    ),
    Client(
        "pydantic-ai",
        # The whole of pydantic-ai installs the SDKs of all vendors.
        Python("pydantic-ai-slim[openai]", "pydantic-ai-slim"),
        "pydantic_ai_agent",
        ("with_pydantic_ai.py",),
    ),
    Client("llm", Python("llm", "llm"), "llm_command", ("with_llm.sh",)),
    Client("curl", Command("curl"), "curl_command", ("with_curl.sh",)),
)
