"""The checks of one client, a method for each column."""

import os
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.http import GEMINI_MODEL, KEYS
from tests.support.server import Server, clean_environment
from tests.support.upstream import Upstream
from tests.support.wire import JSON, Request, respond
from tools.clients.clients import CHAT_API, MESSAGES_API, Client
from tools.clients.drivers import Call, Env, ProgramError, run
from tools.clients.sdks import PROMPT
from tools.mock.vendors import BREAKING

COLUMNS = (
    *("snippet", "models", "streamed", "tools", "gemini"),
    *("error", "broken", "retry", "id"),
)
# The command that runs a snippet of a language, and the suffix of its file.
_LANGUAGES = {"python": "py", "node": "mjs", "sh": "sh", "java": "java"}
_RETRY_AFTER = 1


def environment(directory: Path, url: str, name: str) -> Env:
    """Return the variables that a user exports, and some that keep clients offline."""
    programs = directory / "bin", directory / "node_modules/.bin", os.environ["PATH"]
    return clean_environment() | {
        "HOME": str(directory),
        "TMPDIR": str(directory),
        "PATH": os.pathsep.join(map(str, programs)),
        "OPENAI_BASE_URL": f"{url}/v1",
        "ANTHROPIC_BASE_URL": url,
        **{f"{vendor.upper()}_API_KEY": _key(vendor, name) for vendor in KEYS},
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "CLAUDE_CODE_MAX_RETRIES": "1",
        "OPENAI_AGENTS_DISABLE_TRACING": "1",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "AIDER_ANALYTICS_DISABLE": "true",
        "AIDER_CHECK_UPDATE": "false",
        # Clients without such a setting are given a proxy that does not exist.
        **dict.fromkeys(("HTTPS_PROXY", "https_proxy"), "http://127.0.0.1:9"),
        **dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost"),
    }


def _key(vendor: str, name: str) -> str:
    """Return a valid key of the vendor that no other client sends."""
    return f"{KEYS.get(vendor, KEYS['openai'])}-{name}"


@dataclass
class Trial:
    """Checks one client; the method of a column raises if the client fails it."""

    client: Client
    directory: Path
    env: Env
    call: Call | None
    server: Server
    upstream: Upstream
    requests: list[Request] = field(default_factory=list)
    # Lines to print below the row: failures, and the WebSocket handshakes of Codex.
    notes: list[str] = field(default_factory=list)

    def check(self, column: str) -> str:
        """Return the cell of a column: ok, FAIL, `no` for a documented limit, or -."""
        is_gemini = column == "gemini" and self.client.api is not CHAT_API
        if is_gemini or (not self.call and column != "snippet"):
            return "-"
        failure, has_limit = "", self.client.has_limit(column)
        try:
            getattr(self, f"_{column}")()
        except Exception as error:  # noqa: BLE001 - the note shows whatever it is
            failure = " ".join(f"{type(error).__name__}: {error}".split())[:500]
        if bool(failure) == has_limit:
            return "no" if has_limit else "ok"
        problem = failure or "docs/clients.md lists it as a limitation"
        self.notes.append(f"{column}: {problem}")
        return "FAIL"

    def _snippet(self) -> None:
        # In the directory of its packages, where Node looks for them.
        for program, suffix in _LANGUAGES.items():
            for text in self.client.snippets("js" if program == "node" else program):
                (file := self.directory / f"snippet.{suffix}").write_text(text)
                output = run([program, str(file)], self.directory, self.env)
                assert re.search(" (heard|read): ", output), f"printed {output!r}"
        self.upstream.reset()

    def _run(self, method: str, model: str, key: str = "") -> Any:  # noqa: ANN401
        assert self.call
        key = key or _key(model.partition("/")[0], self.client.name)
        try:
            return self.call(key, method, model)
        finally:
            self.requests = self.upstream.requests
            self.upstream.reset()
            keys = {each.header("x-api-key") or each.key for each in self.requests}
            assert keys <= {key}, f"sent with {keys}"
            targets = [request.path for request in self.requests]
            paths = {re.sub(r".*?(/openai|/v1)/", "/v1/", path) for path in targets}
            assert paths <= {*self.client.api.paths}, f"called {paths}"

    def _models(self) -> None:
        missing = {*CHAT_API.models} - {*self._run("models", "openai/gpt-4o")}
        assert not missing, f"not listed: {missing}"

    def _streamed(self) -> None:
        for model in self.client.api.models:
            before, start = self._handshakes(), time.monotonic()
            self._stream(model)
            if handshakes := self._handshakes() - before:
                seconds = time.monotonic() - start
                tried = f"{handshakes} WebSocket handshake(s) before HTTP"
                self.notes.append(f"{tried}, {seconds:.1f} s in all")
                assert handshakes == 1, tried

    def _handshakes(self) -> int:
        return len(self.server.access_log(method="GET", path="/v1/responses"))

    def _stream(self, model: str) -> None:
        value = self._run("streamed", model)
        parts = [part for part in value if part] if isinstance(value, list) else []
        assert len(parts) != 1, f"not in parts: {value}"
        # An agent reads the result of a tool that the mock has called.
        expected = f"heard: {PROMPT}$" if parts else "(heard|read): "
        text = "".join(parts) or value
        assert re.search(f"{model.partition('/')[2]} {expected}", text), text
        assert any(PROMPT.encode() in request.body for request in self.requests)
        assert all(request.json["stream"] for request in self.requests)

    def _tools(self) -> None:
        for model in {*self.client.api.models} - {GEMINI_MODEL}:
            self._two_turns(model)

    def _gemini(self) -> None:
        self._two_turns(GEMINI_MODEL)

    def _two_turns(self, model: str) -> None:
        text = self._run("tools", model)
        assert f"{model.partition('/')[2]} read: " in text, text
        assert len(self.requests) >= 2, f"{len(self.requests)} requests"

    def _error(self) -> None:
        invalid, unknown = "invalid_api_key", "model_not_found"
        if self.client.api is MESSAGES_API:
            invalid, unknown = "authentication_error", "not_found_error"
        self._fails(self.client.api.models[0], "wrong-key", "401", invalid)
        self._fails("nobody/gpt-4o", "", "404", unknown)

    def _broken(self) -> None:
        vendor = self.client.api.models[0].partition("/")[0]
        self._fails(f"{vendor}/{BREAKING}", "", "The upstream reset the connection")

    def _fails(self, model: str, key: str, *expected: str) -> None:
        try:
            shown = f"no error: {self._run('streamed', model, key)}"
        except ProgramError as error:
            shown = str(error)
        missing = [text for text in expected if text not in shown]
        assert not missing, f"{missing} not shown: {shown}"

    def _retry(self) -> None:
        error = b'{"error": {"message": "busy", "type": "rate_limit_error"}}'
        rejected = list[float]()

        def reject(_: Request) -> bytes:
            rejected.append(time.monotonic())
            return respond(error, 429, {**JSON, "retry-after": str(_RETRY_AFTER)})

        for vendor in self.upstream.vendors:
            vendor.script(reject)
        self._stream(self.client.api.models[0])
        assert len(self.requests) >= 2, "no retry"
        # A client measures the second with its own clock.
        assert time.monotonic() - rejected[0] > 0.95 * _RETRY_AFTER, "too early"

    def _id(self) -> None:
        value = str(self._run("id", self.client.api.models[0]))
        assert value.startswith("req_"), value
