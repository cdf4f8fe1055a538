"""What tests share: a clean environment, the upstream, and the real server."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import httpx
import pytest

from tests import environment
from tests.server import RUN_YAML, Server
from tests.upstream import Upstream, in_background


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove keys, proxies and settings of this machine from every test."""
    for name in environment.foreign_names():
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def running_upstream() -> Iterator[Upstream]:
    """The upstream of the whole session; tests take `upstream`."""
    with in_background() as running:
        yield running


@pytest.fixture
def upstream(running_upstream: Upstream) -> Iterator[Upstream]:
    """The upstream, with nothing recorded and no script; a faulty script fails."""
    running_upstream.reset()
    yield running_upstream
    faults = [fault for vendor in running_upstream.vendors for fault in vendor.faults]
    running_upstream.reset()
    assert faults == []


@pytest.fixture(scope="session")
def server(
    running_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """The server as everyone runs it, on run.yaml and the session's upstream."""
    directory = tmp_path_factory.mktemp("server")
    with Server(directory, variables=running_upstream.environment) as running:
        yield running


@pytest.fixture(scope="session")
def http() -> Iterator[httpx.Client]:
    """An HTTP client for all tests: making one takes longer than a request."""
    # uvicorn closes idle connections after 5 s: never a call on one just then.
    limits = httpx.Limits(keepalive_expiry=2)
    with httpx.Client(trust_env=False, timeout=30, limits=limits) as client:
        yield client


class StartServer(Protocol):
    """Starts a server of a test's own; it is stopped at the end of the test."""

    def __call__(
        self,
        *,
        run_yaml: Path = ...,
        variables: dict[str, str] | None = None,
        port: int | None = None,
        work: Path | None = None,
    ) -> Server:
        """Start it on the session's upstream, unless `variables` say otherwise."""


@pytest.fixture
def start_server(
    running_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StartServer]:
    """Start further servers, with a run.yaml and variables of the test's own."""
    with ExitStack() as started:

        def start(
            *,
            run_yaml: Path = RUN_YAML,
            variables: dict[str, str] | None = None,
            port: int | None = None,
            work: Path | None = None,
        ) -> Server:
            running = Server(
                tmp_path_factory.mktemp("server"),
                run_yaml=run_yaml,
                variables=running_upstream.environment | (variables or {}),
                port=port,
                work=work,
            )
            return started.enter_context(running)

        yield start
