"""The clients as the tool sees them: called with a key, a method and a model.

A method has the name of its column: models, streamed, tools, id.
"""

import json
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, override

from tests.support.http import CLAUDE_MODEL, GEMINI_MODEL, MODEL
from tests.support.wire import Json
from tools.clients.sdks import PROMPT, RESULT, WEATHER

type Env = Mapping[str, str]
# Raises FailedError, with what the client tells of the failure.
type Call = Callable[[str, str, Any], Any]

CHAT_MODELS = (MODEL, GEMINI_MODEL, CLAUDE_MODEL)


class FailedError(Exception):
    """A program failed; the message is what it has printed."""


def run(
    arguments: list[str], directory: Path, env: Env | None = None, seconds: float = 300
) -> str:
    """Run a program to its end; what it has printed."""
    ran = subprocess.run(
        arguments,
        cwd=directory,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    if ran.returncode:
        told = " ".join(f"{ran.stdout} {ran.stderr}".split())
        raise FailedError(f"{Path(arguments[0]).name} ({ran.returncode}): {told}")
    return ran.stdout


def process(directory: Path, env: Env, name: str) -> Call:
    """Run a driver in the client's own language, sdks.py or sdks.mjs, for each call."""
    is_node = (directory / "node_modules").exists()
    program, file = ("node", "sdks.mjs") if is_node else ("python", "sdks.py")
    # Node looks for packages beside the program.
    shutil.copy(Path(__file__).with_name(file), directory)
    content = json.dumps({"PROMPT": PROMPT, "RESULT": RESULT, "WEATHER": WEATHER})

    def call(key: str, method: str, argument: Any) -> Any:  # noqa: ANN401
        own = {"OPENAI_API_KEY": key, "ANTHROPIC_API_KEY": key, "CONTENT": content}
        command = [program, file, name, method, json.dumps(argument)]
        return json.loads(run(command, directory, {**env, **own}).splitlines()[-1])

    return call


@dataclass
class Chat:
    """A call: makes bodies of Chat Completions, and reads the answers."""

    # Sends a key and a body, and gives JSON; None asks for the models.
    create: Callable[[str, Any], Any]
    key: str = ""
    model: str = ""

    def __call__(self, key: str, method: str, model: str) -> Any:  # noqa: ANN401
        self.key, self.model = key, model
        return getattr(self, method)()

    def _ask(self, *turns: Json, **more: object) -> Any:  # noqa: ANN401
        messages = [{"role": "user", "content": PROMPT}, *turns]
        return self.create(self.key, {"model": self.model, "messages": messages} | more)

    def models(self) -> list[str]:
        listed = self.create(self.key, None)
        models = listed["data"] if isinstance(listed, dict) else listed
        return [model["id"] for model in models]

    def streamed(self) -> list[str]:
        chunks = self._ask(stream=True)
        if "error" in chunks[-1]:
            raise FailedError(json.dumps(chunks[-1]))
        choices = [choice for chunk in chunks for choice in chunk["choices"]]
        return [choice["delta"].get("content") or "" for choice in choices]

    def tools(self) -> object:
        function = {"name": "weather", "parameters": WEATHER}
        tools = [{"type": "function", "function": function}]
        asked = self._ask(tools=tools)["choices"][0]["message"]
        call = {"tool_call_id": asked["tool_calls"][0]["id"]}
        result = {"role": "tool", "content": RESULT} | call
        answer = self._ask(asked, result, tools=tools)
        return answer["choices"][0]["message"]["content"]

    def id(self) -> object:
        return self._ask()["_request_id"]


class Messages(Chat):
    """Makes bodies of Messages and reads the answers."""

    @override
    def _ask(self, *turns: Json, **more: object) -> Any:
        return super()._ask(*turns, max_tokens=100, **more)

    @override
    def streamed(self) -> list[str]:
        events = self._ask(stream=True)
        return [event["delta"].get("text", "") for event in events if "delta" in event]

    @override
    def tools(self) -> object:
        tools = [{"name": "weather", "input_schema": WEATHER}]
        call = self._ask(tools=tools)["content"]
        result = {"type": "tool_result", "tool_use_id": call[0]["id"]}
        asked = {"role": "assistant", "content": call}
        told = {"role": "user", "content": [result | {"content": RESULT}]}
        return self._ask(asked, told, tools=tools)["content"][0]["text"]


def sdk(directory: Path, env: Env, name: str) -> Call:
    """Run an SDK, which is sent bodies."""
    start = process(directory, env, name)
    form = Messages if name == "Anthropic" else Chat
    return form(lambda key, body: start(key, "create", body))


def curl(directory: Path, env: Env, _name: str) -> Call:
    """Run curl."""

    def create(key: str, body: Any) -> Any:  # noqa: ANN401
        url = f"{env['OPENAI_BASE_URL']}/{'chat/completions' if body else 'models'}"
        command = ["curl", "-sS", "--retry", "1", "--fail-with-body", url]
        command += ["-w", "\n%header{x-request-id}"]
        command += ["-H", f"Authorization: Bearer {key}"]
        command += ["--json", json.dumps(body)] if body else []
        answer, _, request_id = run(command, directory, env).rpartition("\n")
        if "data: " in answer:
            events = answer.removesuffix("data: [DONE]\n\n").split("data: ")[1:]
            return [json.loads(event) for event in events]
        return json.loads(answer) | {"_request_id": request_id}

    return Chat(create)


# The commands for a terminal, before the model.
_COMMANDS = {
    "claude": ["claude", "-p", PROMPT, "--tools", "Read", "--model"],
    "codex": ["codex", "exec", "--skip-git-repo-check", PROMPT, "-m"],
    "llm": ["llm", PROMPT, "-m"],
}
_FUNCTION = f"def weather(city: str) -> str:\n    return {RESULT!r}\n"


def cli(directory: Path, env: Env, name: str) -> Call:
    """A command for a terminal, and the files that it reads."""
    own = {"api_base": env["OPENAI_BASE_URL"], "api_key_name": "openai"}
    models = (*CHAT_MODELS, "openai/breaks-off", "nobody/gpt-4o")
    names = [{"model_id": model, "model_name": model} for model in models]
    entries = [{**name, **own, "supports_tools": True} for name in names]
    (directory / "extra-openai-models.yaml").write_text(json.dumps(entries))
    (directory / ".codex").mkdir()
    # Both call home.
    config = "features.plugins = false\nanalytics.enabled = false\n"
    (directory / ".codex/config.toml").write_text(config)

    def call(key: str, method: str, model: str) -> str:
        if method not in ("streamed", "tools"):
            raise FailedError(f"{name} does not do this")
        own = {"OPENAI_API_KEY": key, "ANTHROPIC_API_KEY": key}
        own |= {"LLM_USER_PATH": str(directory)}
        has_function = (name, method) == ("llm", "tools")
        more = ["--functions", _FUNCTION] if has_function else []
        # Some retry for a minute.
        return run([*_COMMANDS[name], model, *more], directory, {**env, **own}, 60)

    return call
