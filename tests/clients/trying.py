"""One client tried: what has to come of each column, and what the vendor has to see."""

import os
import re
import time
from typing import Any, NamedTuple

from tests.clients import PROMPT, RESULT
from tests.clients.drivers import Call, Env
from tests.clients.installing import FailedError, Installed, run
from tests.clients.listing import OF_CHAT, OF_MESSAGES, OF_RESPONSES, Client
from tests.support.server import clean_environment
from tests.support.upstream import Upstream
from tests.support.vendors import BREAKING, KEYS
from tests.support.wire import JSON, Request, answer

_SNIPPET_SECONDS = 120
_INTERPRETERS = {"python": ["python"], "js": ["node"], "sh": ["sh"], "java": ["java"]}
_SUFFIXES = {"python": "py", "js": "mjs", "sh": "sh", "java": "java"}
# A client counts the second of Retry-After by its own clock's ticks.
_RETRY_AFTER, _TICK = 1, 0.05

# What the mock does not have on a route.
ABSENT = {OF_RESPONSES: ("gemini",), OF_MESSAGES: ("gemini", "schema")}


class Cell(NamedTuple):
    """What came of a column: ok, FAIL, no for a limit of the client, - for no such."""

    outcome: str
    detail: str = ""


def environment(installed: Installed, address: str, name: str) -> Env:
    """What a user has exported, and what keeps clients from calling home."""
    keys = {f"{vendor.upper()}_API_KEY": own_key(vendor, name) for vendor in KEYS}
    nowhere = "http://127.0.0.1:9"
    return clean_environment() | {
        "HOME": str(installed.directory),
        "TMPDIR": str(installed.directory),
        "PATH": f"{installed.programs}{os.pathsep}{os.environ['PATH']}",
        "OPENAI_BASE_URL": f"{address}/v1",
        "ANTHROPIC_BASE_URL": address,
        **keys,
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "CLAUDE_CODE_MAX_RETRIES": "1",
        "OPENAI_AGENTS_DISABLE_TRACING": "1",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "AIDER_ANALYTICS_DISABLE": "true",
        "AIDER_CHECK_UPDATE": "false",
        # What has no setting for that finds a proxy that is not there.
        **{name: nowhere for name in ("HTTPS_PROXY", "https_proxy")},
        **{name: "127.0.0.1,localhost" for name in ("NO_PROXY", "no_proxy")},
    }


def own_key(vendor: str, name: str) -> str:
    """A right key of the vendor that no other client sends."""
    return f"{KEYS[vendor]}-{name}"


class Trial:
    """The columns of one client's row: a method for each raises what is wrong."""

    def __init__(self, client: Client, driver: Call, upstream: Upstream) -> None:
        """Try a driver against the server of an upstream."""
        self._client, self._driver, self._upstream = client, driver, upstream
        self._seen: list[Request] = []

    def cell(self, column: str) -> Cell:
        """Try one column."""
        client = self._client
        if column in ABSENT.get(client.route, ()):
            return Cell("-")
        limit = client.limit(column)
        try:
            getattr(self, f"_{column}")()
        except (AssertionError, FailedError, LookupError, TypeError, ValueError) as e:
            told = f"{client.name} {column}: {type(e).__name__}: {e}"
            return Cell("no", limit) if limit else Cell("FAIL", told)
        told = f"{client.name} {column}: works, but docs/clients.md has it as a limit"
        return Cell("FAIL", told) if limit else Cell("ok")

    def _call(self, method: str, model: str, key: str = "") -> Any:
        vendor = model.partition("/")[0]
        key = key or own_key(vendor if vendor in KEYS else "openai", self._client.name)
        vendors = self._upstream.vendors
        try:
            return self._driver(key, method, model)
        finally:
            self._seen = [seen for each in vendors for seen in each.requests]
            keys = {seen.header("x-api-key") or seen.key for seen in self._seen}
            paths = {re.sub(r".*?(/openai|/v1)/", "/v1/", s.path) for s in self._seen}
            self._upstream.reset()
            assert keys <= {key}, f"sent with {keys}"
            assert paths <= set(self._client.route.paths), f"calls {paths}"

    def _answer(self, method: str, model: str, *, stream: bool) -> None:
        value = self._call(method, model)
        pieces = [piece for piece in value if piece] if isinstance(value, list) else []
        text = "".join(pieces) or value
        said = rf"(heard: .*{PROMPT}|read: .*{RESULT})"
        assert re.search(f"{bare(model)} {said}", text, re.S), text
        assert len(pieces) != 1, f"not in pieces: {pieces}"
        streams = {bool(seen.json.get("stream")) for seen in self._seen}
        assert streams == {stream}, f"streamed: {streams}"

    def _models(self) -> None:
        listed = self._call("models", "")
        missing = set(OF_CHAT.models) - set(listed)
        assert not missing, f"not listed: {missing}"

    def _regular(self) -> None:
        for model in self._client.route.models:
            self._answer("regular", model, stream=False)

    def _streamed(self) -> None:
        for model in self._client.route.models:
            self._answer("streamed", model, stream=True)

    def _tools(self) -> None:
        for model in self._client.route.models:
            if not model.startswith("gemini/"):
                self._two_turns(model)

    def _gemini(self) -> None:
        self._two_turns("gemini/gemini-2.5-flash-lite")

    def _two_turns(self, model: str) -> None:
        text = self._call("tools", model)
        assert re.search(f"{bare(model)} read: .*{RESULT}", text, re.S), text
        assert len(self._seen) == 2, f"{len(self._seen)} requests"

    def _schema(self) -> None:
        value = self._call("schema", self._client.route.models[0])
        assert value == {"name": "Paris", "people": 7}, value

    def _error(self) -> None:
        codes = ("authentication_error", "not_found_error")
        if self._client.route is not OF_MESSAGES:
            codes = ("invalid_api_key", "model_not_found")
        self._fails(self._client.route.models[0], "wrong-key", "401", codes[0])
        self._fails("nobody/gpt-4o", "", "404", codes[1])

    def _broken(self) -> None:
        vendor = self._client.route.models[0].partition("/")[0]
        self._fails(f"{vendor}/{BREAKING}", "", "closed the connection before its answer")

    def _fails(self, model: str, key: str, *told: str) -> None:
        try:
            value = self._call("streamed", model, key)
        except FailedError as error:
            missing = [each for each in told if each not in str(error)]
            assert not missing, f"{' and '.join(missing)} not told: {error}"
        else:
            raise AssertionError(f"no error: {value}")

    def _retry(self) -> None:
        model = self._client.route.models[0]
        headers = {**JSON, "retry-after": str(_RETRY_AFTER)}
        error = b'{"error": {"message": "busy", "type": "rate_limit_error"}}'
        for vendor in self._upstream.vendors:
            vendor.script(answer(error, 429, headers))
        begin = time.monotonic()
        self._answer("streamed", model, stream=True)
        assert len(self._seen) >= 2, "not tried again"
        assert time.monotonic() - begin > _RETRY_AFTER - _TICK, "too early"

    def _id(self) -> None:
        value = self._call("id", self._client.route.models[0])
        assert str(value).startswith("req_"), value


def show(client: Client, installed: Installed, env: Env) -> Cell:
    """Run the blocks of code in the client's section of the page as they stand."""
    for number, (language, text) in enumerate(client.snippets):
        name = f"snippet{number}.{_SUFFIXES[language]}"
        # Beside its packages, where Node looks for them, and where a user has it.
        (installed.directory / name).write_text(text)
        command = [*_INTERPRETERS[language], name]
        try:
            output = run(command, installed.directory, env, "", _SNIPPET_SECONDS)
        except FailedError as error:
            return Cell("FAIL", f"{client.name} snippet: {error}")
        if not re.search(" (heard|read): ", output):
            return Cell("FAIL", f"{client.name} snippet: printed {output!r}")
    return Cell("ok")


def bare(model: str) -> str:
    """The vendor's name for a model."""
    return model.partition("/")[2]
