"""Drives plain curl."""

import json
import os
import subprocess
from typing import Any, override

from tests.clients.drivers import content, driver
from tests.clients.drivers.driver import Driver, expect

type Json = dict[str, Any]

_BUSY_MESSAGE = {"role": "user", "content": content.BUSY_PROMPT}
# What curl ends with when `--fail-with-body` met an error.
_HTTP_ERROR = 22


class Curl(Driver):
    """The command with a key as bearer token and a body of JSON."""

    def _curl(self, path: str, *options: str, key: str | None = None) -> str:
        bearer = f"Authorization: Bearer {key or os.environ['OPENAI_API_KEY']}"
        url = f"{driver.base_url()}/{path}"
        command = ["curl", "-sS", "--max-time", "30", url, "-H", bearer, *options]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        if ran.returncode not in {0, _HTTP_ERROR}:
            raise AssertionError(f"curl: {ran.returncode} {ran.stderr}")
        return ran.stdout

    def _post(self, body: Json, *options: str, key: str | None = None) -> str:
        is_json = "Content-Type: application/json"
        data = ("-H", is_json, "-d", json.dumps(body))
        return self._curl("chat/completions", *data, *options, key=key)

    def _message(self, model: str, *messages: Json, **more: object) -> Json:
        body = {"model": model, "messages": messages} | more
        answer = json.loads(self._post(body, "--fail", "--retry", "1"))
        message: Json = answer["choices"][0]["message"]
        return message

    def _events(self, model: str) -> list[str]:
        messages = [content.USER_MESSAGE]
        body = {"model": model, "messages": messages, "stream": True}
        lines = self._post(body, "--no-buffer").splitlines()
        return [line.removeprefix("data: ") for line in lines if line]

    @override
    def models(self) -> None:
        models = json.loads(self._curl("models"))["data"]
        expect(content.LISTED, tuple(model["id"] for model in models))

    @override
    def regular(self) -> None:
        for model in content.ONE_OF_EACH:
            answer = self._message(model, content.USER_MESSAGE)
            expect(content.heard(model), answer["content"])

    @override
    def stream(self) -> None:
        for model in content.ONE_OF_EACH:
            *chunks, done = self._events(model)
            expect("[DONE]", done)
            deltas = [json.loads(chunk)["choices"][0]["delta"] for chunk in chunks]
            pieces = [delta.get("content") or "" for delta in deltas]
            driver.expect_pieces(content.heard(model), pieces)

    @override
    def tools(self) -> None:
        self._two_turns(content.OPENAI)
        self._two_turns(content.ANTHROPIC)

    @override
    def signature(self) -> None:
        self._two_turns(content.GEMINI)

    def _two_turns(self, model: str) -> None:
        tools = [content.WEATHER_TOOL]
        call = self._message(model, content.USER_MESSAGE, tools=tools)
        call_id = call["tool_calls"][0]["id"]
        result = {"role": "tool", "tool_call_id": call_id}
        result |= {"content": content.TOOL_RESULT}
        answer = self._message(model, content.USER_MESSAGE, call, result, tools=tools)
        expect(content.read(model), answer["content"])

    @override
    def schema(self) -> None:
        form = content.CITY_FORMAT
        answer = self._message(
            content.OPENAI, content.USER_MESSAGE, response_format=form
        )
        expect(content.CITY, json.loads(answer["content"]))

    @override
    def image(self) -> None:
        answer = self._message(content.OPENAI, content.IMAGE_MESSAGE)
        expect(content.saw(content.OPENAI), answer["content"])

    @override
    def errors(self) -> None:
        for refusal in content.REFUSALS:
            body = {"model": refusal.model, "messages": [content.USER_MESSAGE]}
            status = ("--fail-with-body", "-w", "\n%{http_code}")
            text, code = self._post(body, *status, key=refusal.key).rsplit("\n", 1)
            expect(str(refusal.status), code)
            expect(refusal.code, json.loads(text)["error"]["code"])
        last = json.loads(self._events(content.BREAKING)[-1])
        expect(content.BROKEN_STREAM_CODE, last["error"]["code"])

    @override
    def retry(self) -> None:
        answer = self._message(content.OPENAI, _BUSY_MESSAGE)
        expected = content.heard(content.OPENAI, content.BUSY_PROMPT)
        expect(expected, answer["content"])

    @override
    def id(self) -> None:
        for model in (content.OPENAI, content.RATE_LIMITED.model):
            body = {"model": model, "messages": [content.USER_MESSAGE]}
            lines = self._post(body, "--include").lower().splitlines()
            pairs = [line.partition(": ") for line in lines]
            ids = [value for name, _, value in pairs if name == "x-request-id"]
            driver.expect_id(ids[0])

    @override
    def bearer(self) -> None:
        self._message(content.OPENAI, content.USER_MESSAGE)

    @override
    def header(self) -> None:
        header = f"{content.HEADER}: {driver.header_value()}"
        body = {"model": content.OPENAI, "messages": [content.USER_MESSAGE]}
        answer = json.loads(self._post(body, "-H", header, key=content.NO_KEY))
        expected = content.heard(content.OPENAI)
        expect(expected, answer["choices"][0]["message"]["content"])


if __name__ == "__main__":
    driver.run(Curl())
