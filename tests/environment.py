"""Which variables of the machine must not reach a test."""

import os
import re

# Keys, proxies, trust, and what this project, Llama Stack, OpenTelemetry and Python
# read: without bytecode, for one, a server takes five times as long to start.
_FOREIGN = re.compile(
    r".*_API_KEY|.*_UPSTREAM_URL|(HTTPS?|ALL|NO)_PROXY|SSL_CERT_(FILE|DIR)"
    r"|(LLS|LLAMA_STACK|OTEL|SQLITE_STORE)_.*|PYTHON.+",
    re.IGNORECASE,
)


def foreign_names() -> list[str]:
    """The variables set on this machine that would change what a test does."""
    return [name for name in os.environ if _FOREIGN.fullmatch(name)]


def clean() -> dict[str, str]:
    """The environment for a process of a test, without those variables."""
    foreign = foreign_names()
    return {name: value for name, value in os.environ.items() if name not in foreign}
