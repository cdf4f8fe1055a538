"""A request without a key is rejected before its body is read.

Unless run.yaml has a key or a forwarded header: tests/test_credentials.py.
"""

import pytest

from tests.support.http import (
    CHAT,
    CHUNKED,
    HEADERS_WITHOUT_KEY,
    RawConnection,
    request,
)
from tests.support.server import Server

LENGTH = b"Content-Length: 1000"


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param([LENGTH], id="content-length"),
        pytest.param([CHUNKED], id="chunked"),
        pytest.param([LENGTH, b"Expect: 100-continue"], id="expect-continue"),
        pytest.param([LENGTH, b"Authorization: Basic a"], id="basic"),
    ],
)
def test_request_without_a_key_is_rejected_before_its_body_arrives(
    server: Server, lines: list[bytes]
) -> None:
    start = request(b"POST", CHAT, *lines, headers=HEADERS_WITHOUT_KEY)

    with RawConnection(server.port) as connection:
        connection.send(start)
        response = connection.read_response()

    assert response.status_and_code == (401, "missing_api_key")
