"""`make server`, as docs/operating.md and docs/models.md describe it."""

import re
import shutil
import time
from pathlib import Path

import httpx
import pytest
import yaml

from tests.support import docs
from tests.support.http import KEYS, RawConnection
from tests.support.network import Network
from tests.support.server import free_port
from tests.support.upstream import Upstream

pytestmark = pytest.mark.own_processes
SECTIONS = {"Host and port", "TLS", "Another model", "Another vendor"}


def test_make_server_serves_over_tls_with_another_model_and_vendor(
    network: Network, upstream: Upstream, tmp_path: Path
) -> None:
    """An idle TLS connection does not delay the shutdown by Ctrl-C."""
    clone, port = docs.Clone(tmp_path), free_port()
    shutil.copy(network.env["CERT_FILE"], clone.path / "server.pem")
    shutil.copy(network.env["KEY_FILE"], clone.path / "server-key.pem")
    shutil.copy(network.env["CA_FILE"], clone.path / "ca.pem")
    (clone.path / "run.yaml").write_text(yaml.safe_dump(docs.run_yaml_with(SECTIONS)))
    (start,), (call,) = docs.snippets("Host and port", "sh"), docs.snippets("TLS", "sh")
    url = f"https://127.0.0.1:{port}"
    env = upstream.environment | {"MISTRAL_UPSTREAM_URL": f"{upstream.openai.url}/v1"}
    keys = {"MISTRAL_API_KEY": KEYS["openai"], "OPENAI_API_KEY": KEYS["openai"]}

    with clone.running(start.replace("8400", str(port)), port, **env):
        status, output = clone.run(call.replace("https://localhost:8321", url), **keys)
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(url.replace("https", "http"), trust_env=False)
        idle = RawConnection(port, tls=network.client_context)
        interrupted = time.monotonic()

    with idle:
        assert idle.is_closed_within()
    assert time.monotonic() - interrupted < 8
    assert status == 0, output
    called = re.findall(r"(?m)^(\S+/\S+) +ok +ok ", output)
    assert {"openai/gpt-5.6-luna", "mistral/mistral-small-latest"} < {*called}
    assert f"at https://0.0.0.0:{port}/v1 " in clone.output()
    assert "Traceback" not in clone.output()
