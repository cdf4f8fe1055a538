"""The servers that `make bench` compares, each in front of the same upstream."""

import json
import os
import re
import sys
from contextlib import ExitStack
from pathlib import Path
from subprocess import run

from tests.support.run_yaml import PROJECT, RUN_YAML
from tests.support.server import free_port
from tools.bench.load import MEASURES, Target
from tools.cli import log
from tools.servers import BIN, Server, running, upstream_variables

# uv sets UV for the commands that it runs.
_UV, _SECONDS = os.environ.get("UV", "uv"), 600
# A slow server would complete hardly any stream in the usual spans.
_SLOW = (3, 2, 8)

type Command = list[str | Path]


class Targets:
    """Starts servers; `stack` stops them."""

    def __init__(
        self, directory: Path, stack: ExitStack, wrapper: Command | None = None
    ) -> None:
        """Start the upstream.

        Args:
            directory: for temporary files.
            stack: stops the servers.
            wrapper: a command that runs each server but the upstream.
        """
        self._directory, self._stack, self._wrapper = directory, stack, []
        self._upstream = self._start("upstream", _module("upstream"), {})
        self._wrapper = wrapper or []
        self._url = f"http://127.0.0.1:{self._upstream.port}"

    def _start(self, name: str, command: Command, env: dict[str, str]) -> Server:
        log(f"starting {name}")
        return self._stack.enter_context(running(name, self._wrapper + command, env))

    def bare(self) -> Target:
        server = self._start("bare", [*_module("bare"), self._url], {})
        return Target(server, self._upstream, measures=tuple(MEASURES))

    def this(self) -> Target:
        this = self._llama("this", PROJECT, {})
        return this._replace(measures=tuple(MEASURES))

    def two_workers(self, name: str) -> Target:
        target = self._llama(name, PROJECT, {"LLS_WORKERS": "2"})
        return target._replace(measures=("calls",))

    def with_collector(self, name: str) -> Target:
        """Start it with metrics; the upstream is the collector, too."""
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": self._url}
        return self._llama(name, PROJECT, env)._replace(measures=("calls",))

    def ogx(self) -> Target:
        """Start it on OGX, from the environment that `make ogx` installs."""
        port = str(free_port())
        env = {"OGX_PORT": port, "LLAMA_STACK_PORT": port, "OGX_LOG_FORMAT": "text"}
        env |= {"HOME": str(self._directory)} | upstream_variables(self._url)
        python = PROJECT / ".venv-ogx/bin/python"
        server = self._start("this on OGX", [python, "-m", "lls_openai", RUN_YAML], env)
        return Target(server, self._upstream)

    def checkout(self, path: Path) -> Target:
        """Start another checkout of this project, from its .venv where it has one."""
        return self._llama("other checkout", path.resolve(), {})

    def stock(self) -> Target:
        """Start run.yaml without the lines that name this project's provider."""
        text = (PROJECT / "run.yaml").read_text()
        text = re.sub("(?m)^ +module: .*\n", "", text)
        (self._directory / "run.yaml").write_text(text)
        # In text it draws a traceback for seconds each time its database is locked.
        env = {"LLAMA_STACK_LOG_FORMAT": "json"}
        stock = self._llama("stock passthrough", self._directory, env)
        return stock._replace(spans=_SLOW)

    def _llama(self, name: str, checkout: Path, env: dict[str, str]) -> Target:
        llama = checkout / ".venv/bin/llama"
        command: Command = [llama if llama.exists() else BIN / "llama", "stack", "run"]
        env |= {"HOME": str(self._directory), "PYTHONPATH": str(checkout)}
        env |= upstream_variables(self._url)
        server = self._start(name, [*command, checkout / "run.yaml"], env)
        return Target(server, self._upstream)

    def litellm(self) -> Target:
        """Install LiteLLM's proxy and start it; it keeps the upstream's key itself."""
        home = self._directory / "litellm"
        _install(home, [_UV, "venv", "-q", "--python", sys.executable, home])
        pip: Command = [_UV, "pip", "install", "-q", "--python", home / "bin/python"]
        _install(home, [*pip, "litellm[proxy]"])
        # YAML reads JSON.
        params = {"model": "openai/*", "api_base": f"{self._url}/v1", "api_key": "none"}
        models = [{"model_name": "*", "litellm_params": params}]
        (home / "config.yaml").write_text(json.dumps({"model_list": models}))
        command: Command = [home / "bin/litellm", "--config", home / "config.yaml"]
        return self._peer("LiteLLM proxy", [*command, "--host=127.0.0.1"])

    def portkey(self) -> Target:
        """Install Portkey's gateway and start it; requests name the upstream."""
        home = self._directory / "portkey"
        package = "@portkey-ai/gateway"
        _install(home, ["npm", "install", "--no-audit", "--no-fund", package])
        script = home / "node_modules" / package / "build/start-server.js"
        target = self._peer("Portkey gateway", ["node", script, "--headless"])
        host = f"x-portkey-custom-host: {self._url}/v1"
        headers = *target.headers, "x-portkey-provider: openai", host
        return target._replace(headers=headers)

    def _peer(self, name: str, command: Command) -> Target:
        port = str(free_port())
        env = {"HOME": str(self._directory), "LLAMA_STACK_PORT": port}
        env |= {"LITELLM_MASTER_KEY": "bench-key"}
        env |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}
        server = self._start(name, [*command, f"--port={port}"], env)
        return Target(server, self._upstream, model="gpt-4o", spans=_SLOW)


def _module(name: str) -> Command:
    return [sys.executable, "-m", f"tools.bench.{name}"]


def _install(directory: Path, command: Command) -> None:
    log(f"installing into {directory.name}")
    directory.mkdir(exist_ok=True)
    run(command, cwd=directory, check=True, capture_output=True, timeout=_SECONDS)
