"""Fixtures: a clean environment, the mock upstream, and the servers that tests share.

Marks say how the `server` of a test differs from run.yaml::

    @pytest.mark.providers({"small": {"max_request_bytes": 1000}})
    @pytest.mark.server({"server": {"cors": True}}, env={"LLS_WORKERS": "2"})

All tests that only add providers share one server.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.collector import Collector
from tests.support.network import Network
from tests.support.ogx import is_ignored_on_ogx, skip_on_ogx
from tests.support.run_yaml import IS_OGX, Variation
from tests.support.server import Server, Servers, clean_environment
from tests.support.upstream import Upstream, in_background

# The variation that each collected test needs, in the order of the tests.
_variations = pytest.StashKey[dict[pytest.Item, Variation]]()


def pytest_configure(config: pytest.Config) -> None:
    """Register the marks."""
    for mark in (
        "providers(configs): more passthrough providers in the test's server",
        "server(run_yaml, **variation): how the test's server differs from run.yaml",
        "own_processes: starts processes that are slow while servers boot",
    ):
        config.addinivalue_line("markers", mark)


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave out the files that are not for the installed server."""
    if IS_OGX:
        return is_ignored_on_ogx(collection_path) or None
    return collection_path.name == "test_ogx.py" or None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run tests without a server first, while the servers boot.

    Those that start other processes come last, when all servers have booted.
    """
    items.sort(key=_needs_server)
    items.sort(key=lambda item: item.get_closest_marker("own_processes") is not None)
    if IS_OGX:
        skip_on_ogx(items)


def _needs_server(item: pytest.Item) -> bool:
    return "server" in getattr(item, "fixturenames", ())


def pytest_collection_finish(session: pytest.Session) -> None:
    """Collect the variations that the tests need."""
    variations = session.config.stash[_variations] = {}
    shared: dict[str, Any] = {}
    items = [
        item
        for item in session.items
        if _needs_server(item) and not item.get_closest_marker("skip")
    ]
    for item in items:
        marks = item.iter_markers("providers")
        added = {name: each for mark in marks for name, each in mark.args[0].items()}
        if mark := item.get_closest_marker("server"):
            variation = Variation(*mark.args, **mark.kwargs)
            variations[item] = replace(variation, providers=variation.providers | added)
        else:
            for name, config in added.items():
                assert shared.setdefault(name, config) == config, name
            variations[item] = Variation(providers=shared if added else {})


@pytest.fixture(autouse=True)
def clean_environ(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove this machine's keys, proxies and settings from every test."""
    for name in os.environ.keys() - clean_environment().keys():
        monkeypatch.delenv(name)


@pytest.fixture
def only_caplog(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replace the handlers that tests of the log have installed."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [caplog.handler])


@pytest.fixture(scope="session")
def running_upstream() -> Iterator[Upstream]:
    """The mock of the whole session; tests use `upstream`."""
    with in_background() as running:
        yield running


@pytest.fixture
def upstream(running_upstream: Upstream) -> Iterator[Upstream]:
    """The mock without requests or scripts; an exception in a script fails the test."""
    running_upstream.reset()
    yield running_upstream
    errors = [error for vendor in running_upstream.vendors for error in vendor.errors]
    running_upstream.reset()
    assert errors == []


@pytest.fixture
def collector(running_upstream: Upstream) -> Collector:
    return Collector(running_upstream)


@pytest.fixture(scope="session")
def network(
    running_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Network]:
    """The mock behind TLS and a proxy, a certificate authority, unreachable ports."""
    with ExitStack() as stack:
        yield Network(tmp_path_factory.mktemp("network"), running_upstream, stack)


@pytest.fixture(scope="session")
def servers(
    network: Network,
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Servers]:
    """The shared servers; those that the tests need start booting in the background."""
    servers = Servers(tmp_path_factory.mktemp("servers"), network.env)
    for variation in request.config.stash[_variations].values():
        servers.boot(variation)
    yield servers
    servers.close()


@pytest.fixture(autouse=True, scope="session")
def _booting(request: pytest.FixtureRequest) -> None:
    """Begin to boot before the first test that waits for a server."""
    if request.config.stash[_variations]:
        request.getfixturevalue("servers")


@pytest.fixture
def server(servers: Servers, request: pytest.FixtureRequest) -> Server:
    """The shared server that the test's marks ask for; never stop it."""
    return servers.get(request.config.stash[_variations][request.node])


@pytest.fixture
def client(server: Server) -> httpx.Client:
    """An HTTP client for `server`, without a key."""
    return server.client
