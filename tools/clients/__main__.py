"""Clients that others wrote, driven against the real server.

`make clients`, or `python -m tools.clients [CLIENT ...]` in the project's folder. Each
is installed into a temporary directory: no other part of the tests needs a registry.
"""

import os
import re
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tests.support.http import GEMINI_MODEL, KEYS
from tests.support.run_yaml import Variation
from tests.support.server import Servers, clean_environment
from tests.support.upstream import Upstream, in_background
from tests.support.wire import JSON, Request, respond
from tools.cli import exit_on_signals
from tools.clients.drivers import Call, Env, FailedError, run
from tools.clients.listing import CHATS, CLIENTS, TALKS, Client
from tools.clients.sdks import PROMPT
from tools.mock.vendors import BREAKING, DIALECTS

COLUMNS = ["snippet", "models", "streamed", "tools", "gemini"]
COLUMNS += ["error", "broken", "retry", "id"]
# The command of a language, and the ending of its files.
_LANGUAGES = {"python": "py", "node": "mjs", "sh": "sh", "java": "java"}
say = partial(print, flush=True)
line = ("{:20}{:10}" + "{:10}" * len(COLUMNS)).format


def environment(directory: Path, address: str, name: str) -> Env:
    """What a user has exported, and what keeps clients from calling home."""
    programs = directory / "bin", directory / "node_modules/.bin", os.environ["PATH"]
    return clean_environment() | {
        "HOME": str(directory),
        "TMPDIR": str(directory),
        "PATH": os.pathsep.join(map(str, programs)),
        "OPENAI_BASE_URL": f"{address}/v1",
        "ANTHROPIC_BASE_URL": address,
        **{f"{vendor.upper()}_API_KEY": _key(vendor, name) for vendor in KEYS},
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "CLAUDE_CODE_MAX_RETRIES": "1",
        "OPENAI_AGENTS_DISABLE_TRACING": "1",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "AIDER_ANALYTICS_DISABLE": "true",
        "AIDER_CHECK_UPDATE": "false",
        # What has no setting for that finds a proxy that is not there.
        **dict.fromkeys(("HTTPS_PROXY", "https_proxy"), "http://127.0.0.1:9"),
        **dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost"),
    }


def _key(vendor: str, name: str) -> str:
    """A right key of the vendor that no other client sends."""
    return f"{KEYS.get(vendor, KEYS['openai'])}-{name}"


@dataclass
class Trial:
    """The columns of one client's row: a method for each raises what is wrong."""

    client: Client
    directory: Path
    env: Env
    # None: there is no more than the snippet.
    driver: Call | None
    upstream: Upstream
    seen: list[Request] = field(default_factory=list)
    # What is wrong in the cells that are FAIL.
    wrong: list[str] = field(default_factory=list)

    def cell(self, column: str) -> str:
        """Try one column: ok, FAIL, no for a limit of the client, - for no such."""
        is_there = self.driver or column == "snippet"
        if not is_there or (column == "gemini" and self.client.route is not CHATS):
            return "-"
        has_limit, shown = self.client.has_limit(column), ""
        try:
            getattr(self, f"_{column}")()
        except Exception as error:  # noqa: BLE001 - whatever it is, the cell tells it
            shown = " ".join(f"{type(error).__name__}: {error}".split())[:500]
        if bool(shown) == has_limit:
            return "no" if has_limit else "ok"
        self.wrong.append(f"{column}: {shown or 'docs/clients.md has it as a limit'}")
        return "FAIL"

    def _snippet(self) -> None:
        # Beside its packages, where Node looks for them, and where a user has it.
        for program, ending in _LANGUAGES.items():
            for text in self.client.snippets("js" if program == "node" else program):
                (file := self.directory / f"snippet.{ending}").write_text(text)
                output = run([program, str(file)], self.directory, self.env)
                assert re.search(" (heard|read): ", output), f"printed {output!r}"
        self.upstream.reset()

    def _call(self, method: str, model: str, key: str = "") -> Any:  # noqa: ANN401
        assert self.driver
        key = key or _key(model.partition("/")[0], self.client.name)
        try:
            return self.driver(key, method, model)
        finally:
            self.seen = [seen for v in self.upstream.vendors for seen in v.requests]
            self.upstream.reset()
            keys = {seen.header("x-api-key") or seen.key for seen in self.seen}
            assert keys <= {key}, f"sent with {keys}"
            paths = {re.sub(r".*?(/openai|/v1)/", "/v1/", s.path) for s in self.seen}
            assert paths <= {*self.client.route.paths}, f"called {paths}"

    def _models(self) -> None:
        missing = {*CHATS.models} - {*self._call("models", "openai/gpt-4o")}
        assert not missing, f"not listed: {missing}"

    def _streamed(self) -> None:
        for model in self.client.route.models:
            self._stream(model)

    def _stream(self, model: str) -> None:
        value = self._call("streamed", model)
        parts = [part for part in value if part] if isinstance(value, list) else []
        assert len(parts) != 1, f"not in pieces: {value}"
        # An agent whose tool the mock has called has read its result.
        said = f"heard: {PROMPT}$" if parts else "(heard|read): "
        text = "".join(parts) or value
        assert re.search(f"{model.partition('/')[2]} {said}", text), text
        assert PROMPT.encode() in self.seen[0].body
        assert all(seen.json["stream"] for seen in self.seen)

    def _tools(self) -> None:
        for model in {*self.client.route.models} - {GEMINI_MODEL}:
            self._two_turns(model)

    def _gemini(self) -> None:
        self._two_turns(GEMINI_MODEL)

    def _two_turns(self, model: str) -> None:
        text = self._call("tools", model)
        assert f"{model.partition('/')[2]} read: " in text, text
        assert len(self.seen) == 2, f"{len(self.seen)} requests"

    def _error(self) -> None:
        wrong, unknown = "invalid_api_key", "model_not_found"
        if self.client.route is TALKS:
            wrong, unknown = "authentication_error", "not_found_error"
        self._fails(self.client.route.models[0], "wrong-key", "401", wrong)
        self._fails("nobody/gpt-4o", "", "404", unknown)

    def _broken(self) -> None:
        vendor = self.client.route.models[0].partition("/")[0]
        told = "closed the connection after"
        self._fails(f"{vendor}/{BREAKING}", "", told)

    def _fails(self, model: str, key: str, *told: str) -> None:
        try:
            shown = f"no error: {self._call('streamed', model, key)}"
        except FailedError as error:
            shown = str(error)
        missing = [each for each in told if each not in shown]
        assert not missing, f"{missing} not told: {shown}"

    def _retry(self) -> None:
        error = b'{"error": {"message": "busy", "type": "rate_limit_error"}}'
        refused = list[float]()

        def refuse(_: Request) -> bytes:
            refused.append(time.monotonic())
            return respond(error, 429, {**JSON, "retry-after": "1"})

        for vendor in self.upstream.vendors:
            vendor.script(refuse)
        self._stream(self.client.route.models[0])
        assert len(self.seen) >= 2, "not tried again"
        # A client counts the second by its own clock's ticks.
        assert time.monotonic() - refused[0] > 0.95, "too early"

    def _id(self) -> None:
        value = str(self._call("id", self.client.route.models[0]))
        assert value.startswith("req_"), value


def is_fine(client: Client, directory: Path, upstream: Upstream, address: str) -> bool:
    """Install one client, try it, and print its row: whether all in it works."""
    version, cells, wrong = "-", ["FAIL"] * len(COLUMNS), []
    try:
        version = client.install(client.package, directory)
        env = environment(directory, address, client.name)
        call = client.driver and client.driver(directory, env, client.detail)
        trial = Trial(client, directory, env, call, upstream)
        # The snippet first: what it configures is what the calls use.
        cells, wrong = [*map(trial.cell, COLUMNS)], trial.wrong
    except FileNotFoundError as error:
        cells, wrong = ["-"] * len(COLUMNS), [f"{error.filename} is not installed here"]
    except FailedError as error:
        wrong = [str(error)]
    say(line(client.name, version, *cells), *wrong, sep="\n  ")
    return "FAIL" not in cells


def main() -> int:
    """Drive the clients that are named, or all: 1 when one fails that should work."""
    known = {client.name: client for client in CLIENTS}
    names = sys.argv[1:] or list(known)
    if not known.keys() >= {*names}:
        sys.exit(f"python -m tools.clients [CLIENT ...], of: {', '.join(known)}")
    exit_on_signals()
    with (
        tempfile.TemporaryDirectory() as temporary,
        in_background(**DIALECTS) as upstream,
        closing(Servers(Path(temporary), upstream.environment)) as servers,
    ):
        server = servers.start(Variation())
        say(line("client", "version", *COLUMNS))
        fine = []
        for name in names:
            (directory := Path(temporary, name)).mkdir()
            fine.append(is_fine(known[name], directory, upstream, server.url))
        return int(not all(fine))


if __name__ == "__main__":
    sys.exit(main())
