"""What the upstream gets is what the caller sent, with the model's name replaced."""

import json

import httpx
import pytest

from tests.calls import CHAT, COMPLETIONS, EMBEDDINGS, ROUTES, call, chat
from tests.scripts import answering
from tests.server import Server
from tests.upstream import Upstream

# JSON text that stands beside the model's name, and has to arrive byte by byte.
ON_EVERY_ROUTE = {
    "unknown field": '"made_up":{"nested":[1,{"deeper":true}]}',
    "field of another vendor": '"google":{"safety_settings":[]},"top_k":40',
    "null": '"seed":null,"stop":null,"user":null',
    "literal extra_body": '"extra_body":{"google":{"cached_content":"c/1"},"n":null}',
    "literal extra_headers": '"extra_headers":{"x-made-up":"1"},"extra_query":{}',
    "false and zero": '"store":false,"n":0,"metadata":{},"stop":[],"suffix":""',
    "integer beyond 53 bits": '"seed":9007199254740993',
    "integer beyond 64 bits": '"seed":-123456789012345678901234567890',
    "decimal with a zero behind": '"temperature":1.0,"top_p":0.10',
    "decimal with exponent": '"top_p":1e-7,"a":1E+2,"b":-0.0,"c":1e400',
    "decimal beyond a double": '"top_p":0.1000000000000000055511151231257827',
    "escapes as written": r'"user":"\u00e9\ud83d\ude00\u0000\/\b\t\n\"\\"',
    "letters as written": '"user":"é 😀 漢 \u2028 \u202e \x7f"',
    "model named elsewhere": '"user":"\\"model\\":\\"openai/gpt-4o\\"","models":["a"]',
    "same name twice inside": '"metadata":{"a":1,"a":2,"A":3}',
    "spaces inside": '"metadata":{ "a" :\t[ 1 ,\r\n 2 ] }',
    "empty name": '"":1',
}
IN_CHAT = {
    "no messages": '"messages":[]',
    "tool call with extra_content": '"messages":[{"role":"assistant","tool_calls":[{'
    '"id":"","type":"function","function":{"name":"f","arguments":"{}"},'
    '"extra_content":{"google":{"thought_signature":"c2ln"}}}]},'
    '{"role":"tool","tool_call_id":"","content":"1"}]',
    "assistant without content": '"messages":[{"role":"assistant","content":null,'
    '"refusal":null,"audio":{"id":"audio_1"},"reasoning_content":"hm"}]',
    "cache_control": '"messages":[{"role":"system","content":[{"type":"text",'
    '"text":"long","cache_control":{"type":"ephemeral","ttl":"1h"}}]}]',
    "audio part": '"messages":[{"role":"user","content":[{"type":"input_audio",'
    '"input_audio":{"data":"AAAA","format":"wav"}}]}]',
    "file part": '"messages":[{"role":"user","content":[{"type":"file",'
    '"file":{"filename":"a.pdf","file_data":"data:application/pdf;base64,AA=="}}]}]',
    "image part": '"messages":[{"role":"user","content":[{"type":"image_url",'
    '"image_url":{"url":"data:image/png;base64,AA==","detail":"high"}}]}]',
    "part of an unknown type": '"messages":[{"role":"user","content":[{"type":"new",'
    '"new":1}]}]',
    "role function": '"messages":[{"role":"function","name":"f","content":"1"}]',
    "role developer": '"messages":[{"role":"developer","content":"d","name":"n"}]',
    "unknown role": '"messages":[{"role":"critic","content":7}]',
    "custom tool": '"tools":[{"type":"custom","custom":{"name":"sql","format":'
    '{"type":"grammar","grammar":{"syntax":"lark","definition":"start: 1"}}}}],'
    '"tool_choice":{"type":"custom","custom":{"name":"sql"}}',
    "tool_choice without tools": '"tool_choice":"none"',
    "tool_choice none": '"tools":[{"type":"function","function":{"name":"f",'
    '"strict":null}}],"tool_choice":"none"',
    "functions": '"functions":[{"name":"f"}],"function_call":{"name":"f"}',
    "structured output": '"response_format":{"type":"json_schema","json_schema":'
    '{"name":"n","strict":true,"schema":{"$defs":{"a":{"const":1.0}}}}}',
    "audio output": '"modalities":["text","audio"],"audio":{"voice":"alloy"}',
    "prediction": '"prediction":{"type":"content","content":"x"},"verbosity":"low"',
    "logit_bias": '"logit_bias":{"50256":-100},"logprobs":true,"top_logprobs":0',
    "reasoning": '"reasoning_effort":"minimal","thinking":{"type":"enabled"}',
    "stream options": '"stream":false,"stream_options":{"include_usage":true}',
}
IN_COMPLETIONS = {
    "prompts": '"prompt":["a","b"],"suffix":null,"echo":true,"best_of":2',
    "prompt in tokens": '"prompt":[[1,2],[3]],"logprobs":5',
}
IN_EMBEDDINGS = {
    "inputs in tokens": '"input":[[1,2],[3]],"encoding_format":"base64"',
    "unknown input type": '"input":{"image":"AA=="},"dimensions":1.0,"task":"q"',
}
CASES = [
    *((route, what) for route in ROUTES for what in ON_EVERY_ROUTE.items()),
    *((CHAT, what) for what in IN_CHAT.items()),
    *((COMPLETIONS, what) for what in IN_COMPLETIONS.items()),
    *((EMBEDDINGS, what) for what in IN_EMBEDDINGS.items()),
]


def _arrived(
    server: Server, upstream: Upstream, http: httpx.Client, route: str, body: bytes
) -> bytes:
    upstream.openai.answer_with(answering())
    call(http, server.url, body, route=route)
    (arrived,) = upstream.openai.calls
    return arrived.body


@pytest.mark.parametrize(
    ("route", "text"),
    [(route, text) for route, (_, text) in CASES],
    ids=[f"{route.removeprefix('/v1/')}: {name}" for route, (name, _) in CASES],
)
def test_a_field_arrives_as_written(
    server: Server, upstream: Upstream, http: httpx.Client, route: str, text: str
) -> None:
    """Byte for byte: nothing is added, dropped, reordered or written differently."""
    sent = f'{{"first":1,"model":"openai/m-1",{text},"last":2}}'.encode()

    expected = f'{{"first":1,"model":"m-1",{text},"last":2}}'.encode()
    assert expected == _arrived(server, upstream, http, route, sent)


@pytest.mark.parametrize("vendor", ["OpenAI", "Gemini", "Anthropic"])
def test_it_is_the_same_for_every_vendor(
    server: Server, upstream: Upstream, http: httpx.Client, vendor: str
) -> None:
    """No vendor's requests are changed, not even where the vendor will refuse them."""
    upstream.named(vendor).answer_with(answering())
    texts = [*ON_EVERY_ROUTE.values(), *IN_CHAT.values()]

    for text in texts:
        call(http, server.url, f'{{"model":"{vendor.lower()}/m-1",{text}}}'.encode())

    expected = [f'{{"model":"m-1",{text}}}'.encode() for text in texts]
    assert expected == [arrived.body for arrived in upstream.named(vendor).calls]


def test_line_breaks_between_fields_mean_nothing(
    server: Server, upstream: Upstream, http: httpx.Client
) -> None:
    """A body that a person laid out arrives with the same fields in the same order."""
    body = json.loads(chat(user="é", tools=[{"a": 1.0}]))

    arrived = _arrived(
        server, upstream, http, CHAT, json.dumps(body, indent=4).encode()
    )

    expected = body | {"model": "gpt-4o"}
    assert list(expected.items()) == list(json.loads(arrived).items())


def test_an_escaped_name_is_the_same_name(
    server: Server, upstream: Upstream, http: httpx.Client
) -> None:
    r"""`\u006dodel` is the model, and other names keep their letters."""
    sent = rb'{"caf\u00e9":1,"\u006dodel":"openai\/m-1","\ud83d\ude00":2,"\t\"":3}'

    arrived = _arrived(server, upstream, http, CHAT, sent)

    expected = {"café": 1, "model": "m-1", "😀": 2, '\t"': 3}
    assert expected == json.loads(arrived)
