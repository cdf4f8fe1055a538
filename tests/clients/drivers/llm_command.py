"""Drives the command-line tool `llm`."""

import base64
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import override

from tests.clients.drivers import content, driver
from tests.clients.drivers.driver import Cannot, Driver, expect

_FUNCTION = f"""
def weather(city: str) -> str:
    "Tell the weather in a city."
    return {content.TOOL_RESULT!r}
"""
# `llm` retries, three times in all, what is refused with this status or a higher one.
_FIRST_RETRIED = 429


class Llm(Driver):
    """The command, with the models in its extra-openai-models.yaml."""

    def __init__(self, directory: Path) -> None:
        """Write its configuration, which is JSON, and so YAML, into a directory."""
        self._llm = Path(sys.executable).with_name("llm")
        self._directory = directory
        models = {*content.ONE_OF_EACH, *(each.model for each in content.REFUSALS)}
        abilities = {"supports_tools": True, "supports_schema": True, "vision": True}
        entries = [
            {"model_id": model, "model_name": model, "api_base": driver.base_url()}
            | {"api_key_name": "openai"}
            | abilities
            for model in sorted(models)
        ]
        headers = {content.HEADER: driver.header_value()}
        by_header = {"model_id": "by-header", "model_name": content.OPENAI}
        by_header |= {"api_base": driver.base_url()}
        config = json.dumps([*entries, by_header | {"headers": headers}])
        (directory / "extra-openai-models.yaml").write_text(config)

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self._llm), *arguments],
            env=os.environ | {"LLM_USER_PATH": str(self._directory)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def _ask(self, model: str, *options: str, prompt: str = content.PROMPT) -> str:
        ran = self._run("prompt", "-m", model, *options, prompt)
        if ran.returncode:
            raise AssertionError(f"llm: {ran.returncode} {ran.stderr.strip()}")
        return ran.stdout.strip()

    @override
    def models(self) -> None:
        raise Cannot("lists the models of its own configuration, not of a server")

    @override
    def regular(self) -> None:
        for model in content.ONE_OF_EACH:
            expect(content.heard(model), self._ask(model, "--no-stream"))

    @override
    def stream(self) -> None:
        for model in content.ONE_OF_EACH:
            expect(content.heard(model), self._ask(model))

    @override
    def tools(self) -> None:
        self._two_turns(content.OPENAI)
        self._two_turns(content.ANTHROPIC)

    @override
    def signature(self) -> None:
        try:
            self._two_turns(content.GEMINI)
        except AssertionError as error:
            if content.SIGNATURE_MISSING not in str(error):
                raise
            raise Cannot(content.NO_SIGNATURE) from None

    def _two_turns(self, model: str) -> None:
        expect(content.read(model), self._ask(model, "--functions", _FUNCTION))

    @override
    def schema(self) -> None:
        schema = json.dumps(content.CITY_SCHEMA)
        answer = self._ask(content.OPENAI, "--schema", schema)
        expect(content.CITY, json.loads(answer))

    @override
    def image(self) -> None:
        image = self._directory / "image.png"
        image.write_bytes(base64.b64decode(content.PNG))
        answer = self._ask(content.OPENAI, "-a", str(image))
        expect(content.saw(content.OPENAI), answer)

    @override
    def errors(self) -> None:
        for refusal in content.REFUSALS:
            if refusal.status < _FIRST_RETRIED:
                key = ("--key", refusal.key) if refusal.key else ()
                ran = self._run("-m", refusal.model, *key, content.PROMPT)
                shown = f"Error: Error code: {refusal.status} - "
                expect((1, shown), (ran.returncode, ran.stderr[: len(shown)]))
        ran = self._run("-m", content.BREAKING, content.PROMPT)
        expect(1, ran.returncode)
        raise Cannot("prints an error's status and message, neither code nor headers")

    @override
    def retry(self) -> None:
        expected = content.heard(content.OPENAI, content.BUSY_PROMPT)
        expect(expected, self._ask(content.OPENAI, prompt=content.BUSY_PROMPT))

    @override
    def id(self) -> None:
        raise Cannot("shows no headers")

    @override
    def bearer(self) -> None:
        self._ask(content.OPENAI)

    @override
    def header(self) -> None:
        expect(content.heard(content.OPENAI), self._ask("by-header"))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        driver.run(Llm(Path(directory)))
