"""The completion of a request, and its four formats.

Chat Completions, Embeddings, Responses and Messages, buffered and streamed.
"""

import json
import re
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass

from tests.support.wire import Json, event

# They fit the parameters of `weather`, the tool that `make clients` offers.
_ARGUMENTS = {"city": "Paris"}


@dataclass(frozen=True)
class Completion:
    """A text, or a call of the tool `tool` with `text` as its JSON arguments.

    A token is a word.
    """

    model: str
    text: str
    tool: str
    input_tokens: int

    @property
    def words(self) -> list[str]:
        """The parts of a stream: each word with the space after it."""
        return re.findall(r"\S+\s*", self.text)

    def usage(self, input_name: str, output_name: str) -> Json:
        """Return the token counts under the names of one format."""
        output = len(self.words)
        total = self.input_tokens + output
        return {
            input_name: self.input_tokens,
            output_name: output,
            "total_tokens": total,
        }


def complete(body: Json) -> Completion:
    """Call the first tool of a request, or else repeat its last message."""
    messages = body.get("messages") or body["input"]
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    input_tokens = sum(len(_text(message).split()) for message in messages)
    last, model = messages[-1], body["model"]
    has_result = _is_tool_result(last)
    if body.get("tools") and not has_result:
        tool = body["tools"][0]
        name = tool.get("function", tool)["name"]
        return Completion(model, json.dumps(_ARGUMENTS), name, input_tokens)
    verb = "read" if has_result else "heard"
    return Completion(model, f"{model} {verb}: {_text(last)}", "", input_tokens)


def _is_tool_result(message: Json) -> bool:
    if message.get("role") == "tool" or message.get("type") == "function_call_output":
        return True
    parts = message.get("content")
    return isinstance(parts, list) and any(
        p.get("type") == "tool_result" for p in parts
    )


def _text(message: Json) -> str:
    content = message.get("content", message.get("output")) or ""
    if isinstance(content, str):
        return content
    # A tool result of Messages has a text, or parts like these, inside it.
    texts = (part.get("text") or _text(part) for part in content)
    return " ".join(filter(None, texts))


def new_id(prefix: str) -> str:
    return f"{prefix}{secrets.token_hex(12)}"


def envelope(kind: str, model: str) -> Json:
    """Return the fields that every object of Chat Completions has."""
    fields = {"id": new_id("chatcmpl-"), "created": int(time.time())}
    return fields | {"object": kind, "model": model}


def chat_usage(completion: Completion) -> Json:
    return completion.usage("prompt_tokens", "completion_tokens")


def chat_reason(completion: Completion) -> str:
    return "tool_calls" if completion.tool else "stop"


def chat_call(completion: Completion) -> Json:
    """Return the entry in `tool_calls`."""
    function = {"name": completion.tool, "arguments": completion.text}
    return {"id": f"call_{completion.tool}", "type": "function", "function": function}


def chat(completion: Completion, call: Json) -> Json:
    message: Json = {"role": "assistant", "content": completion.text}
    if completion.tool:
        message |= {"content": None, "tool_calls": [call]}
    choice = {"index": 0, "message": message, "finish_reason": chat_reason(completion)}
    start = envelope("chat.completion", completion.model)
    return start | {"choices": [choice], "usage": chat_usage(completion)}


def chat_chunks(body: Json, completion: Completion) -> Iterator[Json]:
    """Yield the chunks of Chat Completions as OpenAI and Anthropic stream them."""
    start = envelope("chat.completion.chunk", completion.model)
    wants_usage = (body.get("stream_options") or {}).get("include_usage")
    start |= {"usage": None} if wants_usage else {}
    for delta in _chat_deltas(completion):
        yield start | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    last = {"index": 0, "delta": {}, "finish_reason": chat_reason(completion)}
    yield start | {"choices": [last]}
    if wants_usage:
        yield start | {"choices": [], "usage": chat_usage(completion)}


def _chat_deltas(completion: Completion) -> Iterator[Json]:
    yield {"role": "assistant", "content": None if completion.tool else ""}
    if completion.tool:
        call = chat_call(completion) | {
            "function": {"name": completion.tool, "arguments": ""}
        }
        yield {"tool_calls": [{"index": 0} | call]}
    for word in completion.words:
        part = {"index": 0, "function": {"arguments": word}}
        yield {"tool_calls": [part]} if completion.tool else {"content": word}


def embeddings(body: Json) -> Json:
    one = {"object": "embedding", "index": 0, "embedding": [0.25, 0.5, 0.75]}
    usage = {"prompt_tokens": 1, "total_tokens": 1}
    return {"object": "list", "data": [one], "model": body["model"], "usage": usage}


def response(completion: Completion) -> Json:
    """Return a completed response of the Responses API, with one output item."""
    part = {
        "type": "output_text",
        "text": completion.text,
        "annotations": [],
        "logprobs": [],
    }
    item: Json = {"id": new_id("msg_"), "type": "message", "status": "completed"}
    item |= {"role": "assistant", "content": [part]}
    if completion.tool:
        item = {"id": new_id("fc_"), "type": "function_call", "status": "completed"}
        item |= {"name": completion.tool, "call_id": f"call_{completion.tool}"}
        item |= {"arguments": completion.text}
    return {
        "id": new_id("resp_"),
        "object": "response",
        "created_at": int(time.time()),
        "status": "completed",
        "model": completion.model,
        "output": [item],
        "usage": completion.usage("input_tokens", "output_tokens")
        | {"input_tokens_details": {"cached_tokens": 0}}
        | {"output_tokens_details": {"reasoning_tokens": 0}},
    }


def response_events(full: Json, completion: Completion) -> Iterator[bytes]:
    """Yield the numbered events of a stream of the Responses API."""
    (item,) = full["output"]
    started = full | {"status": "in_progress", "output": [], "usage": None}
    at: Json = {"item_id": item["id"], "output_index": 0}
    kind, field, first, last = "function_call_arguments", "arguments", [], []
    empty: Json = {"status": "in_progress", field: ""}
    if not completion.tool:
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
        *((f"{kind}.delta", at | {"delta": word}) for word in completion.words),
        (f"{kind}.done", at | {field: completion.text}),
        *last,
        ("output_item.done", {"output_index": 0, "item": item}),
        ("completed", {"response": full}),
    ]
    for number, (step, fields) in enumerate(events):
        name = f"response.{step}"
        yield event({"type": name, "sequence_number": number} | fields, name)


def message(completion: Completion) -> Json:
    """Return a buffered response of the Messages API."""
    block: Json = {"type": "text", "text": completion.text}
    if completion.tool:
        block = {
            "type": "tool_use",
            "id": f"toolu_{completion.tool}",
            "name": completion.tool,
        }
        block |= {"input": json.loads(completion.text)}
    return {
        "id": new_id("msg_"),
        "type": "message",
        "role": "assistant",
        "model": completion.model,
        "content": [block],
        "stop_reason": "tool_use" if completion.tool else "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": completion.input_tokens,
            "output_tokens": len(completion.words),
        },
    }


def message_events(full: Json, completion: Completion) -> Iterator[bytes]:
    """Yield the events of a stream of the Messages API."""
    (block,) = full["content"]
    empty: Json = {"input": {}} if completion.tool else {"text": ""}
    kind, field = ("text_delta", "text")
    if completion.tool:
        kind, field = ("input_json_delta", "partial_json")
    deltas = [{"type": kind, field: word} for word in completion.words]
    ending = {"stop_reason": full["stop_reason"], "stop_sequence": None}
    usage = {"output_tokens": len(completion.words)}
    events: list[tuple[str, Json]] = [
        ("message_start", {"message": full | {"content": [], "stop_reason": None}}),
        ("content_block_start", {"index": 0, "content_block": block | empty}),
        ("ping", {}),
        *(("content_block_delta", {"index": 0, "delta": delta}) for delta in deltas),
        ("content_block_stop", {"index": 0}),
        ("message_delta", {"delta": ending, "usage": usage}),
        ("message_stop", {}),
    ]
    return (event({"type": name} | fields, name) for name, fields in events)
