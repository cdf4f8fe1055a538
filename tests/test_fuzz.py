"""Whatever comes, the answer is the contract's or the upstream's, and nobody crashes.

`FUZZ_EXAMPLES` says how many of each kind are tried; `make soak` tries more, and
others each time.
"""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.calls import ROUTES, Answer, call, chat
from tests.inside import Watched
from tests.marks import complaints
from tests.raw import BEARER, HOST, POST_CHAT, answers, ask, exchange, request
from tests.scripts import answering
from tests.server import Server
from tests.upstream import Connection, Handler, Request, Upstream

pytest_plugins = ["tests.watched"]

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "80"))
fuzzed = settings(
    max_examples=EXAMPLES,
    # The same examples every time, unless more are wanted than usual.
    derandomize="FUZZ_EXAMPLES" not in os.environ,
    database=None,
    deadline=None,
    # The server and the upstream serve all examples of a test.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

RELAYED = b'{"relayed":true}'
# design.md's table: what the server says itself, before anything is relayed.
CONTRACT = {
    (401, "missing_api_key"),
    (400, "invalid_provider_data"),
    (400, "upstream_not_allowed"),
    (400, "invalid_request_body"),
    (404, "model_not_found"),
    (413, "request_too_large"),
    (431, "request_too_large"),
}
FIELDS = {"message", "type", "param", "code"}


@pytest.fixture
def quiet(talkative: Watched) -> Iterator[Server]:
    """The server that logs all it can, and tells of no traceback meanwhile."""
    before = len(talkative.server.log)
    yield talkative.server
    assert complaints(talkative.server.log[before:]) == []


def _is_of_the_contract(answer: Answer) -> bool:
    return set(answer.error) == FIELDS and answer.error_code in CONTRACT


# Names that mean something, so that what is tried gets beyond the first check.
NAMES = st.sampled_from(
    ["model", "messages", "stream", "n", "user", "tools", "passthrough_api_key"]
)
MODELS = st.sampled_from(["openai/gpt-4o", "openai-mini/x", "gemini/y", "openai/", "/"])
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=2**60),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(),
    MODELS,
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | NAMES, inner),
    max_leaves=20,
)
OBJECTS = st.dictionaries(st.text() | NAMES, VALUES)
REQUESTS = st.builds(lambda body, model: body | {"model": model}, OBJECTS, MODELS)
WRITTEN = st.builds(
    lambda body, ascii_only, spaces: json.dumps(
        body, ensure_ascii=ascii_only, indent=spaces
    ).encode("utf-8", "surrogatepass"),
    REQUESTS,
    st.booleans(),
    st.sampled_from([None, 0, 2]),
)


@st.composite
def _damaged(draw: st.DrawFn) -> bytes:
    """A body of which a part is missing, doubled, or something else."""
    body = draw(WRITTEN)
    start = draw(st.integers(0, len(body)))
    end = draw(st.integers(start, len(body)))
    filling = draw(
        st.binary(max_size=8) | st.sampled_from([b"", body, b'"', b"{", b","])
    )
    return body[:start] + filling + body[end:]


BODIES = st.one_of(
    st.binary(), VALUES.map(lambda each: json.dumps(each).encode()), _damaged()
)


@given(body=BODIES, route=st.sampled_from(ROUTES))
@fuzzed
def test_any_body_is_answered(
    quiet: Server, upstream: Upstream, http: httpx.Client, body: bytes, route: str
) -> None:
    """With the contract's error, or relayed: then it is JSON that names a model."""
    upstream.reset()
    for vendor in upstream.vendors:
        vendor.answer_with(answering(RELAYED))

    answer = call(http, quiet.url, body, route=route)

    arrived = [each for vendor in upstream.vendors for each in vendor.calls]
    if answer.status == 200:
        assert [answer.body, len(arrived)] == [RELAYED, 1]
        assert isinstance(json.loads(body)["model"], str)
    else:
        assert _is_of_the_contract(answer), answer.body
        assert arrived == []


@given(sent=REQUESTS)
@fuzzed
def test_any_request_arrives_as_it_was_meant(
    quiet: Server, upstream: Upstream, http: httpx.Client, sent: dict[str, Any]
) -> None:
    """Every field with its value, in its order, and the model by its own name."""
    upstream.reset()
    for vendor in upstream.vendors:
        vendor.answer_with(answering(RELAYED))

    answer = call(http, quiet.url, json.dumps(sent).encode())

    arrived = [each for vendor in upstream.vendors for each in vendor.calls]
    provider, _, name = sent["model"].partition("/")
    if not provider:
        assert answer.error_code == (404, "model_not_found")
        return
    expected = sent | {"model": name}
    assert [list(expected.items())] == [list(each.json.items()) for each in arrived]


# Every byte that a header's value may hold, and a few characters more often.
PRINTABLE = st.binary(max_size=60).map(
    lambda value: bytes(each for each in value if each > 31 and each != 127).strip()
)
PROVIDER_DATA = st.one_of(
    PRINTABLE,
    OBJECTS.map(lambda each: json.dumps(each).encode()),
    st.fixed_dictionaries(
        {}, optional={"passthrough_api_key": LEAVES, "passthrough_url": LEAVES}
    ).map(lambda each: json.dumps(each).encode()),
)
OWN_NAMES = st.sampled_from(
    [
        b"X-LlamaStack-Provider-Data",
        b"x-ogx-provider-data",
        b"Authorization",
        b"X-LlamaStack-Client-Version",
        b"Accept-Encoding",
        b"OpenAI-Organization",
        b"traceparent",
        b"Connection",
        b"Content-Type",
        b"Content-Encoding",
        b"Expect",
        b"Upgrade",
        b"Cookie",
        b"X-Forwarded-For",
        b"Origin",
        b"Range",
        b"X-HTTP-Method-Override",
    ]
)
HEADERS = st.lists(
    st.tuples(
        OWN_NAMES,
        st.one_of(
            PROVIDER_DATA,
            PRINTABLE,
            PRINTABLE.map(lambda value: b"Bearer " + value),
            st.sampled_from([b"keep-alive", b"100-continue", b"0.1.0", b"gzip"]),
        ),
    ),
    max_size=6,
)


@given(headers=HEADERS, body=st.sampled_from([chat(), b"{", b""]))
@fuzzed
def test_any_headers_are_answered(
    quiet: Server, upstream: Upstream, headers: list[tuple[bytes, bytes]], body: bytes
) -> None:
    """With the contract's error, or the upstream's answer to a key that it was sent."""
    upstream.reset()
    upstream.openai.answer_with(answering(RELAYED))
    lines = [b"%b: %b" % pair for pair in headers]

    answer = ask(quiet.port, request(POST_CHAT, *lines, own=(HOST,), body=body))

    arrived = upstream.openai.calls
    if answer.status == 200:
        assert [answer.body, len(arrived)] == [RELAYED, 1]
        assert arrived[0].key
    else:
        assert _is_of_the_contract(answer), answer.body


TOKENS = st.sampled_from(
    [
        b"GET", b"POST", b"OPTIONS", b"CONNECT", b" ", b"\t", b"\r\n", b"\n", b"\r",
        b"/v1/chat/completions", b"/v1/models", b"/v1/models/x", b"/", b"*", b"?", b"%",
        b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"Host: x", BEARER, b":", b"\0", b"\xff",
        b"Content-Length: 5", b"Transfer-Encoding: chunked", b"Connection: close",
        b"Expect: 100-continue", b"Upgrade: a", b"5\r\nhello\r\n", b"0\r\n\r\n", b"{}",
    ]
)  # fmt: skip


@given(parts=st.lists(TOKENS | st.binary(max_size=10), max_size=30))
@fuzzed
def test_any_bytes_are_answered_or_left(
    quiet: Server, upstream: Upstream, http: httpx.Client, parts: list[bytes]
) -> None:
    """With no error of the server's making, and the next caller is served."""
    upstream.reset()
    with socket.create_connection(("127.0.0.1", quiet.port), timeout=0.03) as caller:
        caller.sendall(b"".join(parts))
        # It may be the beginning of a request, for whose end the server waits.
        with suppress(TimeoutError, ConnectionError):
            received = caller.recv(65536)
            assert not received.startswith(b"HTTP/1.1 5"), received

    assert http.get(f"{quiet.url}/v1/health").status_code == 200


PIECES = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 204 No Content\r\n", b"HTTP/1.1 429 \r\n",
        b"HTTP/1.1 103 Hints\r\n\r\n", b"HTTP/1.1 100 \r\n\r\n", b"HTTP/1.0 200\r\n",
        b"Content-Type: application/json\r\n", b"Content-Type: text/event-stream\r\n",
        b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"\r\n", b"\n",
        b"Content-Encoding: gzip\r\n", b"Connection: close\r\n", b"Location: /\r\n",
        b"5\r\nhello\r\n", b"0\r\n\r\n", b"data: {}\n\n", b"hello", b'[{"error":{}}]',
        b"retry-after: \r\n", b"x-request-id: \xff\x01\r\n",
    ]
)  # fmt: skip


@given(
    pieces=st.lists(PIECES | st.binary(max_size=10), max_size=12), resets=st.booleans()
)
@fuzzed
def test_any_answer_of_an_upstream_is_relayed_or_an_error(
    quiet: Server, upstream: Upstream, pieces: list[bytes], *, resets: bool
) -> None:
    """Never a 500 of the server's own, and the next call is answered."""
    upstream.reset()
    upstream.openai.answer_with(_saying(pieces, resets=resets), times=1)

    found = answers(exchange(quiet.port, request(body=chat(stream=True))))
    following = answers(exchange(quiet.port, request(body=chat())))

    relayed = b"HTTP/1" in b"".join(pieces)
    assert all(relayed or each.status == 502 for each in found), found
    assert all(each.status != 500 for each in found), found
    assert [each.status for each in following] == [200]


def _saying(pieces: list[bytes], *, resets: bool) -> Handler:
    async def script(_request: Request, connection: Connection) -> None:
        for piece in pieces:
            await connection.write(piece)
        if resets:
            connection.reset()
        else:
            connection.close()

    return script
