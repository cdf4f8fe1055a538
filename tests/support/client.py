"""main.py in the process of the tests, and a server that respx mocks."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
import respx

import main

URL = "http://127.0.0.1:8321"
KEY = "key-of-openai"
MODEL = "openai/gpt-4o"
PROVIDER_DATA = "X-LlamaStack-Provider-Data"


def model_list(*names: str, model_type: str = "llm") -> httpx.Response:
    """Return a list of models in OpenAI's form, with Llama Stack's fields."""
    fields = {"object": "model", "created": 1, "owned_by": "llama_stack"}
    fields |= {"custom_metadata": {"model_type": model_type}}
    data = [{"id": name, **fields} for name in names]
    return httpx.Response(200, json={"object": "list", "data": data})


def completion(text: str | None) -> httpx.Response:
    message = {"role": "assistant", "content": text}
    return httpx.Response(200, json={"choices": [{"message": message}]})


def chunk(text: str | None) -> str:
    return json.dumps({"choices": [{"index": 0, "delta": {"content": text}}]})


def event_stream(events: Iterable[str]) -> httpx.Response:
    return httpx.Response(200, content=(f"data: {e}\n\n".encode() for e in events))


def error_response(status: int, message: str) -> httpx.Response:
    return httpx.Response(status, json={"error": {"message": message, "code": "x"}})


def say_hello(request: httpx.Request) -> httpx.Response:
    if json.loads(request.content).get("stream"):
        return event_stream([chunk("Hello"), chunk(" there"), "[DONE]"])
    return completion("Hello there")


class Client:
    """Runs main.py in this process, against a server that respx mocks."""

    def __init__(self, capsys: pytest.CaptureFixture[str], mock: respx.Router) -> None:
        self.capsys = capsys
        self.models = mock.get(path="/v1/models")
        self.models.return_value = model_list(MODEL)
        self.chat = mock.post(path="/v1/chat/completions").mock(side_effect=say_hello)

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Return the exit status, standard output and standard error."""
        try:
            status = main.main(list(arguments))
        except SystemExit as end:
            status = int(str(end.code))
        return status, *self.capsys.readouterr()

    def bodies(self) -> list[object]:
        return [json.loads(call.request.content) for call in self.chat.calls]

    def keys(self) -> list[str]:
        headers = [call.request.headers[PROVIDER_DATA] for call in self.chat.calls]
        return [json.loads(header)["passthrough_api_key"] for header in headers]


@contextmanager
def mocked_server(
    directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Client]:
    """Mock a server for main.py, which has a key, and looks for .env in `directory`."""
    monkeypatch.setattr(main, "__file__", str(directory / "main.py"))
    monkeypatch.setattr(main, "time", SimpleNamespace(perf_counter=lambda: 0.0))
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with respx.mock(assert_all_called=False) as mock:
        yield Client(capsys, mock)
