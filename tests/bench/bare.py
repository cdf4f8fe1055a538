"""The yardstick: a relay that does nothing but relay.

uvicorn with uvloop and httptools, one shared aiohttp session, no framework, no access
log, no errors of its own: what any relay of this make has to pay.

Run as `python -m tests.bench.bare UPSTREAM_URL`; it prints the port it listens on.
"""

import socket
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

import aiohttp
import uvicorn

type Message = MutableMapping[str, Any]
type Receive = Callable[[], Awaitable[Message]]
type Send = Callable[[Message], Awaitable[None]]

_TO_UPSTREAM: Final = {b"authorization", b"content-type"}
_TO_CALLER: Final = {"content-type", "content-length", "x-request-id"}


class Relay:
    """An ASGI application that posts what it gets to the upstream."""

    def __init__(self, upstream: str) -> None:
        """Relay to this upstream.

        Args:
            upstream: Its URL, without a path.
        """
        self._upstream = upstream
        self._session: aiohttp.ClientSession

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one request, or the start and the end of the server."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:
            await self._relay(scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._session.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _relay(self, scope: Message, receive: Receive, send: Send) -> None:
        headers = {
            name.decode(): value.decode()
            for name, value in scope["headers"]
            if name in _TO_UPSTREAM
        }
        call = self._session.post(
            self._upstream + scope["path"], data=await _body(receive), headers=headers
        )
        async with call as answer:
            await send(_start(answer))
            async for part in answer.content.iter_any():
                await send(
                    {"type": "http.response.body", "body": part, "more_body": True}
                )
            await send({"type": "http.response.body"})


async def _body(receive: Receive) -> bytes:
    message = await receive()
    body: bytes = message["body"]
    while message["more_body"]:
        message = await receive()
        body += message["body"]
    return body


def _start(answer: aiohttp.ClientResponse) -> Message:
    headers = [
        (name.lower().encode(), value.encode())
        for name, value in answer.headers.items()
        if name.lower() in _TO_CALLER
    ]
    return {
        "type": "http.response.start",
        "status": answer.status,
        "headers": headers,
    }


def main() -> None:
    """Serve on a free port of the loopback interface until the process is ended."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    print(listener.getsockname()[1], flush=True)
    config = uvicorn.Config(
        Relay(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        access_log=False,
        proxy_headers=False,
        log_level="error",
    )
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
