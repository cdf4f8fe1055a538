"""Fixtures: a clean environment, the mock upstream, and the servers tests share.

A test says by marks on which variation of run.yaml its `server` runs::

    @pytest.mark.providers({"small": {"max_request_bytes": 1000}})
    @pytest.mark.server({"server": {"cors": True}}, env={"LLS_WORKERS": "2"})

What tests ask for by `providers` alone stands in one server that they share.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import httpx
import pytest

from tests.support.launcher import MODULES, Launcher
from tests.support.network import Network
from tests.support.server import Server, Servers, Variation, clean_environment
from tests.support.upstream import Upstream, in_background

# What the marks of all collected tests ask for, in the order of the tests.
_variations = pytest.StashKey[dict[pytest.Item, Variation]]()
_launcher = pytest.StashKey[Launcher]()


def pytest_configure(config: pytest.Config) -> None:
    """Register the marks, and have Llama Stack's packages imported meanwhile."""
    for mark in (
        "providers(configs): further passthrough providers of the test's server",
        "server(run_yaml, **variation): how the test's server differs from run.yaml",
    ):
        config.addinivalue_line("markers", mark)
    config.stash[_launcher] = Launcher(MODULES)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Find out which servers are needed."""
    variations = session.config.stash[_variations] = {}
    shared: dict[str, Any] = {}
    items = [i for i in session.items if "server" in getattr(i, "fixturenames", ())]
    for item in items:
        marks = item.iter_markers("providers")
        added = {name: each for mark in marks for name, each in mark.args[0].items()}
        if own := item.get_closest_marker("server"):
            asked = Variation(*own.args, **own.kwargs)
            variations[item] = replace(asked, providers=asked.providers | added)
        else:
            for name, config in added.items():
                assert shared.setdefault(name, config) == config, name
            variations[item] = Variation(providers=shared if added else {})


@pytest.fixture(autouse=True)
def clean_environ(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove keys, proxies and settings of this machine from every test."""
    for name in os.environ.keys() - clean_environment().keys():
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def running_upstream() -> Iterator[Upstream]:
    """The mock of the whole session; tests take `upstream`."""
    with in_background() as running:
        yield running


@pytest.fixture
def upstream(running_upstream: Upstream) -> Iterator[Upstream]:
    """The mock, with nothing recorded and no script; a script that raises fails."""
    running_upstream.reset()
    yield running_upstream
    faults = [fault for vendor in running_upstream.vendors for fault in vendor.faults]
    running_upstream.reset()
    assert faults == []


@pytest.fixture(scope="session")
def network(
    running_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Network]:
    """The mock behind TLS, a proxy, an authority, and ports that do not answer."""
    with ExitStack() as stack:
        yield Network(tmp_path_factory.mktemp("network"), running_upstream, stack)


@pytest.fixture(scope="session")
def servers(
    network: Network,
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Servers]:
    """The shared servers; those that the collected tests need boot in background."""
    directory = tmp_path_factory.mktemp("servers")
    servers = Servers(directory, network.env, request.config.stash[_launcher])
    for variation in request.config.stash[_variations].values():
        servers.boot(variation)
    yield servers
    servers.close()


@pytest.fixture(autouse=True, scope="session")
def _booting(request: pytest.FixtureRequest) -> None:
    """Begin with the boots before the first test that waits for one."""
    if request.config.stash[_variations]:
        request.getfixturevalue("servers")


@pytest.fixture
def server(servers: Servers, request: pytest.FixtureRequest) -> Server:
    """The shared server of this test, as its marks want it; never stop it."""
    return servers.get(request.config.stash[_variations][request.node])


@pytest.fixture
def client(server: Server) -> httpx.Client:
    """An HTTP client bound to `server`; it has no key of its own."""
    return server.client
