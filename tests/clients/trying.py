"""One client tried: what has to come of each column, and what the vendor has to see."""

import os
import re
import time
from typing import Any, NamedTuple

from tests.clients import PROMPT
from tests.clients.drivers import Call, Env
from tests.clients.installing import FailedError, Installed, run
from tests.clients.listing import CHATS, MESSAGES, RESPONDS, Client
from tests.support.server import clean_environment
from tests.support.upstream import Upstream
from tests.support.vendors import BREAKING, KEYS
from tests.support.wire import JSON, Request, answer

_SNIPPET_SECONDS = 120
_PROGRAMS = {"python": "python", "js": "node", "sh": "sh", "java": "java"}
_SUFFIXES = {"python": "py", "js": "mjs", "sh": "sh", "java": "java"}
# What the mock does not have on a route.
_ABSENT = {RESPONDS: ("gemini",), MESSAGES: ("gemini", "schema")}
# A client counts the second of Retry-After by its own clock's ticks.
_ALMOST_A_SECOND = 0.95


class Cell(NamedTuple):
    """What came of a column: ok, FAIL, no for a limit of the client, - for no such."""

    outcome: str
    detail: str = ""


def environment(installed: Installed, address: str, name: str) -> Env:
    """What a user has exported, and what keeps clients from calling home."""
    return clean_environment() | {
        "HOME": str(installed.directory),
        "TMPDIR": str(installed.directory),
        "PATH": f"{installed.programs}{os.pathsep}{os.environ['PATH']}",
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


class Trial:
    """The columns of one client's row: a method for each raises what is wrong."""

    def __init__(self, client: Client, call: Call | None, upstream: Upstream) -> None:
        """Try a client against the server of an upstream."""
        self._client, self._driver, self._upstream = client, call, upstream
        self._paths, self._models_there = client.route
        self._first = self._models_there[0]
        self._seen: list[Request] = []

    def cell(self, column: str) -> Cell:
        """Try one column."""
        if not self._driver or column in _ABSENT.get(self._client.route, ()):
            return Cell("-")
        limit = self._client.limit(column)
        told = f"{self._client.name} {column}: "
        try:
            getattr(self, f"_{column}")()
        except (AssertionError, FailedError, LookupError, TypeError, ValueError) as e:
            shown = " ".join(f"{told}{type(e).__name__}: {e}".split())[:500]
            return Cell("no", limit) if limit else Cell("FAIL", shown)
        told += "works, but docs/clients.md has it as a limit"
        return Cell("FAIL", told) if limit else Cell("ok")

    def _call(self, method: str, model: str, key: str = "") -> Any:  # noqa: ANN401
        assert self._driver
        key = key or _key(model.partition("/")[0], self._client.name)
        try:
            return self._driver(key, method, model)
        finally:
            vendors = self._upstream.vendors
            self._seen = [seen for each in vendors for seen in each.requests]
            self._upstream.reset()
            keys = {seen.header("x-api-key") or seen.key for seen in self._seen}
            assert keys <= {key}, f"sent with {keys}"
            paths = {re.sub(r".*?(/openai|/v1)/", "/v1/", s.path) for s in self._seen}
            assert paths <= {*self._paths}, f"called {paths}"

    def _asked(self, method: str, model: str, *, stream: bool) -> None:
        value = self._call(method, model)
        pieces = [piece for piece in value if piece] if isinstance(value, list) else []
        assert len(pieces) != 1, f"not in pieces: {value}"
        # An agent whose tool the mock has called has read its result.
        said = f"heard: {PROMPT}$" if pieces else "(heard|read): "
        text = "".join(pieces) or value
        assert re.search(f"{_bare(model)} {said}", text), text
        assert PROMPT.encode() in self._seen[0].body
        streams = {bool(seen.json.get("stream")) for seen in self._seen}
        assert streams == {stream}, f"streamed: {streams}"

    def _models(self) -> None:
        missing = {*CHATS.models} - {*self._call("models", self._first)}
        assert not missing, f"not listed: {missing}"

    def _regular(self) -> None:
        for model in self._models_there:
            self._asked("regular", model, stream=False)

    def _streamed(self) -> None:
        for model in self._models_there:
            self._asked("streamed", model, stream=True)

    def _tools(self) -> None:
        for model in self._models_there:
            if not model.startswith("gemini/"):
                self._two_turns(model)

    def _gemini(self) -> None:
        self._two_turns("gemini/gemini-2.5-flash-lite")

    def _two_turns(self, model: str) -> None:
        text = self._call("tools", model)
        assert f"{_bare(model)} read: " in text, text
        assert len(self._seen) == 2, f"{len(self._seen)} requests"

    def _schema(self) -> None:
        value = self._call("schema", self._first)
        assert value == {"name": "Paris", "people": 7}, value

    def _error(self) -> None:
        codes = "invalid_api_key", "model_not_found"
        if self._client.route is MESSAGES:
            codes = "authentication_error", "not_found_error"
        self._fails(self._first, "wrong-key", "401", codes[0])
        self._fails("nobody/gpt-4o", "", "404", codes[1])

    def _broken(self) -> None:
        model = f"{self._first.partition('/')[0]}/{BREAKING}"
        self._fails(model, "", "closed the connection before its answer")

    def _fails(self, model: str, key: str, *told: str) -> None:
        try:
            shown = f"no error: {self._call('streamed', model, key)}"
        except FailedError as error:
            shown = str(error)
        missing = [each for each in told if each not in shown]
        assert not missing, f"{missing} not told: {shown}"

    def _retry(self) -> None:
        error = b'{"error": {"message": "busy", "type": "rate_limit_error"}}'
        for vendor in self._upstream.vendors:
            vendor.script(answer(error, 429, {**JSON, "retry-after": "1"}))
        begin = time.monotonic()
        self._asked("streamed", self._first, stream=True)
        assert len(self._seen) >= 2, "not tried again"
        assert time.monotonic() - begin > _ALMOST_A_SECOND, "too early"

    def _id(self) -> None:
        value = str(self._call("id", self._first))
        assert value.startswith("req_"), value


def show(client: Client, installed: Installed, env: Env) -> Cell:
    """Run the blocks of code in the client's section of the page as they stand."""
    for number, (language, text) in enumerate(client.snippets):
        # Beside its packages, where Node looks for them, and where a user has it.
        file = installed.directory / f"snippet{number}.{_SUFFIXES[language]}"
        file.write_text(text)
        command = [_PROGRAMS[language], str(file)]
        try:
            output = run(command, installed.directory, env, "", _SNIPPET_SECONDS)
        except FailedError as error:
            return Cell("FAIL", f"{client.name} snippet: {error}"[:500])
        if not re.search(" (heard|read): ", output):
            return Cell("FAIL", f"{client.name} snippet: printed {output[:500]!r}")
    return Cell("ok")


def _bare(model: str) -> str:
    """The vendor's name for a model."""
    return model.partition("/")[2]
