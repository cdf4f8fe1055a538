"""An application that fails: its client gets a complete error or a cut response.

The applications are small ones, behind the connections that the server uses.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from lls_openai.server.protocol import ClientConnection
from tests.support.http import (
    CHAT,
    MESSAGES,
    RawConnection,
    eventually,
    exchange,
    request,
)
from tests.support.server import free_port

pytestmark = pytest.mark.usefixtures("only_caplog")
PROMPT = "a part of a prompt"


@contextmanager
def serving(app: ASGIApp) -> Iterator[int]:
    """Serve an application in a thread; return its port."""
    port = free_port()
    config = uvicorn.Config(
        app, port=port, http=ClientConnection, lifespan="off", log_config=None
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        eventually(lambda: server.started, "the server listens")
        yield port
    finally:
        server.should_exit = True
        thread.join(10)


def responding(*bodies: bytes, **headers: str) -> ASGIApp:
    """Return an application that sends these parts of a body, then raises."""

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": 200, "headers": pairs})
        for body in bodies:
            await send({"type": "http.response.body", "body": body, "more_body": True})
        raise RuntimeError(PROMPT)

    return app


async def fail(_scope: Scope, _receive: Receive, _send: Send) -> None:
    raise RuntimeError(PROMPT)


@pytest.mark.parametrize(
    "app",
    [
        pytest.param(fail, id="exception"),
        pytest.param(responding(b"a", a="b\nset-cookie: c"), id="line-feed-in-header"),
        pytest.param(responding(b"abc", **{"content-length": "2"}), id="body-too-long"),
    ],
)
def test_failure_before_the_response_is_a_500_in_the_form_of_the_route(
    app: ASGIApp, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(app) as port:
        openai = exchange(port, request(b"POST", CHAT, body=b"{}"))
        anthropic = exchange(port, request(b"POST", MESSAGES, body=b"{}"))

    assert openai.status_and_code == (500, "internal_error"), openai
    assert openai.error["type"] == "server_error"
    assert (anthropic.status, anthropic.error["type"]) == (500, "api_error")
    lines = [line for line in caplog.messages if "Unexpected" in line]
    assert len(lines) == 2
    assert PROMPT not in caplog.text


@pytest.mark.parametrize(
    ("app", "received"),
    [
        pytest.param(responding(b"abc"), b"3\r\nabc\r\n", id="chunked"),
        pytest.param(
            responding(b"abc", **{"content-length": "5"}), b"abc", id="body-too-short"
        ),
    ],
)
def test_failure_inside_the_response_cuts_it(
    app: ASGIApp, received: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(app) as port, RawConnection(port) as connection:
        connection.send(request(b"GET", "/"))
        connection.read_until(b"\r\n\r\n")

        assert connection.read_to_end() == received

    assert PROMPT not in caplog.text


def test_client_that_expects_100_continue_is_asked_for_its_body() -> None:
    async def echo(_scope: Scope, receive: Receive, send: Send) -> None:
        message = await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": message["body"]})

    with serving(echo) as port, RawConnection(port) as connection:
        connection.send(
            request(b"POST", "/", b"Expect: 100-continue", b"Content-Length: 2")
        )
        connection.read_until(b"HTTP/1.1 100 Continue\r\n\r\n")
        connection.send(b"{}")

        assert connection.read_response().body == b"{}"
