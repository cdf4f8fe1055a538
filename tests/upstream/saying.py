"""What a model says to a request, before a dialect puts it into its form."""

import json
from dataclasses import dataclass
from typing import Any

from tests.upstream.refusal import Reason, RefusalError
from tests.upstream.reply import Json


@dataclass(frozen=True)
class FunctionCall:
    """A call of a tool: its name, and its arguments as JSON text."""

    name: str
    arguments: str

    @property
    def call_id(self) -> str:
        """The same for the same function, so that a second turn can be checked."""
        return f"call_{self.name}"


@dataclass(frozen=True)
class Saying:
    """What the model says: a text, or a call of a tool."""

    text: str = ""
    call: FunctionCall | None = None

    @property
    def finish_reason(self) -> str:
        """Why it stops."""
        return "tool_calls" if self.call else "stop"

    def usage(self, body: Json) -> Json:
        """The tokens used, a token being a word."""
        prompt = sum(len(text_of(message).split()) for message in body["messages"])
        completion = len(self.text.split()) or 1
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
        }


def say(body: Json, *, keeps_to_schema: bool = True) -> Saying:
    """Answer a chat request.

    Args:
        body: The request.
        keeps_to_schema: Whether `response_format` is honoured (Anthropic does not).

    Raises:
        RefusalError: There are no messages.
    """
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        detail = "Missing required parameter: 'messages'."
        raise RefusalError(Reason.INVALID_REQUEST, detail)
    last = messages[-1]
    is_result = last.get("role") in {"tool", "function"}
    tool = _wanted_tool(body)
    if tool and not is_result:
        arguments = json.dumps(example(tool.get("parameters", {})))
        return Saying(call=FunctionCall(tool["name"], arguments))
    if keeps_to_schema and (schema := _wanted_schema(body)):
        return Saying(json.dumps(example(schema)))
    verb = "read" if is_result else "heard"
    return Saying(f"{body['model']} {verb}: {text_of(last)}{_images_in(last)}")


def text_of(message: Json) -> str:
    """The text of a message, whether it is a string or in parts."""
    content = message.get("content")
    if not isinstance(content, list):
        return content if isinstance(content, str) else ""
    return " ".join(part["text"] for part in content if "text" in part)


def _images_in(message: Json) -> str:
    content = message.get("content")
    parts = content if isinstance(content, list) else []
    images = sum(part.get("type") == "image_url" for part in parts)
    return f" ({images} images)" if images else ""


def _wanted_tool(body: Json) -> Json | None:
    functions = [t["function"] for t in body.get("tools") or [] if "function" in t]
    choice = body.get("tool_choice")
    if choice == "none" or not functions:
        return None
    forced = choice["function"]["name"] if isinstance(choice, dict) else None
    named: list[Json] = [f for f in functions if f["name"] == (forced or f["name"])]
    return named[0] if named else None


def _wanted_schema(body: Json) -> Json | None:
    wanted = body.get("response_format") or {}
    if wanted.get("type") == "json_object":
        return {"type": "object", "properties": {"answer": {"type": "string"}}}
    schema: Json | None = wanted.get("json_schema", {}).get("schema")
    return schema


def example(schema: Json, root: Json | None = None) -> Any:  # noqa: ANN401 - any JSON
    """A value that fits a JSON schema, the same for the same schema.

    Args:
        schema: The schema; the usual keywords are understood.
        root: Where `$ref` looks things up; the schema itself when left out.
    """
    root = schema if root is None else root
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return example(root["$defs"][name], root)
    for keyword in ("anyOf", "oneOf", "allOf"):
        if keyword in schema:
            return example(schema[keyword][0], root)
    if "enum" in schema:
        return schema["enum"][0]
    if schema.get("type") == "array":
        return [example(schema.get("items", {}), root)]
    if schema.get("type") == "object":
        properties = schema.get("properties", {})
        return {name: example(value, root) for name, value in properties.items()}
    by_type = {"integer": 7, "number": 1.5, "boolean": True, "null": None}
    return schema.get("const", by_type.get(schema.get("type", "string"), "Paris"))
