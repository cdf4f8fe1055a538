"""The clients that are light enough for every run: those of this environment, and curl.

`make clients` does the same with their newest versions, and with heavier ones.
"""

import sys
from pathlib import Path

import pytest

from tests.clients.installing import Installed
from tests.clients.listing import CLIENTS
from tests.clients.trying import COLUMNS, Cell, attempt
from tests.server import Server
from tests.upstream import Upstream

_NAMES = ["openai", "openai-async", "llama-stack-client", "curl"]


@pytest.mark.parametrize("name", _NAMES)
def test_it_can_do_all_that_is_asked_of_a_client(
    name: str, server: Server, upstream: Upstream, tmp_path: Path
) -> None:
    """Every capability works, its snippets too, and the upstream has seen it."""
    (client,) = [client for client in CLIENTS if client.name == name]
    programs = Path(sys.executable).parent
    here = Installed("of the project", tmp_path, programs, (sys.executable,))
    expected = dict.fromkeys(COLUMNS, Cell("ok"))
    actual = attempt(client, here, upstream, server.url)
    assert expected == actual
