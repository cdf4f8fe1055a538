"""A content coding is between the caller and the upstream."""

import gzip
import zlib

import httpx
import pytest

from tests.calls import BEARER, call, chat
from tests.scripts import JSON, answering
from tests.server import Server
from tests.upstream import Upstream

SMALL = b'{"a":"%b"}' % (b"small " * 20)
# More than the relay holds of an answer, also when it is compressed.
LARGE = b"".join(b"%016x" % number**3 for number in range(200_000))
CODED = {
    "gzip": ("gzip", gzip.compress(SMALL)),
    "gzip, large": ("gzip", gzip.compress(LARGE, compresslevel=1)),
    "gzip in two members": ("gzip", gzip.compress(SMALL) + gzip.compress(SMALL)),
    "deflate": ("deflate", zlib.compress(SMALL)),
    # Nothing here reads these two; a relay that looks into them would fail.
    "br": ("br", b"\x8b" + SMALL[::-1]),
    "zstd, large": ("zstd", b"\x28" + LARGE[::-1]),
}


@pytest.mark.parametrize(("coding", "body"), CODED.values(), ids=CODED)
def test_a_compressed_answer_stays_compressed(
    server: Server, upstream: Upstream, http: httpx.Client, coding: str, body: bytes
) -> None:
    """The upstream is told what the caller takes, and its bytes come as they are."""
    headers = JSON | {"content-encoding": coding}
    upstream.openai.answer_with(answering(body, headers=headers))

    accepting = BEARER | {"Accept-Encoding": coding}
    answer = call(http, server.url, chat(), headers=accepting)

    (arrived,) = upstream.openai.calls
    assert ([coding], 200, coding) == (
        arrived.header_values("accept-encoding"),
        answer.status,
        answer.headers["content-encoding"],
    )
    assert body == answer.body


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "br"])
def test_a_compressed_error_stays_compressed(
    server: Server, upstream: Upstream, http: httpx.Client, coding: str
) -> None:
    """An error in OpenAI's form needs no other one."""
    error = b'{"error":{"message":"m","type":"t","param":null,"code":"c"}}'
    body = gzip.compress(error)
    headers = JSON | {"content-encoding": coding, "retry-after": "7"}
    upstream.openai.answer_with(answering(body, status=429, headers=headers))

    answer = call(http, server.url, chat())

    assert (429, coding, "7", body) == (
        answer.status,
        answer.headers["content-encoding"],
        answer.headers["retry-after"],
        answer.body,
    )


def test_a_caller_that_takes_no_coding_asks_for_none(
    server: Server, upstream: Upstream, http: httpx.Client
) -> None:
    """Nothing is asked for in its name."""
    call(http, server.url, chat())

    (arrived,) = upstream.openai.calls
    assert arrived.header_values("accept-encoding") == []
