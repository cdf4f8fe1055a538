"""A stream passes event by event, as it arrives and as it is written."""

import gzip
import json
import zlib

import httpx
import pytest

from tests.calls import BEARER, CHAT, COMPLETIONS, Answer, call, chat, open_call
from tests.scripts import DONE, EVENTS, JSON, answering, streaming
from tests.server import Server
from tests.upstream import Gate, Handler, Upstream

LINE_ENDS = {"LF": b"\n", "CR LF": b"\r\n", "CR": b"\r"}
ASKING = chat(stream=True)

ODD_EVENTS = {
    "comment": b": keep-alive\n\n:\n\n",
    "fields beside data": b"event: ping\nid: 7\nretry: 10\ndata: {}\n\n",
    "data in lines": b'data: {"a":\ndata: 1}\n\n',
    "no space": b'data:{"a":1.0}\n\n',
    "no data": b"event: done\n\n",
    "blank lines": b"\n\n\n\r\n\r\r",
    "byte order mark": b"\xef\xbb\xbfdata: 1\n\n",
    "no UTF-8": b"data: \xff\xfe\x00\n\n",
    "no JSON": b"data: hello\n\n",
    "chunk without id": b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n',
    "chunk without choices": b'data: {"id":"1","usage":{"completion_tokens":3}}\n\n',
    "chunk with no choice": b'data: {"choices":[],"usage":null}\n\n',
    "usage of another form": b'data: {"usage":{"completion_tokens":null}}\n\n',
    "tool call without index": b'data: {"choices":[{"delta":{"tool_calls":[{"id":"",'
    b'"extra_content":{"google":{"thought_signature":"c2ln"}}}]}}]}\n\n',
    "numbers": b'data: {"a":9007199254740993,"b":1e-7,"c":1.0}\n\n',
    "letters": 'data: {"a":"é 😀 \\u00e9 \u2028"}\n\n'.encode(),
    "error": b'data: {"error":{"message":"overloaded","code":529}}\n\ndata: 2\n\n',
    "a whole stream in one": b"data: 1\n\ndata: 2\n\n" + DONE,
    "after the end": DONE + b"data: 3\n\n",
    "no blank line at the end": b"data: 1\n\ndata: [DONE]",
    "half a line at the end": b"data: 1\n\ndata: {",
    "nothing": b"",
}


def _streamed(
    server: Server, upstream: Upstream, http: httpx.Client, script: Handler
) -> Answer:
    """Let a script answer a streamed request, and give what the caller gets."""
    upstream.openai.answer_with(script)
    return call(http, server.url, ASKING)


@pytest.mark.parametrize("route", [CHAT, COMPLETIONS])
def test_events_arrive_one_by_one(
    server: Server, upstream: Upstream, http: httpx.Client, route: str
) -> None:
    """The upstream writes the next event only after the caller has seen this one."""
    events = [b'data: {"number":%d}\n\n' % number for number in range(20)]
    gates = [Gate() for _ in events]
    steps = [step for pair in zip(events, gates, strict=True) for step in pair]
    upstream.openai.answer_with(streaming(*steps, DONE))
    seen = []

    body = chat("openai/m-1", stream=True)
    with open_call(http, server.url, body, route=route) as stream:
        for event, gate in zip(events, gates, strict=True):
            seen.append(stream.read(len(event)))
            gate.open()
        rest = stream.rest()

    assert ([*events, DONE], 200) == ([*seen, rest], stream.status)


@pytest.mark.parametrize("line_end", LINE_ENDS.values(), ids=LINE_ENDS)
def test_an_event_split_anywhere_arrives_whole(
    server: Server, upstream: Upstream, http: httpx.Client, line_end: bytes
) -> None:
    """Cut after each of its bytes; the part before the cut waits for the other."""
    first = b"data: 1" + line_end * 2
    second = b": a" + line_end + b'data: "\xc3\xa9"' + line_end * 2
    seen = []

    for cut in range(1, len(second)):
        gate = Gate()
        steps = (first + second[:cut], gate, second[cut:])
        upstream.openai.answer_with(streaming(*steps))
        with open_call(http, server.url, ASKING) as stream:
            before = stream.read(len(first))
            gate.open()
            seen.append((before, stream.rest()))

    assert [(first, second)] * (len(second) - 1) == seen


@pytest.mark.parametrize("line_end", LINE_ENDS.values(), ids=LINE_ENDS)
def test_a_stream_in_single_bytes_arrives_whole(
    server: Server, upstream: Upstream, http: httpx.Client, line_end: bytes
) -> None:
    """However small the pieces are, none is lost."""
    body = (b"data: {}" + line_end * 2) * 20 + b"data: [DONE]" + line_end * 2
    pieces = [body[at : at + 1] for at in range(len(body))]

    assert body == _streamed(server, upstream, http, streaming(*pieces)).body


@pytest.mark.parametrize("body", ODD_EVENTS.values(), ids=ODD_EVENTS)
def test_an_event_arrives_as_written(
    server: Server, upstream: Upstream, http: httpx.Client, body: bytes
) -> None:
    """Nothing is added, not even an end that the upstream left out."""
    script = streaming(body) if body else streaming()

    answer = _streamed(server, upstream, http, script)

    assert (200, body) == (answer.status, answer.body)


@pytest.mark.parametrize("vendor", ["OpenAI", "Gemini", "Anthropic"])
def test_the_stream_of_every_vendor_arrives_as_written(
    server: Server, upstream: Upstream, http: httpx.Client, vendor: str
) -> None:
    """With its own gaps; the model is the upstream's own name."""
    body = b"".join(ODD_EVENTS.values())
    upstream.named(vendor).answer_with(streaming(body))

    model = f"{vendor.lower()}/m-1"
    answer = call(http, server.url, chat(model, stream=True))

    assert body == answer.body


@pytest.mark.parametrize("size", [64 * 1024, 1024 * 1024, 5 * 1024 * 1024])
def test_an_event_larger_than_any_buffer_arrives_whole(
    server: Server, upstream: Upstream, http: httpx.Client, size: int
) -> None:
    """Between small ones, in pieces that end anywhere."""
    large = b"data: " + b"".join(b"%08x" % n for n in range(size // 8)) + b"\n\n"
    body = b"data: 1\n\n" + large + b"data: 2\n\n" + large + DONE
    pieces = [body[at : at + 50_021] for at in range(0, len(body), 50_021)]

    assert body == _streamed(server, upstream, http, streaming(*pieces)).body


@pytest.mark.parametrize("line_end", LINE_ENDS.values(), ids=LINE_ENDS)
def test_a_large_event_does_not_wait_for_the_next(
    server: Server, upstream: Upstream, http: httpx.Client, line_end: bytes
) -> None:
    """It is whole as soon as its last byte is there, wherever that was cut off."""
    event = b"data: " + b"x" * 100_000 + line_end * 2
    seen = []

    for cut in range(1, len(line_end * 2)):
        gate, end = Gate(), Gate()
        steps = (event[:-cut], gate, event[-cut:], end)
        upstream.openai.answer_with(streaming(*steps))
        with open_call(http, server.url, ASKING) as stream:
            before = stream.read(100_000)
            gate.open()
            seen.append(before + stream.read(len(event) - len(before)))
            end.open()
            stream.rest()

    assert [event] * (len(line_end * 2) - 1) == seen


def test_a_stream_has_the_headers_of_an_answer(
    server: Server, upstream: Upstream, http: httpx.Client
) -> None:
    """Those of design and no other; it has no length."""
    relayed = {
        "content-type": "text/event-stream; charset=utf-8",
        "x-request-id": "req_1",
        "x-ratelimit-remaining-tokens": "7",
        "openai-processing-ms": "12",
    }
    dropped = {"set-cookie": "a=b", "cache-control": "no-cache", "x-accel": "no"}

    script = streaming(DONE, headers=relayed | dropped)
    answer = _streamed(server, upstream, http, script)

    own = {"date", "server", "transfer-encoding"}
    headers = {k: v for k, v in answer.headers.items() if k not in own}
    assert relayed == headers


def test_a_stream_of_a_known_length_arrives_whole(
    server: Server, upstream: Upstream, http: httpx.Client
) -> None:
    """An upstream that has the whole of it may say how long it is."""
    body = b"data: 1\n\n" + DONE

    answer = _streamed(server, upstream, http, answering(body, headers=EVENTS))

    assert (200, body) == (answer.status, answer.body)


def test_a_streamed_request_may_be_answered_with_json(
    server: Server, upstream: Upstream, http: httpx.Client
) -> None:
    """What the upstream says it is decides, and not what was asked for."""
    body = b'{"object":"chat.completion","choices":[]}'

    answer = _streamed(server, upstream, http, answering(body))

    assert (200, body, JSON["content-type"], str(len(body))) == (
        answer.status,
        answer.body,
        answer.headers["content-type"],
        answer.headers["content-length"],
    )


def test_a_regular_request_may_be_answered_with_a_stream(
    server: Server, upstream: Upstream, http: httpx.Client
) -> None:
    """Likewise: its events arrive one by one."""
    gate = Gate()
    upstream.openai.answer_with(streaming(b"data: 1\n\n", gate, DONE))

    with open_call(http, server.url, chat()) as stream:
        first = stream.read(1)
        gate.open()
        assert (first, stream.rest()) == (b"data: 1\n\n", DONE)


def test_a_stream_with_an_error_status_arrives(
    server: Server, upstream: Upstream, http: httpx.Client
) -> None:
    """Status and events, as the upstream sent them."""
    body = b'data: {"error":{"message":"m"}}\n\n'

    script = answering(body, status=529, headers=EVENTS)
    answer = _streamed(server, upstream, http, script)

    assert (529, body) == (answer.status, answer.body)


def test_a_compressed_stream_stays_compressed(
    server: Server, upstream: Upstream, http: httpx.Client
) -> None:
    """And arrives as it is sent: each piece that the upstream flushes on its own."""
    packer = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    first = packer.compress(b"data: 1\n\n") + packer.flush(zlib.Z_SYNC_FLUSH)
    last = packer.compress(DONE) + packer.flush()
    gate = Gate()
    headers = EVENTS | {"content-encoding": "gzip"}
    upstream.openai.answer_with(streaming(first, gate, last, headers=headers))

    accepting = BEARER | {"Accept-Encoding": "gzip"}
    with open_call(http, server.url, ASKING, headers=accepting) as stream:
        seen = stream.read(len(first))
        gate.open()
        rest = stream.rest()

    assert ("gzip", first, last) == (stream.headers["content-encoding"], seen, rest)
    assert gzip.decompress(seen + rest) == b"data: 1\n\n" + DONE


def test_the_vendors_own_stream_is_what_the_mock_sends(
    server: Server, upstream: Upstream, http: httpx.Client
) -> None:
    """Usage in a chunk without choices comes before `[DONE]`, because it was asked."""
    asking = chat(stream=True, stream_options={"include_usage": True})

    *events, done, _ = call(http, server.url, asking).body.split(b"\n\n")

    last = json.loads(events[-1].removeprefix(b"data: "))
    assert (b"data: [DONE]", [], {"prompt_tokens", "completion_tokens"}) == (
        done,
        last["choices"],
        set(last["usage"]) - {"total_tokens"},
    )
    assert len(upstream.openai.calls) == 1
