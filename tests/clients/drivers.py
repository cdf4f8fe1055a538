"""The clients as the tool sees them: called with a key, a method and a model.

A method has the name of its column: models, regular, streamed, tools, schema, id.
"""

import json
import subprocess
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from http import HTTPStatus
from pathlib import Path
from typing import Any, override

from tests import clients
from tests.clients import CITY, PROMPT, RESULT, WEATHER
from tests.clients.installing import FailedError, Installed, run
from tests.support.http import CLAUDE
from tests.support.server import PROJECT
from tests.support.wire import Json

type Env = Mapping[str, str]
# Raises FailedError, with what the client tells of the failure.
type Call = Callable[[str, str, Any], Any]

CHAT_MODELS = ("openai/gpt-4o", "gemini/gemini-2.5-flash-lite", CLAUDE)
# Some retry for a minute; all calls of one process together take longer.
_COMMAND_SECONDS, _PROCESS_SECONDS = 60, 300
_HELLO = {"role": "user", "content": PROMPT}


def process(installed: Installed, env: Env, name: str, stack: ExitStack) -> Call:
    """Start a driver in the client's own language: sdks.py or sdks.mjs."""
    command = ["python", "-m", "tests.clients.sdks", name]
    own = {"PYTHONPATH": str(PROJECT)}
    if (installed.directory / "node_modules").exists():
        # Node looks for packages beside the program.
        program = installed.directory / "sdks.mjs"
        program.write_bytes(Path(__file__).with_name("sdks.mjs").read_bytes())
        content = {n: value for n, value in vars(clients).items() if n.isupper()}
        own = {"CONTENT": json.dumps(content)}
        command = ["node", str(program), name]
    running = subprocess.Popen(
        command,
        cwd=installed.directory,
        env={**env, **own},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    stack.enter_context(running)
    stack.callback(running.kill)
    timer = threading.Timer(_PROCESS_SECONDS, running.kill)
    timer.start()
    stack.callback(timer.cancel)

    def call(key: str, method: str, argument: Any) -> Any:  # noqa: ANN401
        assert running.stdin
        assert running.stdout
        running.stdin.write(json.dumps([key, method, argument]) + "\n")
        running.stdin.flush()
        for line in running.stdout:
            if line.startswith(('{"value"', '{"error"')):
                answer = json.loads(line)
                if "error" in answer:
                    raise FailedError(answer["error"])
                return answer["value"]
        raise FailedError("the driver has ended, or was too slow")

    return call


class Chat:
    """Makes bodies of Chat Completions and reads the answers."""

    def __init__(self, create: Callable[[str, Any], Any]) -> None:
        """Send bodies with `create`, which gives JSON; None asks for the models."""
        self._create = create

    def __call__(self, key: str, method: str, model: str) -> Any:  # noqa: ANN401
        """Call a method."""
        return getattr(self, f"_{method}")(key, model)

    def _ask(self, key: str, model: str, *turns: Json, **more: object) -> Any:  # noqa: ANN401
        return self._create(key, {"model": model, "messages": [_HELLO, *turns]} | more)

    def _message(self, *asked: Any, **more: Any) -> Json:  # noqa: ANN401
        message: Json = self._ask(*asked, **more)["choices"][0]["message"]
        return message

    def _models(self, key: str, _model: str) -> list[str]:
        listed = self._create(key, None)
        models = listed["data"] if isinstance(listed, dict) else listed
        return [model["id"] for model in models]

    def _regular(self, key: str, model: str) -> object:
        return self._message(key, model)["content"]

    def _streamed(self, key: str, model: str) -> list[str]:
        chunks = self._ask(key, model, stream=True)
        if "error" in chunks[-1]:
            raise FailedError(json.dumps(chunks[-1]))
        choices = [choice for chunk in chunks for choice in chunk["choices"]]
        return [choice["delta"].get("content") or "" for choice in choices]

    def _tools(self, key: str, model: str) -> object:
        function = {"name": "weather", "parameters": WEATHER}
        tools = [{"type": "function", "function": function}]
        asked = self._message(key, model, tools=tools)
        result = {"role": "tool", "content": RESULT}
        result["tool_call_id"] = asked["tool_calls"][0]["id"]
        return self._message(key, model, asked, result, tools=tools)["content"]

    def _schema(self, key: str, model: str) -> object:
        form = {"name": "city", "schema": CITY, "strict": True}
        wanted = {"type": "json_schema", "json_schema": form}
        return json.loads(self._message(key, model, response_format=wanted)["content"])

    def _id(self, key: str, model: str) -> object:
        return self._ask(key, model)["_request_id"]


class Messages(Chat):
    """Makes bodies of Messages and reads the answers."""

    @override
    def _ask(self, key: str, model: str, *turns: Json, **more: object) -> Any:
        return super()._ask(key, model, *turns, max_tokens=100, **more)

    @override
    def _regular(self, key: str, model: str) -> object:
        return self._ask(key, model)["content"][0]["text"]

    @override
    def _streamed(self, key: str, model: str) -> list[str]:
        events = self._ask(key, model, stream=True)
        return [event["delta"].get("text", "") for event in events if "delta" in event]

    @override
    def _tools(self, key: str, model: str) -> object:
        tools = [{"name": "weather", "input_schema": WEATHER}]
        call = self._ask(key, model, tools=tools)["content"]
        result = {"type": "tool_result", "tool_use_id": call[0]["id"]}
        asked = {"role": "assistant", "content": call}
        told = {"role": "user", "content": [result | {"content": RESULT}]}
        return self._ask(key, model, asked, told, tools=tools)["content"][0]["text"]


def sdk(installed: Installed, env: Env, name: str, stack: ExitStack) -> Call:
    """Start an SDK, which is sent bodies."""
    call = process(installed, env, name, stack)
    bodies = Messages if name == "Anthropic" else Chat
    return bodies(lambda key, body: call(key, "create", body))


def http(installed: Installed, env: Env, name: str, _stack: ExitStack) -> Call:
    """Call curl or Java's client: each time a process, and so a first request."""
    directory = installed.directory
    command = ["java", "-cp", "."]
    if name == "curl":
        command = ["curl", "-sS", "--retry", "1", "-o", "answer"]
        command += ["-w", "%{http_code} %header{x-request-id}"]
    else:
        source = str(Path(__file__).with_name("Http.java"))
        run(["javac", "-d", ".", source], directory)

    def create(key: str, body: Any) -> Any:  # noqa: ANN401
        url = f"{env['OPENAI_BASE_URL']}/{'chat/completions' if body else 'models'}"
        own = ["Http", url, key]
        if name == "curl":
            own = [url, "-H", f"Authorization: Bearer {key}"]
            own += ["--json", "@-"] if body else []
        text = json.dumps(body) if body else ""
        (directory / "answer").unlink(missing_ok=True)
        told = run([*command, *own], directory, env, text, _COMMAND_SECONDS)
        status, request_id = told.split()
        answer = (directory / "answer").read_text()
        if int(status) >= HTTPStatus.BAD_REQUEST:
            raise FailedError(f"{status} {answer}")
        if "data: " in answer:
            events = answer.removesuffix("data: [DONE]\n\n").split("data: ")[1:]
            return [json.loads(event) for event in events]
        return json.loads(answer) | {"_request_id": request_id}

    return Chat(create)


# The commands for a terminal, and the options of their methods.
_COMMANDS = {
    "claude": "claude -p {prompt} --model {model}",
    "codex": "codex exec --skip-git-repo-check -m {model} {prompt}",
    "llm": "llm -m {model} {prompt}",
}
_FUNCTION = f"def weather(city: str) -> str:\n    return {RESULT!r}\n"
_OPTIONS = {
    "claude streamed": ["--tools", ""],
    "claude tools": ["--tools", "Read"],
    "codex streamed": [],
    "codex tools": [],
    "codex schema": ["--output-schema", "city.json"],
    "llm regular": ["--no-stream"],
    "llm streamed": [],
    "llm tools": ["--functions", _FUNCTION],
    "llm schema": ["--schema", json.dumps(CITY)],
}


def cli(installed: Installed, env: Env, name: str, _stack: ExitStack) -> Call:
    """A command for a terminal, and the files that it reads."""
    directory = installed.directory
    own: Json = {"api_base": env["OPENAI_BASE_URL"], "api_key_name": "openai"}
    own |= {"supports_tools": True, "supports_schema": True}
    models = [*CHAT_MODELS, "openai/breaks-off", "nobody/gpt-4o"]
    entries = [{"model_id": model, "model_name": model} | own for model in models]
    (directory / "extra-openai-models.yaml").write_text(json.dumps(entries))
    (directory / "city.json").write_text(json.dumps(CITY))
    (directory / ".codex").mkdir()
    # Both call home.
    config = "features.plugins = false\nanalytics.enabled = false\n"
    (directory / ".codex/config.toml").write_text(config)

    def call(key: str, method: str, model: str) -> Any:  # noqa: ANN401
        if f"{name} {method}" not in _OPTIONS:
            raise FailedError(f"{name} does not do this")
        names = {"model": model, "prompt": PROMPT}
        command = [part.format(**names) for part in _COMMANDS[name].split()]
        command += _OPTIONS[f"{name} {method}"]
        own = {"OPENAI_API_KEY": key, "ANTHROPIC_API_KEY": key}
        own |= {"LLM_USER_PATH": str(directory)}
        text = run(command, directory, {**env, **own}, "", _COMMAND_SECONDS)
        return json.loads(text) if method == "schema" else text

    return call
