"""Requests on one connection: where each ends, in which order they are answered."""

from itertools import repeat

import pytest

from tests.support.http import (
    CHAT,
    CHAT_BODY,
    CHAT_REQUEST,
    CHUNKED,
    HEADERS_WITHOUT_KEY,
    HEALTH_REQUEST,
    MEBIBYTE,
    MODELS,
    STREAMING_REQUEST,
    RawConnection,
    chat,
    exchange,
    request,
    to_json,
)
from tests.support.server import Server
from tests.support.upstream import Upstream
from tests.support.wire import DONE, FIRST_EVENT, LAST_CHUNK, Gate, chunk, stream

# A body that would be a request if the server believed the headers before it.
HIDDEN_REQUEST = b"\r\n" * 5 + request(body=to_json(chat("openai/hidden")))


@pytest.mark.parametrize("size", [1, 10_000], ids=["byte-by-byte", "at-once"])
@pytest.mark.parametrize(
    "offer",
    [
        pytest.param(
            (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c"), id="h2c"
        ),
        pytest.param(
            (b"Upgrade: websocket", b"Connection: keep-alive, upgrade"), id="websocket"
        ),
    ],
)
def test_offered_upgrade_is_ignored_and_body_is_not_read_as_requests(
    server: Server, upstream: Upstream, offer: tuple[bytes, ...], size: int
) -> None:
    """The connection stays HTTP/1.1 (RFC 9110, section 7.8)."""
    chunked = request(b"POST", CHAT, *offer, CHUNKED)
    with RawConnection(server.port) as connection:
        for sent, status in (
            (request(b"POST", CHAT, *offer, body=CHAT_BODY), 200),
            (request(b"POST", CHAT, *offer, body=HIDDEN_REQUEST), 400),
            (chunked + chunk(HIDDEN_REQUEST) + b"0\r\nX-A: b\r\n\r\n", 400),
            (chunked + chunk(CHAT_BODY) + LAST_CHUNK, 200),
            (request(b"GET", MODELS, *offer), 200),
            (CHAT_REQUEST, 200),
        ):
            connection.send(*(sent[at : at + size] for at in range(0, len(sent), size)))
            assert connection.read_response().status == status

    models = [each.json["model"] for each in upstream.openai.requests]
    assert models == ["gpt-4o"] * 3


# Two readers of HTTP may read them differently (RFC 9112, sections 5 and 6.3).
@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(
            request(b"POST", CHAT, CHUNKED, body=CHAT_BODY), id="length-and-chunked"
        ),
        pytest.param(
            request(b"POST", CHAT, CHUNKED) + CHAT_BODY, id="invalid-chunk-size"
        ),
        pytest.param(
            request(b"POST", CHAT, b"OpenAI-Beta: a\nX-B: 1", body=CHAT_BODY),
            id="bare-line-feed",
        ),
        pytest.param(b"\x00\x01\x02 garbage\r\n\r\n", id="not-http"),
        pytest.param(b"CONNECT a:80 HTTP/1.1\r\nHost: localhost\r\n\r\n", id="CONNECT"),
    ],
)
def test_ambiguous_request_returns_400_and_closes_the_connection(
    server: Server, upstream: Upstream, sent: bytes
) -> None:
    with RawConnection(server.port) as connection:
        connection.send(sent, CHAT_REQUEST)
        response = connection.read_response()
        assert response.status_and_code == (400, "invalid_http_request")
        assert connection.read_to_end() == b""

    assert upstream.requests == []


def test_pipelined_requests_are_answered_in_order_with_their_own_keys(
    server: Server, upstream: Upstream
) -> None:
    keys = [f"sk-{number}" for number in range(8)]
    requests = [
        request(
            b"POST",
            CHAT,
            b"X-Api-Key: " + key.encode(),
            body=to_json(chat(user=key)),
            headers=HEADERS_WITHOUT_KEY,
        )
        for key in keys
    ]
    with RawConnection(server.port) as connection:
        connection.send(b"".join(requests))
        statuses = [connection.read_response().status for _ in keys]

    assert statuses == [200] * 8
    sent = [(each.key, each.json["user"]) for each in upstream.openai.requests]
    assert sent == [(key, key) for key in keys]


def test_unread_body_of_rejected_request_is_not_read_as_requests(
    server: Server, upstream: Upstream
) -> None:
    rejected = request(body=HIDDEN_REQUEST * 2000, headers=HEADERS_WITHOUT_KEY)
    with RawConnection(server.port) as connection:
        connection.send(rejected + CHAT_REQUEST)
        statuses = [connection.read_response().status for _ in range(2)]

    assert statuses == [401, 200]
    assert upstream.openai.request.json["model"] == "gpt-4o"


def test_too_many_pipelined_requests_close_the_connection(server: Server) -> None:
    growth = server.measure_growth()
    with RawConnection(server.port) as connection:
        connection.send(*repeat(HEALTH_REQUEST * 1000, 100))
        responses = connection.read_to_end().count(b"HTTP/1.1 200 OK")

    assert 1 <= responses < 1000
    assert growth() < 16 * MEBIBYTE


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"\x00garbage\r\n\r\n", id="not-http"),
        pytest.param(b"X" * 200_000, id="endless-request-line"),
    ],
)
def test_invalid_request_during_a_stream_does_not_change_it(
    server: Server, upstream: Upstream, sent: bytes
) -> None:
    gate = Gate()
    upstream.openai.script(*stream(FIRST_EVENT, gate, DONE))
    with RawConnection(server.port) as connection:
        connection.send(STREAMING_REQUEST)
        connection.read_until(FIRST_EVENT)
        connection.send(sent)
        # Once this is answered, the server has read what came before.
        assert exchange(server.port, HEALTH_REQUEST).status == 200
        gate.open()
        rest = connection.read_to_end()

    assert rest == b"\r\n" + chunk(DONE) + LAST_CHUNK
