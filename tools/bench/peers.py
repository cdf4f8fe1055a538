"""The upstream and the bare relay, and the bytes that go over the wire.

`python -m tools.bench.peers` is the upstream, on LLAMA_STACK_PORT, which costs next to
nothing: bytes made beforehand, no web framework. With the URL of that behind it, it is
the yardstick: a relay that does nothing but relay.
"""

import asyncio
import os
import re
import sys
from collections.abc import Iterator
from typing import cast

import aiohttp
import uvicorn
import uvloop
from starlette.types import Receive, Scope, Send

from tests.support import wire
from tests.support.http import chat, to_json
from tests.support.wire import EVENTS, JSON, Json

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
    body = chat(temperature=0.2, max_tokens=200, stream=bool(KINDS[kind][0]))
    return to_json(body | {"messages": [{"role": "user", "content": text}]})


def _answer(kind: str, **choice: object) -> Json:
    made = {"id": "chatcmpl-bench", "object": kind, "created": 1_790_000_000}
    choices = [{"index": 0, "logprobs": None} | choice]
    return made | {"model": "gpt-4o", "choices": choices}


def _writes(count: int) -> list[bytes]:
    own = {"x-request-id": "req_bench"}
    if not count:
        whole = _answer("chat.completion", message={"content": "Jupiter. " * 40})
        return [wire.respond(to_json(whole), headers=JSON | own)]
    deltas = ({"content": f" {number}"} for number in range(count))
    made = (_answer("chat.completion.chunk", delta=delta) for delta in deltas)
    first, *chunks = map(wire.chunk, (*map(wire.event, made), wire.DONE))
    start = wire.response_head(200, EVENTS | own, ("transfer-encoding", "chunked"))
    return [start + first, *chunks, wire.LAST_CHUNK]


_WRITES = {name: _writes(count) for name, (count, _) in KINDS.items()}
# Stock Llama Stack asks for the models at boot, without a key, in an event loop that
# it ends afterwards: a connection kept open would cost a traceback.
_REFUSED = wire.respond(b"", 401, {"connection": "close"})
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
    create = asyncio.get_running_loop().create_server
    await (await create(Upstream, "127.0.0.1", port, backlog=2048)).serve_forever()


async def serve_bare(port: int, upstream: str) -> None:
    """Post what comes to the upstream, pass on what it answers, and no more."""
    passed = (b"authorization", b"content-type", b"content-length", b"x-request-id")

    async def relay(scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message["body"], message["more_body"]
        sent = {n.decode(): v.decode() for n, v in scope["headers"] if n in passed}
        url = upstream + scope["path"]
        async with session.post(url, data=body, headers=sent) as answer:
            headers = [each for each in answer.raw_headers if each[0] in passed]
            start = {"type": "http.response.start", "status": answer.status}
            await send(start | {"headers": headers})
            async for part in answer.content.iter_any():
                begun = {"type": "http.response.body", "body": part, "more_body": True}
                await send(begun)
            await send({"type": "http.response.body"})

    config = uvicorn.Config(
        relay, port=port, http="httptools", lifespan="off", access_log=False
    )
    pool = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=pool, auto_decompress=False) as session:
        await uvicorn.Server(config).serve()


if __name__ == "__main__":
    listening = int(os.environ["LLAMA_STACK_PORT"])
    bare = serve_bare(listening, *sys.argv[1:]) if sys.argv[1:] else None
    uvloop.run(bare or serve_upstream(listening))
