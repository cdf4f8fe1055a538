"""OGX alone: its command line, and what is done about its own behaviour."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.http import (
    CHAT,
    HEADERS_WITHOUT_KEY,
    HEALTH_REQUEST,
    KEYS,
    MODELS,
    RawConnection,
    bearer,
    chat,
    eventually,
    exchange,
    request,
)
from tests.support.network import Network
from tests.support.run_yaml import RUN_YAML
from tests.support.server import Server, clean_environment, free_port, listens
from tests.support.upstream import Upstream

PASSWORD = "pr0xypassw0rd"  # noqa: S105 - made up
NETWORK = {"proxy": {"url": f"http://user:{PASSWORD}@127.0.0.1:9"}}


@pytest.fixture
def port(upstream: Upstream, tmp_path: Path) -> Iterator[int]:
    """The port of `ogx run --insecure run.yaml`."""
    port = free_port()
    ogx = str(Path(sys.executable).with_name("ogx"))
    own = {"TMPDIR": str(tmp_path), "HOME": str(tmp_path / "home")}
    with subprocess.Popen(
        [ogx, "run", "--insecure", "--port", str(port), str(RUN_YAML)],
        env=clean_environment() | upstream.environment | own,
        stderr=subprocess.DEVNULL,
    ) as process:
        eventually(lambda: listens(port), "OGX listens", 60)
        yield port
        process.terminate()
        assert process.wait(15) == 0


def test_ogx_run_serves_the_relay_and_leaves_no_copy_of_run_yaml(
    port: int, upstream: Upstream, tmp_path: Path
) -> None:
    """The copy has the values of the environment's variables in it."""
    url = f"http://127.0.0.1:{port}"
    response = httpx.post(url + CHAT, json=chat(), headers=bearer(), trust_env=False)

    assert response.status_code == 200
    assert upstream.openai.request.key == KEYS["openai"]
    assert [*tmp_path.glob("ogx-run-*")] == []


def test_zstd_body_is_not_unpacked(server: Server) -> None:
    bomb = b"\x28\xb5\x2f\xfd" + bytes(1_000_000)
    encoding = b"Content-Encoding: zstd"
    grown = server.measure_growth()
    sent = request(b"POST", CHAT, encoding, body=bomb)

    response = exchange(server.port, sent)

    assert response.status_and_code == (415, "unsupported_content_encoding")
    assert grown() < 5_000_000


def test_zstd_body_without_a_key_is_rejected_as_any_other(server: Server) -> None:
    encoding = b"Content-Encoding: zstd"
    sent = request(b"POST", CHAT, encoding, body=b"a", headers=HEADERS_WITHOUT_KEY)

    assert exchange(server.port, sent).status == 401


@pytest.mark.server(
    {"logging_config": {"category_levels": {"all": "debug"}}},
    providers={"openai": {"network": NETWORK}},
    env={"OGX_LOGGING": "all=debug"},
)
def test_proxy_password_is_not_logged(server: Server, client: httpx.Client) -> None:
    assert client.get(MODELS).status_code == 200

    assert "debug" in server.log
    assert PASSWORD not in server.log


@pytest.mark.server(
    {"server": {"tls_certfile": "${env.CERT_FILE}", "tls_keyfile": "${env.KEY_FILE}"}}
)
def test_tls_needs_no_option_of_the_command(server: Server, network: Network) -> None:
    with RawConnection(server.port, tls=network.client_context) as client:
        client.send(HEALTH_REQUEST)

        assert client.read_response().status == 200


@pytest.mark.server(
    {"server": {"cors": True, "quota": {"period": "day"}}}, serves=False
)
def test_block_that_ogx_lacks_is_reported_at_the_start(server: Server) -> None:
    assert server.wait_exit(60) == 3
    assert "server.cors: unknown key" in server.log
    assert "server.quota: unknown key" in server.log


def test_listed_models_are_owned_by_ogx(client: httpx.Client) -> None:
    listed = client.get(MODELS).json()["data"][0]
    single = client.get(f"{MODELS}/{listed['id']}").json()

    assert (listed["owned_by"], single["owned_by"]) == ("ogx", "ogx")
