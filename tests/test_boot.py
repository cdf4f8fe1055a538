"""How the server starts: alone, anywhere, on loopback, on a sound set of packages."""

import socket
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from packaging.requirements import Requirement

from tests.conftest import StartServer
from tests.server import PROJECT, RUN_YAML, Server
from tests.upstream import Connection, Gate, Request, Upstream, in_background

CHAT = {
    "model": "openai/gpt-4o",
    "messages": [{"role": "user", "content": "hello"}],
}
KEY = {"X-LlamaStack-Provider-Data": '{"passthrough_api_key": "a key"}'}


class Second(NamedTuple):
    """A second server beside the session's, with vendors of its own."""

    server: Server
    upstream: Upstream
    connections_at_boot: list[int]


async def _never(_request: Request, _connection: Connection) -> None:
    await Gate().wait()


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Second]:
    """Started in the root directory, while no vendor answers anything."""
    with in_background() as own:
        for vendor in own.vendors:
            vendor.answer_with(_never)
        directory = tmp_path_factory.mktemp("second")
        with Server(directory, variables=own.environment, work=Path("/")) as running:
            at_boot = [vendor.connections for vendor in own.vendors]
            own.reset()
            yield Second(running, own, at_boot)


def test_no_upstream_is_contacted_at_boot(second: Second) -> None:
    """Without a connection an unreachable upstream cannot hold up the boot."""
    assert second.connections_at_boot == [0, 0, 0]


def test_starts_in_any_directory(second: Second, http: httpx.Client) -> None:
    """Nothing is looked up in the working directory."""
    listed = http.get(f"{second.server.url}/v1/models").json()["data"]

    assert (len(listed), second.server.work) == (5, Path("/"))


def test_two_servers_do_not_disturb_each_other(
    server: Server, upstream: Upstream, second: Second, http: httpx.Client
) -> None:
    """Each reaches its own vendors only."""
    for _ in range(2):
        first = http.post(f"{server.url}/v1/chat/completions", json=CHAT, headers=KEY)
        assert first.status_code == 200
    other = http.post(
        f"{second.server.url}/v1/chat/completions", json=CHAT, headers=KEY
    )
    assert other.status_code == 200

    calls = len(upstream.openai.calls), len(second.upstream.openai.calls)
    assert calls == (2, 1)


def test_listens_on_one_loopback_address(server: Server) -> None:
    """Other addresses of this machine are closed, so none is open to the network."""
    addresses = ("127.0.0.1", "127.0.0.2", "::1")

    assert [_accepts(a, server.port) for a in addresses] == [True, False, False]


def _accepts(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=2).close()
    except OSError:
        return False
    return True


def test_serves_on_the_stock_provider(
    start_server: StartServer,
    upstream: Upstream,
    http: httpx.Client,
    tmp_path: Path,
) -> None:
    """Without the `module:` lines, run.yaml and the locked packages still serve.

    With other packages the stock provider boots, says that it is healthy, and answers
    500 to every chat call: only a call shows it.
    """
    lines = RUN_YAML.read_text().splitlines()
    stock = tmp_path / "run.yaml"
    stock.write_text("\n".join(x for x in lines if "module: lls_openai" not in x[5:]))
    running = start_server(run_yaml=stock)

    answer = http.post(f"{running.url}/v1/chat/completions", json=CHAT, headers=KEY)

    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["message"]["content"] == "gpt-4o heard: hello"
    assert "/v1/models" in {call.path for call in upstream.openai.calls}


def test_installed_packages_keep_to_the_bounds() -> None:
    """What is installed is what pyproject.toml declares to work."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    needed = [Requirement(line) for line in project["dependencies"]]

    violations = {
        str(requirement): metadata.version(requirement.name)
        for requirement in needed
        if requirement.marker is None or requirement.marker.evaluate()
        if metadata.version(requirement.name) not in requirement.specifier
    }
    assert violations == {}
