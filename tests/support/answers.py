"""What a model says to a request, and the four forms in which it is told.

Chat Completions, Embeddings, Responses, and Messages.
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
    def pieces(self) -> list[str]:
        """What is streamed, each word with the space behind it."""
        return re.findall(r"\S+\s*", self.text or self.arguments)

    def usage(self, heard: str, said: str) -> Json:
        """The tokens under the names of a form, a token being a word."""
        count = len(self.pieces)
        return {heard: self.heard, said: count, "total_tokens": self.heard + count}


def say(body: Json) -> Saying:
    """Answer a request of any of the forms."""
    turns = body.get("messages", body.get("input"))
    if not isinstance(turns, list):
        turns = [{"role": "user", "content": turns}]
    heard = sum(len(_text(turn).split()) for turn in turns)
    said = Saying(body["model"], heard=heard)
    last, tool = turns[-1], _tool(body)
    is_result = last.get("role") == "tool" or "result" in json.dumps(last)
    is_result = is_result or last.get("type") == "function_call_output"
    if tool and not is_result:
        wanted = tool.get("parameters") or tool.get("input_schema") or {}
        return replace(said, name=tool["name"], arguments=json.dumps(_example(wanted)))
    verb = "read" if is_result else "heard"
    return replace(said, text=f"{said.model} {verb}: {_text(last)}")


def _text(turn: Json) -> str:
    content = turn.get("content", turn.get("output")) or ""
    if isinstance(content, str):
        return content
    # A result in Messages has a text or parts of its own inside.
    texts = (part.get("text") or _text(part) for part in content)
    return " ".join(filter(None, texts))


def _tool(body: Json) -> Json | None:
    """The tool that is called: the one that is forced, or else the first."""
    tools = [tool.get("function", tool) for tool in body.get("tools") or []]
    choice: Any = body.get("tool_choice") or {}
    choice = {"type": choice} if isinstance(choice, str) else choice
    if choice.get("type") == "none":
        return None
    forced = choice.get("function", choice).get("name")
    return next((t for t in tools if t["name"] == (forced or t["name"])), None)


def _example(schema: Json) -> Any:  # noqa: ANN401 - any JSON
    """A value that fits a plain JSON schema, the same for the same schema."""
    if "enum" in schema:
        return schema["enum"][0]
    if schema.get("type") == "array":
        return [_example(schema.get("items", {}))]
    if schema.get("type") == "object":
        properties = schema.get("properties", {})
        wanted = schema.get("required") or properties
        return {name: _example(properties[name]) for name in wanted}
    by_type = {"integer": 7, "number": 1.5, "boolean": True, "null": None}
    return by_type.get(schema.get("type", "string"), "Paris")


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
    function = {"name": said.name, "arguments": said.arguments}
    return {"id": said.call_id, "type": "function", "function": function}


def chat(said: Saying, call: Json) -> Json:
    message: Json = {"role": "assistant", "content": said.text or None}
    message |= {"tool_calls": [call]} if said.name else {}
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


def response(body: Json, said: Saying) -> Json:
    """A finished answer of Responses, with its one item of output."""
    usage = said.usage("input_tokens", "output_tokens")
    return {
        "id": new_id("resp_"),
        "object": "response",
        "created_at": int(time.time()),
        "status": "completed",
        "model": said.model,
        "output": [_response_item(said)],
        "parallel_tool_calls": True,
        "tool_choice": body.get("tool_choice", "auto"),
        "tools": body.get("tools", []),
        "usage": usage
        | {"input_tokens_details": {"cached_tokens": 0}}
        | {"output_tokens_details": {"reasoning_tokens": 0}},
    }


def _response_item(said: Saying) -> Json:
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
    empty: Json = {"arguments": ""} if said.name else {"content": []}
    empty |= {"status": "in_progress"}
    events: list[tuple[str, Json]] = [
        ("created", {"response": started}),
        ("in_progress", {"response": started}),
        ("output_item.added", {"output_index": 0, "item": item | empty}),
        *_response_deltas(item, said),
        ("output_item.done", {"output_index": 0, "item": item}),
        ("completed", {"response": whole}),
    ]
    for number, (kind, fields) in enumerate(events):
        name = f"response.{kind}"
        yield event({"type": name, "sequence_number": number} | fields, name)


def _response_deltas(item: Json, said: Saying) -> Iterator[tuple[str, Json]]:
    at: Json = {"item_id": item["id"], "output_index": 0}
    if said.name:
        for piece in said.pieces:
            yield "function_call_arguments.delta", at | {"delta": piece}
        yield "function_call_arguments.done", at | {"arguments": said.arguments}
        return
    (part,) = item["content"]
    at |= {"content_index": 0}
    yield "content_part.added", at | {"part": part | {"text": ""}}
    for piece in said.pieces:
        yield "output_text.delta", at | {"delta": piece, "logprobs": []}
    yield "output_text.done", at | {"text": said.text, "logprobs": []}
    yield "content_part.done", at | {"part": part}


def message(said: Saying) -> Json:
    """A regular answer of Messages."""
    block: Json = {"type": "text", "text": said.text}
    if said.name:
        block = {"type": "tool_use", "id": f"toolu_{said.name}", "name": said.name}
        block |= {"input": json.loads(said.arguments)}
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
