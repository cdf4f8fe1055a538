"""Runs main.py in this process, against a server that respx plays."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import httpx
import pytest
import respx

import main

URL = "http://127.0.0.1:8321"
MODELS = ("openai/gpt-4o", "openai-mini/gpt-4o-mini", "gemini/flash", "anthropic/haiku")
KEYS = {
    "OPENAI_API_KEY": "key-of-openai",
    "GEMINI_API_KEY": "key-of-gemini",
    "ANTHROPIC_API_KEY": "key-of-anthropic",
}
EVENTS = {"content-type": "text/event-stream"}


class Outcome(NamedTuple):
    """What a run of the client left behind."""

    status: int
    out: str
    err: str


class Client:
    """The client, in an empty folder and with the keys that a test sets.

    Attributes:
        folder: Where it runs and where its .env is looked for.
    """

    def __init__(
        self,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """Keep a .env and the clock of this machine out of it."""
        monkeypatch.chdir(folder)
        monkeypatch.setattr(main, "__file__", str(folder / "main.py"))
        monkeypatch.setattr(main, "time", SimpleNamespace(perf_counter=lambda: 0.0))
        self.folder = folder
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def set(self, **variables: str) -> None:
        """Set environment variables."""
        for name, value in variables.items():
            self._monkeypatch.setenv(name, value)

    def run(self, *arguments: str) -> Outcome:
        """Run it to its end."""
        try:
            status = main.main(list(arguments))
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else -1
        return Outcome(status, *self._capsys.readouterr())

    def printed(self) -> str:
        """What it has printed since the last look."""
        return self._capsys.readouterr().out


class Llama:
    """A server of Llama Stack that answers with "Hello" until a test says otherwise."""

    def __init__(self, router: respx.MockRouter) -> None:
        """Serve the two routes that the client needs, at the usual address."""
        self.router = router
        self.models = router.get(f"{URL}/v1/models")
        self.chat = router.post(f"{URL}/v1/chat/completions")
        self.lists(*MODELS)
        self.answers("Hello")

    def lists(self, *models: str, kind: str = "llm") -> None:
        """List `models`, all of the same `kind`."""
        data = [
            {"id": name, "custom_metadata": {"model_type": kind}} for name in models
        ]
        self.models.respond(json={"data": data})

    def answers(self, *pieces: str) -> None:
        """Answer with the `pieces`, which a stream sends one by one."""

        def answer(request: httpx.Request) -> httpx.Response:
            if json.loads(request.content).get("stream"):
                return sse(*map(chunk, pieces), "[DONE]")
            return httpx.Response(200, json=completion("".join(pieces)))

        self.chat.mock(side_effect=answer)

    @property
    def bodies(self) -> list[dict[str, Any]]:
        """The bodies of the chat calls it got."""
        return [json.loads(call.request.content) for call in self.chat.calls]

    @property
    def keys(self) -> dict[str, str]:
        """The header with the key that came with each model's calls."""
        header = "X-LlamaStack-Provider-Data"
        return {
            body["model"]: call.request.headers[header]
            for body, call in zip(self.bodies, self.chat.calls, strict=True)
        }


@contextmanager
def playing() -> Iterator[Llama]:
    """Play a server while the context lasts."""
    with respx.mock(assert_all_called=False) as router:
        yield Llama(router)


def completion(text: str | None) -> dict[str, Any]:
    """A regular chat completion that says `text`."""
    return {"choices": [{"message": {"role": "assistant", "content": text}}]}


def chunk(text: str | None) -> str:
    """A streamed chat completion's event that says `text`."""
    return json.dumps({"choices": [{"index": 0, "delta": {"content": text}}]})


def sse(*events: str) -> httpx.Response:
    """An event stream of the `events`."""
    body = "".join(f"data: {event}\n\n" for event in events)
    return httpx.Response(200, headers=EVENTS, text=body)
