"""Several workers, on every interface, with the log as it is without a terminal."""

import json
import re
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.calls import call, chat
from tests.operating import lines
from tests.server import Server
from tests.upstream import Upstream

SECTIONS = ("Several workers", "Another port, another interface")
SECONDS = 60


@pytest.fixture(scope="module")
def reachable(
    running_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """The server, once both workers are there."""
    directory = tmp_path_factory.mktemp("reachable")
    config = lines.run_yaml(directory, SECTIONS)
    variables = running_upstream.environment
    with Server(directory, run_yaml=config, variables=variables) as running:
        _wait_for_workers(running)
        yield running


def test_two_workers_serve(reachable: Server) -> None:
    """Each has said which process it is."""
    assert len(_workers(reachable)) == 2


def test_other_interfaces_are_open(reachable: Server, http: httpx.Client) -> None:
    """It answers at another address of this machine than the usual one."""
    url = f"http://127.0.0.2:{reachable.port}"
    assert http.get(f"{url}/v1/health").status_code == 200


def test_workers_relay(
    reachable: Server, upstream: Upstream, http: httpx.Client
) -> None:
    """Calls go through, whichever worker takes them."""
    statuses = [call(http, reachable.url, chat()).status for _ in range(8)]
    assert (statuses, len(upstream.openai.calls)) == ([200] * 8, 8)


def test_a_request_is_a_line_of_json(reachable: Server, http: httpx.Client) -> None:
    """Without a terminal and without any setting."""
    http.get(f"{reachable.url}/v1/models/of-this-test")
    line = _line_with(reachable, "of-this-test")
    told = {name: line[name] for name in ("method", "path", "status")}
    expected = {"method": "GET", "path": "/v1/models/of-this-test", "status": 404}
    assert expected == told


def _workers(server: Server) -> set[str]:
    return set(re.findall(r"Started server process \[(\d+)\]", server.log))


def _wait_for_workers(server: Server) -> None:
    deadline = time.monotonic() + SECONDS
    while server.log.count("Application startup complete") < 2:
        if time.monotonic() > deadline:
            raise TimeoutError(server.log)
        time.sleep(0.05)


def _line_with(server: Server, text: str) -> dict[str, object]:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        for line in server.log.splitlines():
            if text in line:
                parsed: dict[str, object] = json.loads(line)
                return parsed
        time.sleep(0.05)
    raise TimeoutError(server.log)
