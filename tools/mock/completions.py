"""What a model says to a request, and the four forms in which it is told.

Chat Completions, Embeddings, Responses, and Messages.
"""

import json
import re
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass

from tests.support.wire import Json, event

# What fits the parameters of the tool `weather`, which the clients are given.
_ARGUMENTS = {"city": "Paris"}


@dataclass(frozen=True)
class Saying:
    """A text; or a call of the tool `name`, and the text is its arguments in JSON."""

    model: str
    text: str
    name: str
    # The number of words in the request.
    heard: int

    @property
    def pieces(self) -> list[str]:
        """What is streamed, each word with the space behind it."""
        return re.findall(r"\S+\s*", self.text)

    def usage(self, heard: str, said: str) -> Json:
        """The tokens under the names of a form, a token being a word."""
        count = len(self.pieces)
        return {heard: self.heard, said: count, "total_tokens": self.heard + count}


def say(body: Json) -> Saying:
    """Answer a request of any of the forms; the first of its tools is called."""
    turns = body.get("messages") or body["input"]
    if isinstance(turns, str):
        turns = [{"role": "user", "content": turns}]
    heard = sum(len(_text(turn).split()) for turn in turns)
    last, model = turns[-1], body["model"]
    is_result = last.get("role") == "tool" or "result" in json.dumps(last)
    is_result = is_result or last.get("type") == "function_call_output"
    if body.get("tools") and not is_result:
        tool = body["tools"][0]
        name = tool.get("function", tool)["name"]
        return Saying(model, json.dumps(_ARGUMENTS), name, heard)
    verb = "read" if is_result else "heard"
    return Saying(model, f"{model} {verb}: {_text(last)}", "", heard)


def _text(turn: Json) -> str:
    content = turn.get("content", turn.get("output")) or ""
    if isinstance(content, str):
        return content
    # A result in Messages has a text or parts of its own inside.
    texts = (part.get("text") or _text(part) for part in content)
    return " ".join(filter(None, texts))


def new_id(prefix: str) -> str:
    return f"{prefix}{secrets.token_hex(12)}"


def envelope(kind: str, model: str) -> Json:
    """What every answer and chunk of Chat Completions begins with."""
    own = {"id": new_id("chatcmpl-"), "created": int(time.time())}
    return own | {"object": kind, "model": model}


def chat_usage(said: Saying) -> Json:
    return said.usage("prompt_tokens", "completion_tokens")


def chat_reason(said: Saying) -> str:
    return "tool_calls" if said.name else "stop"


def chat_call(said: Saying) -> Json:
    """The entry in `tool_calls`."""
    function = {"name": said.name, "arguments": said.text}
    return {"id": f"call_{said.name}", "type": "function", "function": function}


def chat(said: Saying, call: Json) -> Json:
    own: Json = {"content": None, "tool_calls": [call]}
    message = {"role": "assistant"} | (own if said.name else {"content": said.text})
    choice = {"index": 0, "message": message, "finish_reason": chat_reason(said)}
    start = envelope("chat.completion", said.model)
    return start | {"choices": [choice], "usage": chat_usage(said)}


def chat_chunks(body: Json, said: Saying) -> Iterator[Json]:
    """The chunks of Chat Completions, as OpenAI and Anthropic stream them."""
    start = envelope("chat.completion.chunk", said.model)
    wants_usage = (body.get("stream_options") or {}).get("include_usage")
    start |= {"usage": None} if wants_usage else {}
    for delta in _chat_deltas(said):
        yield start | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    last = {"index": 0, "delta": {}, "finish_reason": chat_reason(said)}
    yield start | {"choices": [last]}
    if wants_usage:
        yield start | {"choices": [], "usage": chat_usage(said)}


def _chat_deltas(said: Saying) -> Iterator[Json]:
    yield {"role": "assistant", "content": None if said.name else ""}
    if said.name:
        call = chat_call(said) | {"function": {"name": said.name, "arguments": ""}}
        yield {"tool_calls": [{"index": 0} | call]}
    for piece in said.pieces:
        part = {"index": 0, "function": {"arguments": piece}}
        yield {"tool_calls": [part]} if said.name else {"content": piece}


def embeddings(body: Json) -> Json:
    one = {"object": "embedding", "index": 0, "embedding": [0.25, 0.5, 0.75]}
    usage = {"prompt_tokens": 1, "total_tokens": 1}
    return {"object": "list", "data": [one], "model": body["model"], "usage": usage}


def response(said: Saying) -> Json:
    """A finished answer of Responses, with its one item of output."""
    part = {"type": "output_text", "text": said.text, "annotations": [], "logprobs": []}
    item: Json = {"id": new_id("msg_"), "type": "message", "status": "completed"}
    item |= {"role": "assistant", "content": [part]}
    if said.name:
        item = {"id": new_id("fc_"), "type": "function_call", "status": "completed"}
        item |= {"name": said.name, "call_id": f"call_{said.name}"}
        item |= {"arguments": said.text}
    return {
        "id": new_id("resp_"),
        "object": "response",
        "created_at": int(time.time()),
        "status": "completed",
        "model": said.model,
        "output": [item],
        "usage": said.usage("input_tokens", "output_tokens")
        | {"input_tokens_details": {"cached_tokens": 0}}
        | {"output_tokens_details": {"reasoning_tokens": 0}},
    }


def response_events(whole: Json, said: Saying) -> Iterator[bytes]:
    """The typed events of a streamed answer of Responses, numbered."""
    (item,) = whole["output"]
    started = whole | {"status": "in_progress", "output": [], "usage": None}
    at: Json = {"item_id": item["id"], "output_index": 0}
    kind, field, first, last = "function_call_arguments", "arguments", [], []
    empty: Json = {"status": "in_progress", field: ""}
    if not said.name:
        kind, field, (part,) = "output_text", "text", item["content"]
        at |= {"content_index": 0, "logprobs": []}
        first = [("content_part.added", at | {"part": part | {"text": ""}})]
        last = [("content_part.done", at | {"part": part})]
        empty = {"status": "in_progress", "content": []}
    events: list[tuple[str, Json]] = [
        ("created", {"response": started}),
        ("in_progress", {"response": started}),
        ("output_item.added", {"output_index": 0, "item": item | empty}),
        *first,
        *((f"{kind}.delta", at | {"delta": piece}) for piece in said.pieces),
        (f"{kind}.done", at | {field: said.text}),
        *last,
        ("output_item.done", {"output_index": 0, "item": item}),
        ("completed", {"response": whole}),
    ]
    for number, (step, fields) in enumerate(events):
        name = f"response.{step}"
        yield event({"type": name, "sequence_number": number} | fields, name)


def message(said: Saying) -> Json:
    """A regular answer of Messages."""
    block: Json = {"type": "text", "text": said.text}
    if said.name:
        block = {"type": "tool_use", "id": f"toolu_{said.name}", "name": said.name}
        block |= {"input": json.loads(said.text)}
    return {
        "id": new_id("msg_"),
        "type": "message",
        "role": "assistant",
        "model": said.model,
        "content": [block],
        "stop_reason": "tool_use" if said.name else "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": said.heard, "output_tokens": len(said.pieces)},
    }


def message_events(whole: Json, said: Saying) -> Iterator[bytes]:
    """The typed events of a streamed answer of Messages."""
    (block,) = whole["content"]
    empty: Json = {"input": {}} if said.name else {"text": ""}
    kind, field = ("text_delta", "text")
    if said.name:
        kind, field = ("input_json_delta", "partial_json")
    deltas = [{"type": kind, field: piece} for piece in said.pieces]
    ending = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
    usage = {"output_tokens": len(said.pieces)}
    events: list[tuple[str, Json]] = [
        ("message_start", {"message": whole | {"content": [], "stop_reason": None}}),
        ("content_block_start", {"index": 0, "content_block": block | empty}),
        ("ping", {}),
        *(("content_block_delta", {"index": 0, "delta": delta}) for delta in deltas),
        ("content_block_stop", {"index": 0}),
        ("message_delta", {"delta": ending, "usage": usage}),
        ("message_stop", {}),
    ]
    return (event({"type": name} | fields, name) for name, fields in events)
