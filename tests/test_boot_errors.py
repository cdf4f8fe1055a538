"""An error during the boot ends it with one line, whichever part finds the error."""

import asyncio
import os
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from pydantic import ValidationError

from lls_openai.provider import get_adapter_impl
from lls_openai.server.config_check import abort_startup
from lls_openai.server.log_writer import STANDARD_ERROR
from lls_openai.settings import ProviderConfig
from tests.support.run_yaml import RUN_YAML, VARIABLE, Variation
from tests.support.server import Server, Servers, clean_environment

pytestmark = pytest.mark.own_processes
# Llama Stack needs longer on a busy machine.
BOOT_SECONDS = 90


def test_authority_that_cannot_be_read_is_reported_with_its_upstream(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "_exit", sys.exit)
    network = {"tls": {"verify": str(RUN_YAML)}}
    config = ProviderConfig(base_url="https://vendor.test", network=network)

    with pytest.raises(SystemExit):
        asyncio.run(get_adapter_impl(config, {}))

    line = capfd.readouterr().err
    assert "lls-openai: invalid `network` settings for https://vendor.test/: " in line


def test_waiting_log_lines_are_written_before_the_process_is_aborted(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "_exit", sys.exit)
    STANDARD_ERROR.write(b"a cause\n")

    with pytest.raises(SystemExit):
        abort_startup("a consequence")

    assert capfd.readouterr().err == "a cause\nlls-openai: a consequence\n"


def test_validation_error_of_settings_hides_a_password() -> None:
    with pytest.raises(ValidationError) as error:
        ProviderConfig(base_url="https://somebody:secret@vendor.test")

    assert "secret" not in str(error.value)


failing = partial(pytest.mark.server, serves=False)
UNKNOWN_TYPE = {"provider_id": "a", "provider_type": "remote::no", "config": {}}


@pytest.mark.parametrize(
    "reason",
    [
        # Llama Stack would listen on every interface.
        pytest.param(
            "server.hostt: unknown key",
            marks=failing({"server": {"hostt": "x"}}),
            id="unknown-key",
        ),
        pytest.param(
            "remote::no",
            marks=failing({"providers": {"inference": [UNKNOWN_TYPE]}}, as_module=True),
            id="unknown-provider-type",
        ),
    ],
)
def test_error_during_boot_ends_with_one_line_and_status_3(
    server: Server, reason: str
) -> None:
    """By `llama stack run` itself, or where only Llama Stack can find it."""
    assert server.wait_exit(BOOT_SECONDS) == 3
    (line,) = [x for x in server.log.splitlines() if "lls-openai: " in x]
    assert reason in line


def test_port_in_use_ends_llama_stack_run_with_its_reason(servers: Servers) -> None:
    with socket.create_server(("127.0.0.1", 0)) as used:
        port = used.getsockname()[1]
        server = servers.start(Variation(), port, ready=False)
        assert server.wait_exit(BOOT_SECONDS) == 3

    (line,) = [x for x in server.log.splitlines() if "lls-openai: " in x]
    assert f"127.0.0.1:{port}: Address already in use; change {VARIABLE}_PORT" in line


# The library that a process loads while it imports Llama Stack, and afterwards.
@pytest.mark.parametrize("library", ["pydantic_core", "uvloop"])
def test_ctrl_c_while_booting_ends_with_one_line(library: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "lls_openai", str(RUN_YAML), "--port", "28329"],
        env=clean_environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        maps = Path(f"/proc/{process.pid}/maps")
        while library not in maps.read_text():
            assert process.poll() is None
        process.send_signal(2)
        _, output = process.communicate(timeout=BOOT_SECONDS)

    assert output == "lls-openai: interrupted before startup\n"
    assert process.returncode == 130
