"""A start that goes well: start lines, and independence from its environment."""

import asyncio
import json
import logging
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from unittest.mock import Mock

import httpx
import pytest
import uvicorn

from lls_openai.server import lifecycle
from lls_openai.server.command import run
from lls_openai.server.config_check import read_run_yaml
from lls_openai.server.ogx import remove_resolved_config
from lls_openai.stack import DISTRIBUTION
from tests.support.http import MODELS, bearer
from tests.support.run_yaml import PROVIDERS, RUN_YAML, UNDER_NOHUP, VARIABLE
from tests.support.server import Server

UPSTREAMS = ["OPENAI_UPSTREAM_URL", "GEMINI_UPSTREAM_URL", "ANTHROPIC_UPSTREAM_URL"]
# The stock provider asks its upstream for models at the start, and logs the failure.
REFUSED = dict.fromkeys(UPSTREAMS, "http://127.0.0.1:9")


def test_version_option_prints_both_versions(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["lls-openai", "--version"])
    with pytest.raises(SystemExit):
        run()

    own, stack = version("lls-openai"), version(DISTRIBUTION)
    assert capfd.readouterr().out == f"lls-openai {own}, {DISTRIBUTION} {stack}\n"


@pytest.mark.server(
    as_module=True, cwd=Path("/"), env=REFUSED | {"HOME": "/dev/null/none"}
)
def test_starts_without_home_or_upstream_and_announces_itself_in_json(
    server: Server, client: httpx.Client
) -> None:
    listed = client.get(MODELS).json()["data"]

    assert len(listed) == 5
    server.wait_log_line("API key")
    entries = [json.loads(line) for line in server.log.splitlines()]
    assert {entry["level"] for entry in entries} == {"info"}
    for entry in entries:
        assert {"event", "level", "logger", "timestamp"} <= entry.keys()
    url = f"{server.url}/v1"
    start = f"lls-openai {version('lls-openai')} at {url} (5 models)"
    events = [e["event"] for e in entries if e["logger"] != "lls_openai.access"]
    assert events[0] == start
    assert "API key" in events[1]


@UNDER_NOHUP
def test_start_lines_in_text_fit_80_columns(server: Server) -> None:
    """The log remains when another test has stopped this server."""
    second = server.wait_log_line("API key")
    first = server.wait_log_line("(5 models, 2 workers)")
    assert [line for line in (first, second) if len(line) > 80] == []


def test_start_needs_no_directory_for_temporary_files(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A read-only container has none; `make deploy` starts one."""
    monkeypatch.setattr(tempfile, "gettempdir", Mock(side_effect=FileNotFoundError))
    monkeypatch.setenv(f"{VARIABLE}_CONFIG", str(RUN_YAML))

    remove_resolved_config()


# Llama Stack reads its own configuration through a field that it calls deprecated.
@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
def test_start_lines_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """The server calls back every 30 s."""
    caplog.set_level(logging.INFO, "lls_openai")
    server = uvicorn.Server(uvicorn.Config("", log_config=None))
    lifecycle.announce_once(server, read_run_yaml(RUN_YAML))

    for _ in range(2):
        if callback := server.config.callback_notify:
            asyncio.run(asyncio.wait_for(callback(), 1))

    lines = [line for line in caplog.messages if "http://" in line]
    assert len(lines) == 1


STOCK = [{"provider_id": name, "module": None} for name in PROVIDERS]


@pytest.mark.server({"providers": {"inference": STOCK}}, env=REFUSED)
def test_starts_on_the_stock_provider(server: Server, client: httpx.Client) -> None:
    """run.yaml serves without the `module:` lines, too."""
    listed = client.get(MODELS, headers=bearer())

    assert "openai/gpt-4o" in {each["id"] for each in listed.json()["data"]}
    assert "lls_openai" not in server.log
