"""Drivers: they call a client with a key, a method and a model.

A method has the name of its column: models, streamed, tools, id.
"""

import json
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, override

from tests.support.http import CLAUDE_MODEL, GEMINI_MODEL, MODEL
from tests.support.wire import Json
from tools.clients.sdks import PROMPT, RESULT, WEATHER

type Env = Mapping[str, str]
# Raises ProgramError with the output of a client that fails.
type Call = Callable[[str, str, Any], Any]


class ProgramError(Exception):
    """A program failed; the message is its output."""


def run(
    arguments: Sequence[str],
    directory: Path,
    env: Env | None = None,
    seconds: float = 300,
) -> str:
    """Run a program; return its standard output."""
    done = subprocess.run(
        arguments,
        cwd=directory,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    if done.returncode:
        output = " ".join(f"{done.stdout} {done.stderr}".split())
        raise ProgramError(f"{Path(arguments[0]).name} ({done.returncode}): {output}")
    return done.stdout


def process(directory: Path, env: Env, target: str) -> Call:
    """Run sdks.py or sdks.mjs, the client's own language, for each call."""
    is_node = (directory / "node_modules").exists()
    program, file = ("node", "sdks.mjs") if is_node else ("python", "sdks.py")
    # Node looks for packages beside the program.
    shutil.copy(Path(__file__).with_name(file), directory)
    inputs = json.dumps({"PROMPT": PROMPT, "RESULT": RESULT, "WEATHER": WEATHER})

    def call(key: str, method: str, argument: Any) -> Any:  # noqa: ANN401
        keys = {"OPENAI_API_KEY": key, "ANTHROPIC_API_KEY": key}
        command = [program, file, target, method, json.dumps(argument)]
        output = run(command, directory, {**env, **keys, "INPUTS": inputs})
        return json.loads(output.splitlines()[-1])

    return call


@dataclass
class Chat:
    """Builds bodies of Chat Completions and reads the responses."""

    # Sends a body with a key and returns the JSON; None lists the models.
    create: Callable[[str, Any], Any]
    key: str = ""
    model: str = ""

    def __call__(self, key: str, method: str, model: str) -> Any:  # noqa: ANN401
        self.key, self.model = key, model
        return getattr(self, method)()

    def _send(self, *turns: Json, **fields: object) -> Any:  # noqa: ANN401
        messages = [{"role": "user", "content": PROMPT}, *turns]
        body = {"model": self.model, "messages": messages}
        return self.create(self.key, body | fields)

    def models(self) -> list[str]:
        listed = self.create(self.key, None)
        models = listed["data"] if isinstance(listed, dict) else listed
        return [model["id"] for model in models]

    def streamed(self) -> list[str]:
        chunks = self._send(stream=True)
        if "error" in chunks[-1]:
            raise ProgramError(json.dumps(chunks[-1]))
        choices = [choice for chunk in chunks for choice in chunk["choices"]]
        return [choice["delta"].get("content") or "" for choice in choices]

    def tools(self) -> object:
        function = {"name": "weather", "parameters": WEATHER}
        tools = [{"type": "function", "function": function}]
        first = self._send(tools=tools)["choices"][0]["message"]
        call_id = first["tool_calls"][0]["id"]
        result = {"role": "tool", "content": RESULT, "tool_call_id": call_id}
        second = self._send(first, result, tools=tools)
        return second["choices"][0]["message"]["content"]

    def id(self) -> object:
        return self._send()["_request_id"]


class Messages(Chat):
    """Builds bodies of Messages and reads the responses."""

    @override
    def _send(self, *turns: Json, **fields: object) -> Any:
        return super()._send(*turns, max_tokens=100, **fields)

    @override
    def streamed(self) -> list[str]:
        events = self._send(stream=True)
        return [event["delta"].get("text", "") for event in events if "delta" in event]

    @override
    def tools(self) -> object:
        tools = [{"name": "weather", "input_schema": WEATHER}]
        call = self._send(tools=tools)["content"]
        result = {"type": "tool_result", "tool_use_id": call[0]["id"]}
        turns = [
            {"role": "assistant", "content": call},
            {"role": "user", "content": [result | {"content": RESULT}]},
        ]
        return self._send(*turns, tools=tools)["content"][0]["text"]


def sdk(directory: Path, env: Env, target: str) -> Call:
    """Run an SDK whose `create` takes a body."""
    call = process(directory, env, target)
    api = Messages if target == "Anthropic" else Chat
    return api(lambda key, body: call(key, "create", body))


def curl(directory: Path, env: Env, _target: str) -> Call:
    def create(key: str, body: Any) -> Any:  # noqa: ANN401
        url = f"{env['OPENAI_BASE_URL']}/{'chat/completions' if body else 'models'}"
        command = ["curl", "-sS", "--retry", "1", "--fail-with-body", url]
        command += ["-w", "\n%header{x-request-id}"]
        command += ["-H", f"Authorization: Bearer {key}"]
        command += ["--json", json.dumps(body)] if body else []
        response, _, request_id = run(command, directory, env).rpartition("\n")
        if "data: " in response:
            events = response.removesuffix("data: [DONE]\n\n").split("data: ")[1:]
            return [json.loads(event) for event in events]
        return json.loads(response) | {"_request_id": request_id}

    return Chat(create)


_CODEX = ("codex", "exec", "--skip-git-repo-check", PROMPT)
# Commands for a terminal, up to the model.
_COMMANDS = {
    "claude": ("claude", "-p", PROMPT, "--tools", "Read", "--model"),
    "codex": (*_CODEX, "-m"),
    "codex-builtin": (*_CODEX, "-c", "openai_base_url={OPENAI_BASE_URL}", "-m"),
    "llm": ("llm", PROMPT, "-m"),
    "opencode": ("opencode", "run", PROMPT, "-m"),
}
_FUNCTION = f"def weather(city: str) -> str:\n    return {RESULT!r}\n"


def cli(directory: Path, env: Env, target: str) -> Call:
    """Run a command for a terminal, and write the files that it reads."""
    provider: Json = {"api_base": env["OPENAI_BASE_URL"], "api_key_name": "openai"}
    provider |= {"supports_tools": True}
    models = MODEL, GEMINI_MODEL, CLAUDE_MODEL, "openai/breaks-off", "nobody/gpt-4o"
    entries = [{"model_id": name, "model_name": name} | provider for name in models]
    (directory / "extra-openai-models.yaml").write_text(json.dumps(entries))
    (directory / ".codex").mkdir()
    # Both would call Codex's own servers.
    config = "features.plugins = false\nanalytics.enabled = false\n"
    (directory / ".codex/config.toml").write_text(config)
    command = [part.format(**env) for part in _COMMANDS[target]]

    def call(key: str, method: str, model: str) -> str:
        if method not in ("streamed", "tools"):
            raise ProgramError(f"{target} cannot do this")
        variables = dict.fromkeys(("OPENAI_API_KEY", "ANTHROPIC_API_KEY"), key)
        variables |= {"LLM_USER_PATH": str(directory)}
        variables |= {"CODEX_API_KEY": key} if target == "codex-builtin" else {}
        is_llm = (target, method) == ("llm", "tools")
        functions = ["--functions", _FUNCTION] if is_llm else []
        # Some retry for a minute.
        return run([*command, model, *functions], directory, {**env, **variables}, 60)

    return call
