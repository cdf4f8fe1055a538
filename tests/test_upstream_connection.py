"""Unusual responses of an upstream: which of them reach the client, and which do not.

Each case is what the upstream writes, byte for byte.
"""

import pytest

from tests.support.http import CHAT_REQUEST, Response, chat, exchange, request, to_json
from tests.support.server import Server
from tests.support.upstream import Upstream
from tests.support.wire import CLOSE, READ_BODY, SILENCE, Gate, Step, respond

JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKED = JSON + b"Transfer-Encoding: chunked\r\n\r\n"
END = b"Content-Length: 2\r\n\r\n{}"
OK = JSON + END
HTTP_1_0 = JSON.replace(b"HTTP/1.1", b"HTTP/1.0")


def call(server: Server) -> Response:
    return exchange(server.port, CHAT_REQUEST)


def call_on_pooled_connection(
    server: Server, upstream: Upstream, *steps: Step
) -> Response:
    """Return the response to a call on a pooled connection."""
    upstream.openai.script(respond())
    call(server)
    upstream.openai.script(*steps)
    return call(server)


def is_kept(server: Server, upstream: Upstream) -> bool:
    """Return whether the next call uses the connection of the last one."""
    connections = upstream.openai.connections
    upstream.openai.script(respond(b'"next"'))
    assert call(server).body == b'"next"'
    return upstream.openai.connections == connections


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"HTTP/1.1 200" + OK[15:], id="no-reason-phrase"),
        pytest.param(OK.replace(b"\r\n", b"\n"), id="line-feeds-only"),
        pytest.param(b"\r\n\r\n" + OK, id="blank-lines-before"),
        pytest.param(OK + b"\r\n", id="blank-line-after"),
        pytest.param(JSON + b"X-A: 1\r\n  2\r\n" + END, id="folded-header"),
        pytest.param(JSON + b"X-A: \xff\xe9\r\n" + END, id="header-not-ascii"),
        pytest.param(JSON + b"Content-Length: 2 \r\n\r\n{}", id="space-after-length"),
        pytest.param(JSON + b"X-A:\r\n" * 998 + END, id="1000-headers"),
        pytest.param(
            JSON + b"X-A: " + b"a" * 250_000 + b"\r\n" + END, id="250-kb-of-headers"
        ),
        pytest.param(
            HTTP_1_0 + b"Connection: keep-alive\r\n" + END, id="http-1.0-keep-alive"
        ),
        pytest.param(
            JSON + b"Connection: upgrade\r\nUpgrade: h2c\r\n" + END,
            id="upgrade-offered",
        ),
        pytest.param(
            b"HTTP/1.1 102 P\r\nContent-Length: 9\r\n\r\n" + OK, id="length-in-1xx"
        ),
        pytest.param(
            b"HTTP/1.1 100 C\r\nTransfer-Encoding: chunked\r\n\r\n" + OK,
            id="coding-in-1xx",
        ),
        pytest.param(CHUNKED + b"1\r\n{\r\n1\r\n}\r\n0\r\n\r\n", id="chunks"),
        pytest.param(CHUNKED + b"02\r\n{}\r\n000\r\n\r\n", id="chunk-size-with-zeros"),
        pytest.param(CHUNKED + b"2 \r\n{}\r\n0\r\n\r\n", id="space-after-chunk-size"),
        pytest.param(
            CHUNKED + b'2;a=b;c="d"\r\n{}\r\n0;e\r\n\r\n', id="chunk-extensions"
        ),
        pytest.param(
            CHUNKED + b"2\r\n{}\r\n0\r\nX-Request-Id: trailer\r\n\r\n", id="trailers"
        ),
        pytest.param(
            JSON + b"TRANSFER-ENCODING:  Chunked \r\n\r\n2\r\n{}\r\n0\r\n\r\n",
            id="chunked-in-capitals",
        ),
        pytest.param(
            JSON + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n2\r\n{}\r\n0\r\n\r\n",
            id="chunked-named-twice",
        ),
    ],
)
def test_unusual_response_passes_and_the_connection_is_kept(
    server: Server, upstream: Upstream, sent: bytes
) -> None:
    response = call_on_pooled_connection(server, upstream, sent)

    assert (response.status, response.body) == (200, b"{}"), response
    assert "trailer" not in response.headers.values()
    assert is_kept(server, upstream)


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param([JSON + b"Connection: close\r\n" + END], id="connection-close"),
        pytest.param(
            [JSON + b"Connection: keep-alive, close\r\n" + END], id="close-in-a-list"
        ),
        pytest.param([HTTP_1_0 + END], id="http-1.0"),
        pytest.param(
            [HTTP_1_0 + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"],
            id="http-1.0-chunked",
        ),
        pytest.param([JSON + b"\r\n{", b"}", CLOSE], id="ends-with-the-connection"),
        pytest.param([OK + b"HTTP/1.1 200 OK\r\n\r\n"], id="second-response"),
        pytest.param([OK + b"{}"], id="body-longer-than-its-length"),
    ],
)
def test_response_passes_and_the_connection_is_not_used_again(
    server: Server, upstream: Upstream, steps: list[Step]
) -> None:
    response = call_on_pooled_connection(server, upstream, *steps)

    assert (response.status, response.body) == (200, b"{}"), response
    assert not is_kept(server, upstream)


@pytest.mark.parametrize("status", [204, 304])
@pytest.mark.parametrize(
    "framing",
    [
        pytest.param(b"Content-Length: 9\r\n", id="length"),
        pytest.param(b"Transfer-Encoding: chunked\r\n", id="chunked"),
        pytest.param(b"", id="no-framing"),
    ],
)
def test_204_and_304_have_no_body_whatever_their_headers_say(
    server: Server, upstream: Upstream, status: int, framing: bytes
) -> None:
    sent = b"HTTP/1.1 %d X\r\nCF-Ray: 1-FRA\r\n%b\r\n" % (status, framing)

    response = call_on_pooled_connection(server, upstream, sent)

    assert (response.status, response.body) == (status, b"")
    assert response.headers["cf-ray"] == "1-FRA"
    assert is_kept(server, upstream)


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        pytest.param(b" " + OK, "Expected HTTP/", id="space-before"),
        pytest.param(OK.replace(b"1.1", b"1.2", 1), "Invalid HTTP version", id="1.2"),
        pytest.param(OK.replace(b"1.1", b"2.0", 1), "version", id="http-2.0"),
        pytest.param(OK.replace(b"1.1", b"0.9", 1), "version", id="http-0.9"),
        pytest.param(OK.replace(b"200", b"000", 1), "status is 000", id="status-000"),
        pytest.param(OK.replace(b"200", b"99", 1), "status", id="status-of-2-digits"),
        pytest.param(OK.replace(b"200", b"2000", 1), "status", id="status-of-4-digits"),
        pytest.param(OK.replace(b"200", b"600", 1), "status is 600", id="status-600"),
        pytest.param(
            b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
            "status is 101",
            id="status-101",
        ),
        pytest.param(JSON + b"X-A : 1\r\n" + END, "header token", id="space-in-name"),
        pytest.param(
            JSON + b"X-\xe9: 1\r\n" + END, "header token", id="name-not-ascii"
        ),
        pytest.param(JSON + b": 1\r\n" + END, "header token", id="no-name"),
        pytest.param(JSON + b"X-A\r\n" + END, "header token", id="no-colon"),
        pytest.param(
            JSON + b"X-A: 1\r2\r\n" + END, "LF", id="carriage-return-in-value"
        ),
        pytest.param(JSON + b"X-A: 1\r\n" * 999 + END, "1,000", id="1001-headers"),
        pytest.param(
            JSON + b"X-A: " + b"a" * 600_000, "262,144 bytes", id="endless-header"
        ),
        pytest.param(JSON + b"Content-Length: 2\r\n" + END, "Length", id="two-lengths"),
        pytest.param(
            JSON + b"Content-Length: 2, 2\r\n\r\n{}", "Length", id="list-of-lengths"
        ),
        pytest.param(JSON + b"Content-Length: -2\r\n\r\n{}", "Length", id="length--2"),
        pytest.param(JSON + b"Content-Length: +2\r\n\r\n{}", "Length", id="length-+2"),
        pytest.param(JSON + b"Content-Length:\r\n\r\n{}", "Length", id="no-length"),
        pytest.param(
            JSON + b"Content-Length: 99999999999999999999\r\n\r\n{}",
            "Length",
            id="length-over-64-bit",
        ),
        pytest.param(
            JSON + b"Transfer-Encoding: chunked\r\n" + END,
            "Length",
            id="chunked-length",
        ),
        pytest.param(
            JSON
            + b"Content-Length: 12\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
            "Transfer-Encoding",
            id="length-chunked",
        ),
        pytest.param(
            JSON + b"Transfer-Encoding: gzip\r\n\r\n{}", "coding", id="coding-gzip"
        ),
        pytest.param(
            JSON + b"Transfer-Encoding: identity\r\n\r\n{}",
            "coding",
            id="coding-identity",
        ),
        pytest.param(
            JSON + b"Transfer-Encoding: xchunked\r\n\r\n{}",
            "coding",
            id="coding-xchunked",
        ),
        pytest.param(
            JSON + b"Transfer-Encoding: chunked, gzip\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
            "coding",
            id="coding-after-chunked",
        ),
        pytest.param(
            JSON + b"Transfer-Encoding: chunked\t\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
            "coding",
            id="coding-chunked-and-tab",
        ),
        pytest.param(CHUNKED + b"-2\r\n{}\r\n0\r\n\r\n", "chunk size", id="chunk--2"),
        pytest.param(CHUNKED + b"0x2\r\n{}\r\n0\r\n\r\n", "chunk size", id="chunk-0x2"),
        pytest.param(
            CHUNKED + b"f" * 17 + b"\r\n{}", "overflow", id="chunk-over-64-bit"
        ),
        pytest.param(CHUNKED + b"2\n{}\n0\n\n", "LF", id="chunk-line-feeds-only"),
        pytest.param(CHUNKED + b"2\r\n{}]\r\n0\r\n\r\n", "LF", id="chunk-too-long"),
        pytest.param(
            CHUNKED + b"2\r\n{}\r\n0\r\nContent-Length: 2\r\n\r\n",
            "Length",
            id="length-in-trailers",
        ),
        pytest.param(
            CHUNKED + b"2;" + b"a" * 600_000, "262,144", id="endless-chunk-extension"
        ),
        pytest.param(
            CHUNKED + b"2\r\n{}\r\n0\r\nX-A: " + b"a" * 600_000,
            "262,144",
            id="endless-trailer",
        ),
    ],
)
def test_invalid_response_returns_502_with_its_reason(
    server: Server, upstream: Upstream, sent: bytes, reason: str
) -> None:
    response = call_on_pooled_connection(server, upstream, sent, SILENCE)

    assert response.status_and_code == (502, "upstream_unreachable"), response
    message = "The upstream's response is not valid HTTP: "
    assert response.error["message"].startswith(message)
    assert reason in response.error["message"].removeprefix(message)
    assert upstream.openai.requests[-1].disconnected.wait(2)
    assert not is_kept(server, upstream)


def test_header_values_with_control_bytes_are_dropped(
    server: Server, upstream: Upstream
) -> None:
    odd = b"CF-Ray: a\x00b\r\nServer-Timing: \x1b[2J\r\nX-Request-Id: a\tb\r\n"

    response = call_on_pooled_connection(server, upstream, JSON + odd + END)

    assert response.status == 200
    assert response.headers["x-request-id"] == "a\tb"
    assert not {"cf-ray", "server-timing"} & response.headers.keys()


def test_response_before_the_end_of_the_body_passes_and_ends_the_upload(
    server: Server, upstream: Upstream
) -> None:
    """An upstream may reject a large body because of its headers."""
    rejection = b'{"error":{"message":"too large"}}'
    gate = Gate()
    upstream.openai.script(respond(rejection, 413), gate, READ_BODY)

    response = exchange(server.port, request(body=to_json(chat(user="x" * 20_000_000))))

    assert (response.status, response.body) == (413, rejection)
    gate.open()
    assert upstream.openai.request.disconnected.wait(2)
    assert not upstream.openai.request.complete
    assert not is_kept(server, upstream)
