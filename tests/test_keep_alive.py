"""Keep-alives of an upstream reach the client at once, byte for byte."""

import json

import httpx
import pytest

from tests.support.http import CHAT, MESSAGES, RESPONSES, open_response, receive
from tests.support.upstream import Upstream
from tests.support.wire import (
    CLOSE,
    DONE,
    FIRST_EVENT,
    JSON,
    Gate,
    Step,
    response_head,
    stream,
)


@pytest.mark.parametrize(
    "keep_alive",
    [
        pytest.param(b": ping\n", id="comment"),
        pytest.param(b": ping\r\n", id="comment-crlf"),
        pytest.param(b":\n", id="empty-comment"),
        pytest.param(b": a\n: b\n", id="two-comments"),
        pytest.param(b": ping\n\n", id="comment-and-blank-line"),
        pytest.param(b"\n", id="blank-line"),
        pytest.param(b"\r\n", id="blank-line-crlf"),
    ],
)
def test_keep_alive_between_events_is_relayed_before_anything_else_arrives(
    upstream: Upstream, client: httpx.Client, keep_alive: bytes
) -> None:
    gates = [Gate() for _ in range(4)]
    pieces = [keep_alive, FIRST_EVENT, keep_alive, keep_alive]
    steps = [step for pair in zip(pieces, gates, strict=True) for step in pair]
    upstream.openai.script(*stream(*steps, DONE))

    with open_response(client) as response:
        assert receive(response, *gates) == [*pieces, DONE]


def test_keep_alive_behind_an_event_in_one_chunk_is_relayed_with_it(
    upstream: Upstream, client: httpx.Client
) -> None:
    gate = Gate()
    upstream.openai.script(*stream(FIRST_EVENT + b": ping\ndata: ", gate, b"2\n\n"))

    with open_response(client) as response:
        received = receive(response, gate)

    assert received == [FIRST_EVENT + b": ping\n", b"data: 2\n\n"]


@pytest.mark.parametrize("comment", [b": ping\n", b": ping"], ids=["line", "part"])
def test_comment_inside_an_event_does_not_split_it(
    upstream: Upstream, client: httpx.Client, comment: bytes
) -> None:
    """Otherwise the error event would become a part of it."""
    gate = Gate()
    incomplete = b"data: half\n" + comment
    upstream.openai.script(*stream(FIRST_EVENT, gate, incomplete, end=CLOSE))

    with open_response(client) as response:
        first, last = receive(response, gate)

    assert first == FIRST_EVENT
    assert last.startswith(b'data: {"error":')


@pytest.mark.parametrize(
    ("path", "start"),
    [
        pytest.param(CHAT, b"data: ", id="chat"),
        pytest.param(MESSAGES, b"event: error\ndata: ", id="messages"),
        pytest.param(RESPONSES, b"event: response.failed\ndata: ", id="responses"),
    ],
)
@pytest.mark.parametrize("keep_alive", [b": ping\n", b"\n"], ids=["comment", "blank"])
def test_break_after_a_keep_alive_is_an_error_event_in_the_form_of_the_route(
    upstream: Upstream, client: httpx.Client, path: str, start: bytes, keep_alive: bytes
) -> None:
    gate = Gate()
    upstream.openai.script(*stream(FIRST_EVENT + keep_alive, gate, end=CLOSE))

    with open_response(client, path) as response:
        first, last = receive(response, gate)

    assert first == FIRST_EVENT + keep_alive
    assert last.startswith(start), last
    assert last.endswith(b"\n\n"), last
    data = json.loads(last.removeprefix(start))
    assert "closed the connection" in data["error"]["message"]


WHITE_SPACE = [
    pytest.param(b"\n", id="line-feed"),
    pytest.param(b"\r\n", id="crlf"),
    pytest.param(b" ", id="space"),
]
CHUNKED_JSON = JSON | {"transfer-encoding": "chunked"}


@pytest.mark.parametrize("white_space", WHITE_SPACE)
@pytest.mark.parametrize(
    "content_type",
    [
        pytest.param(JSON, id="json"),
        pytest.param({"content-type": "application/problem+json"}, id="+json"),
        pytest.param({}, id="no-content-type"),
    ],
)
def test_white_space_before_json_is_relayed_before_anything_else_arrives(
    upstream: Upstream,
    client: httpx.Client,
    content_type: dict[str, str],
    white_space: bytes,
) -> None:
    gates = [Gate(), Gate()]
    pieces = white_space, gates[0], white_space, gates[1], b'{"a":', b"1}\n"
    upstream.openai.script(*stream(*pieces, headers=content_type))

    with open_response(client, is_stream=False) as response:
        received = receive(response, *gates)

    assert received == [white_space, white_space, b'{"a":1}\n']
    assert response.headers.get("content-type") == content_type.get("content-type")


def test_white_space_before_json_with_a_length_keeps_the_length(
    upstream: Upstream, client: httpx.Client
) -> None:
    gate = Gate()
    head = response_head(200, JSON | {"content-length": "3"})
    upstream.openai.script(head + b"\n", gate, b"{}")

    with open_response(client, is_stream=False) as response:
        received = receive(response, gate)

    assert received == [b"\n", b"{}"]
    assert response.headers["content-length"] == "3"


@pytest.mark.parametrize("white_space", WHITE_SPACE)
def test_break_after_white_space_before_json_closes_the_connection(
    upstream: Upstream, client: httpx.Client, white_space: bytes
) -> None:
    gate = Gate()
    steps: list[Step] = stream(white_space, gate, b'{"a":', headers=JSON, end=CLOSE)
    upstream.openai.script(*steps)

    with (
        open_response(client, is_stream=False) as response,
        pytest.raises(httpx.RemoteProtocolError),
    ):
        receive(response, gate)


def test_break_after_blank_lines_of_an_untyped_stream_is_an_error_event(
    upstream: Upstream, client: httpx.Client
) -> None:
    """Blank lines may be the beginning of a stream, or of JSON."""
    gate = Gate()
    upstream.openai.script(*stream(b"\n", gate, headers=JSON, end=CLOSE))

    with open_response(client) as response:
        first, last = receive(response, gate)

    assert first == b"\n"
    assert last.startswith(b'data: {"error":')
