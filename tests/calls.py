"""Calls as callers make them: bytes out, and bytes back as they came over the wire."""

import json
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

type Json = dict[str, Any]

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
EMBEDDINGS = "/v1/embeddings"
ROUTES = (CHAT, COMPLETIONS, EMBEDDINGS)

MODEL = "openai/gpt-4o"
KEY = "sk-of-a-caller"
BEARER = {"Authorization": f"Bearer {KEY}"}


@dataclass(frozen=True)
class Answer:
    """A whole answer.

    Attributes:
        status: The HTTP status.
        headers: The headers, found without regard to case.
        body: The body with its content coding still on it.
    """

    status: int
    headers: httpx.Headers
    body: bytes

    @property
    def json(self) -> Json:
        """The body, parsed."""
        parsed: Json = json.loads(self.body)
        return parsed

    @property
    def error(self) -> Json:
        """What stands under "error" in the body, which holds nothing else."""
        ((name, error),) = self.json.items()
        assert name == "error"
        fields: Json = error
        return fields

    @property
    def error_code(self) -> tuple[int, str]:
        """The status and the error's code."""
        return self.status, self.error["code"]


class Stream:
    """An answer of which the body is read as it comes.

    Attributes:
        status: The HTTP status.
        headers: The headers.
    """

    def __init__(self, response: httpx.Response) -> None:
        """Take over a response of which no body has been read."""
        self.status = response.status_code
        self.headers = response.headers
        self._response = response
        self._pieces = response.iter_raw()

    def read(self, size: int) -> bytes:
        """What has come once it is `size` bytes or more; less only at the end."""
        body = b""
        while len(body) < size and (piece := next(self._pieces, b"")):
            body += piece
        return body

    def rest(self) -> bytes:
        """What comes until the end."""
        return b"".join(self._pieces)

    def leave(self) -> None:
        """Close the connection, as a caller does that goes away."""
        self._response.close()


def chat(model: str = MODEL, **fields: Any) -> bytes:  # noqa: ANN401 - any JSON
    """The body of a chat request that says hello, with further fields, as text."""
    messages = [{"role": "user", "content": "hello"}]
    body = {"model": model, "messages": messages} | fields
    return json.dumps(body, separators=(",", ":")).encode()


def provider_data(**fields: Any) -> dict[str, str]:  # noqa: ANN401 - any JSON
    """The header in which a caller sends its key and other provider data."""
    return {"X-LlamaStack-Provider-Data": json.dumps(fields)}


@contextmanager
def open_call(
    http: httpx.Client,
    url: str,
    body: bytes,
    *,
    route: str = CHAT,
    headers: Mapping[str, str] | list[tuple[str, str]] = BEARER,
) -> Iterator[Stream]:
    """Send a body and wait for the head of the answer.

    Args:
        http: Sends it; of its own headers none but Host and Content-Length are sent.
        url: The server's address.
        body: The body.
        route: The path.
        headers: The headers, those that carry the key included.
    """
    pairs = list(headers.items()) if isinstance(headers, Mapping) else headers
    request = httpx.Request("POST", url + route, content=body, headers=pairs)
    with closing(http.send(request, stream=True)) as response:
        yield Stream(response)


def call(
    http: httpx.Client,
    url: str,
    body: bytes,
    *,
    route: str = CHAT,
    headers: Mapping[str, str] | list[tuple[str, str]] = BEARER,
) -> Answer:
    """Send a body and wait for the whole answer; the arguments are `open_call`'s."""
    with open_call(http, url, body, route=route, headers=headers) as stream:
        return Answer(stream.status, stream.headers, stream.rest())
