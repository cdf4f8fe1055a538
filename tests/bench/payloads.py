"""The bytes that go over the wire: one request and its answer for each kind of call.

The kind of answer is named in the prompt (`bench:regular`), because the prompt is what
every way from the caller to the upstream passes on as it is.
"""

import json
from typing import Final, NamedTuple

MODEL: Final = "openai/gpt-4o"
PATH: Final = "/v1/chat/completions"
HEADERS: Final = {
    "Content-Type": "application/json",
    "Authorization": "Bearer bench-key",
    "X-LlamaStack-Provider-Data": '{"passthrough_api_key": "bench-key"}',
}
DONE: Final = b"data: [DONE]\n\n"


class Kind(NamedTuple):
    """One kind of answer.

    Attributes:
        events: How many chunks a stream has before `[DONE]`; 0 for a regular answer.
        pause: Seconds from one chunk to the next; 0 sends them as fast as they go.
    """

    events: int
    pause: float


KINDS: Final = {
    "regular": Kind(events=0, pause=0),
    # The throughput of streams.
    "burst": Kind(events=200, pause=0),
    # The first chunk alone counts; the others follow at a vendor's fastest pace, so
    # that they do not compete with it.
    "first": Kind(events=4, pause=0.002),
    # A vendor's common pace: whoever holds chunks back is seen.
    "slow": Kind(events=20, pause=0.05),
    # Long enough for 500 of them to be open at once.
    "held": Kind(events=20, pause=0.25),
}


def request_body(kind: str) -> bytes:
    """Return the JSON body that asks for an answer of this kind."""
    messages = [
        {"role": "system", "content": "You are a helpful assistant. Answer briefly."},
        {"role": "user", "content": f"bench:{kind} Which planet is the largest?"},
    ]
    body: dict[str, object] = {"model": MODEL, "messages": messages}
    body |= {"temperature": 0.2, "max_tokens": 200}
    if KINDS[kind].events:
        body["stream"] = True
    return json.dumps(body).encode()


def regular_answer() -> bytes:
    """Return a regular chat completion as OpenAI forms it, about 600 bytes."""
    message = {"role": "assistant", "content": "Jupiter. " * 18, "refusal": None}
    usage = {"prompt_tokens": 24, "completion_tokens": 36, "total_tokens": 60}
    answer = _object("chat.completion") | {
        "choices": [
            {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        ],
        "usage": usage,
        "system_fingerprint": "fp_bench00000",
    }
    return json.dumps(answer).encode()


def events(kind: str) -> list[bytes]:
    """Return the events of a stream of this kind, numbered, `[DONE]` last."""
    return [*(_event(number) for number in range(KINDS[kind].events)), DONE]


def _event(number: int) -> bytes:
    choice = {"index": 0, "delta": {"content": f" {number}"}, "finish_reason": None}
    chunk = _object("chat.completion.chunk") | {"choices": [choice]}
    return b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n"


def _object(kind: str) -> dict[str, object]:
    created = 1_790_000_000
    return {"id": "chatcmpl-bench", "object": kind, "created": created, "model": MODEL}
