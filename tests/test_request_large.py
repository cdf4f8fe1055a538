"""Large bodies arrive whole, however they are sent."""

import socket
from collections.abc import Iterator

import httpx
import pytest

from tests.calls import CHAT, COMPLETIONS, EMBEDDINGS, KEY, call, chat
from tests.scripts import answering
from tests.server import Server
from tests.upstream import Upstream

MEBIBYTE = 1024 * 1024
FIELDS = {CHAT: "messages", COMPLETIONS: "prompt", EMBEDDINGS: "input"}


def _body(model: str, size: int, field: str = "messages") -> bytes:
    """A body with an image of `size` bytes in it, no two of its parts alike."""
    image = b"".join(b"%08x" % number for number in range(size // 8))
    url = b'{"url":"data:image/png;base64,' + image + b'"}'
    content = b'[{"content":[{"type":"image_url","image_url":' + url + b"}]}]"
    return b'{"model":"%b","%b":%b}' % (model.encode(), field.encode(), content)


@pytest.mark.parametrize("route", FIELDS)
@pytest.mark.parametrize("size", [MEBIBYTE, 8 * MEBIBYTE])
def test_images_of_megabytes_arrive_whole(
    server: Server, upstream: Upstream, http: httpx.Client, route: str, size: int
) -> None:
    """Byte for byte, in one request, on every route."""
    upstream.openai.answer_with(answering())

    call(http, server.url, _body("openai/m-1", size, FIELDS[route]), route=route)

    (arrived,) = upstream.openai.calls
    assert _body("m-1", size, FIELDS[route]) == arrived.body


def test_a_body_around_every_size_at_which_something_changes_arrives_whole(
    server: Server, upstream: Upstream, http: httpx.Client
) -> None:
    """Buffers of 64 KiB and of 1 MiB are met exactly, and by a byte more or less."""
    upstream.openai.answer_with(answering())
    padding = [edge - len(chat("m-1", user="")) for edge in (64 * 1024, MEBIBYTE)]
    users = ["x" * (size + more) for size in padding for more in (-1, 0, 1)]

    for user in users:
        call(http, server.url, chat("openai/m-1", user=user))

    expected = [chat("m-1", user=user) for user in users]
    assert expected == [arrived.body for arrived in upstream.openai.calls]


def test_a_body_in_chunks_arrives_whole(
    server: Server, upstream: Upstream, http: httpx.Client
) -> None:
    """A caller need not say the length; the upstream is told it."""
    body = _body("openai/m-1", MEBIBYTE)

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(body), 100_001):
            yield body[start : start + 100_001]

    upstream.openai.answer_with(answering())
    http.post(
        server.url + CHAT, content=pieces(), headers={"authorization": f"Bearer {KEY}"}
    )

    (arrived,) = upstream.openai.calls
    expected = _body("m-1", MEBIBYTE)
    assert (expected, [], str(len(expected))) == (
        arrived.body,
        arrived.header_values("transfer-encoding"),
        arrived.header("content-length"),
    )


def test_a_caller_that_asks_before_it_sends_is_told_to_go_on(
    server: Server, upstream: Upstream
) -> None:
    """Curl sends `Expect: 100-continue` before a large body, and waits for it."""
    body = chat()
    head = (
        f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n"
        f"Content-Length: {len(body)}\r\nExpect: 100-continue\r\n"
        "Connection: close\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as caller:
        caller.sendall(head.encode())
        go_on = caller.recv(65536)
        caller.sendall(body)
        answer = caller.recv(65536)

    (arrived,) = upstream.openai.calls
    assert (b"HTTP/1.1 100", b"HTTP/1.1 200", chat("gpt-4o")) == (
        go_on[:12],
        answer[:12],
        arrived.body,
    )
