"""What a model says to a request, and the four forms in which it is told.

Chat Completions, Completions and Embeddings, Responses, and Messages.
"""

import json
import re
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from tests.support.wire import Json, event


@dataclass(frozen=True)
class Saying:
    """A text, or a call of the tool `name` with JSON text as its arguments."""

    model: str
    text: str = ""
    name: str = ""
    arguments: str = ""
    heard: int = 0

    @property
    def call_id(self) -> str:
        """The same for the same function, so that a second turn can be checked."""
        return f"call_{self.name}"

    @property
    def said(self) -> int:
        """The tokens of the answer, a token being a word."""
        return len((self.text or self.arguments).split())

    @property
    def pieces(self) -> list[str]:
        """What is streamed, each word with the space behind it."""
        return re.findall(r"\S+\s*", self.text or self.arguments)


def say(body: Json) -> Saying:
    """Answer a request of any of the forms."""
    turns = body.get("messages", body.get("input"))
    if not isinstance(turns, list):
        turns = [{"role": "user", "content": turns or ""}]
    heard = sum(len(_text(turn).split()) for turn in turns)
    said = Saying(body["model"], heard=heard)
    last, tool = turns[-1], _tool(body)
    is_result = "result" in json.dumps(last) or last.get("role") == "tool"
    is_result = is_result or last.get("type") == "function_call_output"
    if tool and not is_result:
        wanted = tool.get("parameters") or tool.get("input_schema") or {}
        return replace(said, name=tool["name"], arguments=json.dumps(example(wanted)))
    verb = "read" if is_result else "heard"
    return replace(said, text=f"{said.model} {verb}: {_text(last)}")


def _parts(turn: Json) -> list[Json]:
    content = turn.get("content", turn.get("output"))
    parts = content if isinstance(content, list) else [{"text": content or ""}]
    return [inner for part in parts for inner in (part, *_inside(part))]


def _inside(part: Json) -> list[Json]:
    """What a result of Messages has inside: a text, or parts of its own."""
    return _parts(part) if part.get("type") == "tool_result" else []


def _text(turn: Json) -> str:
    return " ".join(part["text"] for part in _parts(turn) if "text" in part)


def _tool(body: Json) -> Json | None:
    """The tool that is called: the one that is forced, or else the first."""
    tools = [tool.get("function", tool) for tool in body.get("tools") or []]
    choice: Any = body.get("tool_choice") or {}
    choice = {"type": choice} if isinstance(choice, str) else choice
    if choice.get("type") == "none":
        return None
    forced = choice.get("function", choice).get("name")
    return next((t for t in tools if t["name"] == (forced or t["name"])), None)


def example(schema: Json) -> Any:  # noqa: ANN401 - any JSON
    """A value that fits a plain JSON schema, the same for the same schema."""
    if "enum" in schema:
        return schema["enum"][0]
    if schema.get("type") == "array":
        return [example(schema.get("items", {}))]
    if schema.get("type") == "object":
        properties = schema.get("properties", {})
        wanted = schema.get("required") or properties
        return {name: example(properties[name]) for name in wanted}
    by_type = {"integer": 7, "number": 1.5, "boolean": True, "null": None}
    return by_type.get(schema.get("type", "string"), "Paris")


def new_id(prefix: str) -> str:
    """An id as the vendors make them."""
    return f"{prefix}{secrets.token_hex(12)}"


def envelope(kind: str, model: str, prefix: str = "chatcmpl-") -> Json:
    """What every answer and chunk of OpenAI's older forms begins with."""
    now = int(time.time())
    return {"id": new_id(prefix), "object": kind, "created": now, "model": model}


def usage(said: Saying) -> Json:
    """The tokens used, as Chat Completions counts them."""
    counts = {"prompt_tokens": said.heard, "completion_tokens": said.said}
    return counts | {"total_tokens": said.heard + said.said}


def chat_call(said: Saying) -> Json:
    """The entry in `tool_calls`."""
    function = {"name": said.name, "arguments": said.arguments}
    return {"id": said.call_id, "type": "function", "function": function}


def chat(said: Saying, call: Json) -> Json:
    """A regular answer of Chat Completions."""
    message: Json = {"role": "assistant", "content": said.text or None}
    message |= {"tool_calls": [call]} if said.name else {}
    reason = "tool_calls" if said.name else "stop"
    choice = {"index": 0, "message": message, "finish_reason": reason}
    start = envelope("chat.completion", said.model)
    return start | {"choices": [choice], "usage": usage(said)}


def chat_chunks(body: Json, said: Saying) -> Iterator[Json]:
    """The chunks of Chat Completions, as OpenAI and Anthropic stream them."""
    start = envelope("chat.completion.chunk", said.model)
    wants_usage = bool((body.get("stream_options") or {}).get("include_usage"))
    if wants_usage:
        start["usage"] = None
    for delta in _chat_deltas(said):
        yield start | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    reason = "tool_calls" if said.name else "stop"
    yield start | {"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}
    if wants_usage:
        yield start | {"choices": [], "usage": usage(said)}


def _chat_deltas(said: Saying) -> Iterator[Json]:
    yield {"role": "assistant", "content": None if said.name else ""}
    if said.name:
        call = chat_call(said) | {"function": {"name": said.name, "arguments": ""}}
        yield {"tool_calls": [{"index": 0} | call]}
    for piece in said.pieces:
        part = {"index": 0, "function": {"arguments": piece}}
        yield {"tool_calls": [part]} if said.name else {"content": piece}


def completion(body: Json) -> tuple[Json, list[bytes]]:
    """An answer of Completions, and the events when it is streamed."""
    said = Saying(body["model"], f"{body['model']} heard: {body.get('prompt')}")
    start = envelope("text_completion", said.model, "cmpl-")

    def choice(text: str, reason: str | None) -> Json:
        fields = {"index": 0, "text": text, "logprobs": None, "finish_reason": reason}
        return start | {"choices": [fields]}

    chunks = [*(choice(piece, None) for piece in said.pieces), choice("", "stop")]
    return choice(said.text, "stop"), [event(chunk) for chunk in chunks]


def embeddings(body: Json) -> Json:
    """An answer of Embeddings."""
    given = body.get("input")
    # A list of integers is one input in tokens, any other list is several inputs.
    several = isinstance(given, list) and not all(isinstance(i, int) for i in given)
    count = len(given) if isinstance(given, list) and several else 1
    vectors = [[(number + place) / 8 for place in range(8)] for number in range(count)]
    data = [
        {"object": "embedding", "index": number, "embedding": vector}
        for number, vector in enumerate(vectors)
    ]
    tokens = {"prompt_tokens": count, "total_tokens": count}
    return {"object": "list", "data": data, "model": body["model"], "usage": tokens}


_RESPONSE: Json = {
    "object": "response",
    "status": "completed",
    **dict.fromkeys(["error", "incomplete_details", "instructions"]),
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "store": True,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": 1.0,
    "metadata": {},
}


def response(body: Json, said: Saying, output: Json) -> Json:
    """A finished answer of Responses, with its one item of output."""
    counts: Json = {"input_tokens": said.heard, "output_tokens": said.said}
    counts |= {"input_tokens_details": {"cached_tokens": 0}}
    counts |= {"output_tokens_details": {"reasoning_tokens": 0}}
    counts |= {"total_tokens": said.heard + said.said}
    echoed = {name: body[name] for name in _RESPONSE.keys() & body.keys()}
    own = {"id": new_id("resp_"), "created_at": int(time.time()), "model": said.model}
    return _RESPONSE | echoed | own | {"output": [output], "usage": counts}


def response_item(said: Saying) -> Json:
    """The item of output: a message, or the call of a function."""
    if said.name:
        call = {"name": said.name, "arguments": said.arguments, "call_id": said.call_id}
        item = {"id": new_id("fc_"), "type": "function_call", "status": "completed"}
        return item | call
    part = {"type": "output_text", "text": said.text, "annotations": [], "logprobs": []}
    item = {"id": new_id("msg_"), "type": "message", "status": "completed"}
    return item | {"role": "assistant", "content": [part]}


def response_events(whole: Json, said: Saying) -> Iterator[bytes]:
    """The typed events of a streamed answer of Responses, numbered."""
    (item,) = whole["output"]
    started = whole | {"status": "in_progress", "output": [], "usage": None}
    events: list[tuple[str, Json]] = [
        ("created", {"response": started}),
        ("in_progress", {"response": started}),
        *_item_events(item, said),
        ("completed", {"response": whole}),
    ]
    for number, (kind, fields) in enumerate(events):
        name = f"response.{kind}"
        yield event({"type": name, "sequence_number": number} | fields, name)


def _item_events(item: Json, said: Saying) -> list[tuple[str, Json]]:
    started = item | {"status": "in_progress"}
    started["arguments" if said.name else "content"] = "" if said.name else []
    at: Json = {"item_id": item["id"], "output_index": 0}
    if said.name:
        name, done = "function_call_arguments", {"arguments": said.arguments}
        inner = [(f"{name}.delta", at | {"delta": piece}) for piece in said.pieces]
        inner.append((f"{name}.done", at | done))
    else:
        (part,) = item["content"]
        at |= {"content_index": 0}
        texts = [at | {"delta": piece, "logprobs": []} for piece in said.pieces]
        inner = [
            ("content_part.added", at | {"part": part | {"text": ""}}),
            *(("output_text.delta", text) for text in texts),
            ("output_text.done", at | {"text": said.text, "logprobs": []}),
            ("content_part.done", at | {"part": part}),
        ]
    return [
        ("output_item.added", {"output_index": 0, "item": started}),
        *inner,
        ("output_item.done", {"output_index": 0, "item": item}),
    ]


def message(said: Saying) -> Json:
    """A regular answer of Messages."""
    block: Json = {"type": "text", "text": said.text}
    if said.name:
        given = json.loads(said.arguments)
        block = {"type": "tool_use", "id": f"toolu_{said.name}", "name": said.name}
        block |= {"input": given}
    return {
        "id": new_id("msg_"),
        "type": "message",
        "role": "assistant",
        "model": said.model,
        "content": [block],
        "stop_reason": "tool_use" if said.name else "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": said.heard,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": said.said,
        },
    }


def message_events(whole: Json, said: Saying) -> Iterator[bytes]:
    """The typed events of a streamed answer of Messages."""
    (block,) = whole["content"]
    started = whole | {"content": [], "stop_reason": None}
    started |= {"usage": whole["usage"] | {"output_tokens": 1}}
    empty = block | {"input": {}} if said.name else block | {"text": ""}
    kind, field = ("text_delta", "text")
    if said.name:
        kind, field = ("input_json_delta", "partial_json")
    deltas = [{"type": kind, field: piece} for piece in said.pieces]
    ending = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
    events: list[tuple[str, Json]] = [
        ("message_start", {"message": started}),
        ("content_block_start", {"index": 0, "content_block": empty}),
        ("ping", {}),
        *(("content_block_delta", {"index": 0, "delta": delta}) for delta in deltas),
        ("content_block_stop", {"index": 0}),
        ("message_delta", {"delta": ending, "usage": {"output_tokens": said.said}}),
        ("message_stop", {}),
    ]
    return (event({"type": name} | fields, name) for name, fields in events)
