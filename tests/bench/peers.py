"""The upstream and the bare relay, and the bytes that go over the wire.

`python -m tests.bench.peers` is the upstream, on LLAMA_STACK_PORT, which costs next to
nothing: bytes made beforehand, no web framework. With the URL of that behind it, it is
the yardstick: a relay that does nothing but relay.
"""

import asyncio
import json
import os
import re
import sys
from collections.abc import Iterator
from typing import cast

import aiohttp
import uvicorn
import uvloop
from starlette.types import ASGIApp, Receive, Scope, Send

PATH = "/v1/chat/completions"
HEADERS = {
    "Content-Type": "application/json",
    "Authorization": "Bearer bench-key",
    # Stock Llama Stack takes the key from here alone.
    "X-LlamaStack-Provider-Data": '{"passthrough_api_key": "bench-key"}',
}
# Of each kind of answer its chunks (0: it is no stream) and the seconds between them.
# The prompt names the kind, because every relay passes it on as it is.
KINDS = {
    "regular": (0, 0),
    "burst": (200, 0),
    # Only the first chunk counts; the others come too late to compete with it.
    "first": (4, 0.002),
    # A vendor's common pace: whoever holds chunks back is seen.
    "slow": (20, 0.05),
    # Long enough for 500 of them to be open at once.
    "held": (20, 0.25),
}


def request_body(kind: str) -> bytes:
    """The body of a call that is answered in this way."""
    text = f"bench:{kind} Which of the planets is the largest? Answer in one sentence."
    body = {"model": "openai/gpt-4o", "temperature": 0.2, "max_tokens": 200}
    body |= {"messages": [{"role": "user", "content": text}]}
    return json.dumps(body | ({"stream": True} if KINDS[kind][0] else {})).encode()


def _answer(kind: str, **choice: object) -> bytes:
    made = {"id": "chatcmpl-bench", "object": kind, "created": 1_790_000_000}
    made |= {"model": "gpt-4o", "choices": [{"index": 0, "logprobs": None} | choice]}
    return json.dumps(made, separators=(",", ":")).encode()


_HEAD = b"HTTP/1.1 200 OK\r\nx-request-id: req_bench\r\nContent-Type: "
_STREAM = _HEAD + b"text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def _writes(count: int) -> list[bytes]:
    if not count:
        body = _answer("chat.completion", message={"content": "Jupiter. " * 40})
        length = b"Content-Length: %d\r\n\r\n" % len(body)
        return [_HEAD + b"application/json\r\n" + length + body]
    deltas = ({"content": f" {number}"} for number in range(count))
    made = (_answer("chat.completion.chunk", delta=delta) for delta in deltas)
    events = [b"data: %b\n\n" % data for data in (*made, b"[DONE]")]
    first, *chunks = [b"%x\r\n%b\r\n" % (len(event), event) for event in events]
    return [_STREAM + first, *chunks, b"0\r\n\r\n"]


_WRITES = {name: _writes(count) for name, (count, _) in KINDS.items()}
# Stock Llama Stack asks for the models at boot, without a key, in an event loop that
# it ends afterwards: a connection kept open would cost a traceback.
_REFUSED = b"HTTP/1.1 401 No key\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
_KIND = re.compile(rb"bench:(\w+)")
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Upstream(asyncio.Protocol):
    """One connection of the upstream; callers do not pipeline."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._loop, self._read = asyncio.get_running_loop(), b""
        # uvloop's transports are no subclass of asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._read += data
        head, end, body = self._read.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not end or len(body) < (int(length[1]) if length else 0):
            return
        self._read = b""
        if kind := _KIND.search(body):
            name = kind[1].decode()
            self._write(KINDS[name][1], iter(_WRITES[name]))
        else:
            self._transport.write(_REFUSED)
            self._transport.close()

    def _write(self, pause: float, parts: Iterator[bytes]) -> None:
        part = next(parts, b"")
        if not part or self._transport.is_closing():
            return
        self._transport.write(part)
        # One write in each turn of the loop: uvloop joins the writes of a turn, and a
        # vendor sends each event by itself.
        if pause:
            self._loop.call_later(pause, self._write, pause, parts)
        else:
            self._loop.call_soon(self._write, pause, parts)


async def serve_upstream(port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Upstream, "127.0.0.1", port, backlog=2048)
    await server.serve_forever()


def bare_relay(upstream: str) -> ASGIApp:
    """An application that posts what it gets to the upstream, and no more."""
    passed = (b"authorization", b"content-type", b"content-length", b"x-request-id")
    session: aiohttp.ClientSession | None = None

    async def relay(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal session
        session = session or aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), auto_decompress=False
        )
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message["body"], message["more_body"]
        sent = [(n.decode(), v.decode()) for n, v in scope["headers"] if n in passed]
        url = upstream + scope["path"]
        async with session.post(url, data=body, headers=dict(sent)) as answer:
            pairs = [(n.lower(), v) for n, v in answer.raw_headers]
            start = {"type": "http.response.start", "status": answer.status}
            await send(start | {"headers": [p for p in pairs if p[0] in passed]})
            async for part in answer.content.iter_any():
                begun = {"type": "http.response.body", "body": part, "more_body": True}
                await send(begun)
            await send({"type": "http.response.body"})

    return relay


if __name__ == "__main__":
    listening = int(os.environ["LLAMA_STACK_PORT"])
    if not sys.argv[1:]:
        uvloop.run(serve_upstream(listening))
    uvicorn.run(
        bare_relay(sys.argv[1]),
        port=listening,
        loop="uvloop",
        http="httptools",
        lifespan="off",
        access_log=False,
    )
