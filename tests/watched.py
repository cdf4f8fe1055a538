"""Servers that tell more than others: for tests of what must not be told.

A test module takes these fixtures by `pytest_plugins = ["tests.watched"]`.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.endpoint import endpoint
from tests.inside import Inside, Watched
from tests.marks import complaints
from tests.run_yaml import passthrough, variant
from tests.server import Server
from tests.upstream import Upstream

type Json = dict[str, Any]


@pytest.fixture(scope="session")
def talkative(
    running_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Watched]:
    """A server that logs all it can, in the form for persons, and can be looked into.

    It has a provider that waits for half a second only, and one for small bodies.
    """
    directory = tmp_path_factory.mktemp("talk")
    url = running_upstream.openai.url

    def change(config: Json) -> None:
        config["logging_config"] = {"category_levels": {"all": "debug"}}
        config["providers"]["inference"] += [
            passthrough("brief", url, network={"timeout": 0.5}),
            passthrough("small", url, max_request_bytes=10),
        ]

    inside = Inside(directory / "inside")
    loudest = {"LLAMA_STACK_LOG_FORMAT": "text", "LLAMA_STACK_LOGGING": "all=debug"}
    variables = running_upstream.environment | loudest | inside.variables
    path = variant(directory, change)
    yield from _until_checked(directory, path, variables, inside)


@pytest.fixture(scope="session")
def guarded(
    running_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Watched]:
    """A server that asks for a token, closes no route, and logs all it can, as JSON."""
    directory = tmp_path_factory.mktemp("guard")

    def judge(_path: str, body: bytes) -> tuple[int, bytes]:
        if json.loads(body)["api_key"] != "good":
            return 401, b"{}"
        return 200, b'{"principal": "someone"}'

    with endpoint(judge) as judging:

        def change(config: Json) -> None:
            config["logging_config"] = {"category_levels": {"all": "debug"}}
            provider = {"type": "custom", "endpoint": judging.url}
            config["server"]["auth"] = {"provider_config": provider}

        inside = Inside(directory / "inside")
        variables = running_upstream.environment | inside.variables
        path = variant(directory, change)
        yield from _until_checked(directory, path, variables, inside)


def _until_checked(
    directory: Path, run_yaml: Path, variables: dict[str, str], inside: Inside
) -> Iterator[Watched]:
    """Run a server; what it has logged until its very end is looked through."""
    with Server(directory, run_yaml=run_yaml, variables=variables) as server:
        yield Watched(server, inside)
    assert complaints(server.log) == []
