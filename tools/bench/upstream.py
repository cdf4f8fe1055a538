"""An upstream that costs next to nothing: prepared bytes, no web framework.

`python -m tools.bench.upstream` listens on LLAMA_STACK_PORT. The prompt of a request
names the kind of response, because every relay passes the prompt on unchanged.
"""

import asyncio
import os
import re
from collections.abc import Iterator
from itertools import batched
from typing import NamedTuple, cast

import uvloop

from tests.support import wire
from tests.support.http import chat, to_json
from tests.support.wire import EVENTS, JSON, Json


class Kind(NamedTuple):
    """A kind of response; without chunks it is not a stream."""

    chunks: int = 0
    chunks_per_write: int = 1
    seconds_between: float = 0


KINDS = {
    "buffered": Kind(),
    # A write takes the upstream as long as a relay needs for a chunk: with one write
    # per chunk, the upstream would be the limit.
    "burst": Kind(200, 4),
    "single": Kind(200),
    # Long enough for 1,000 of them to be open at once.
    "slow": Kind(16, seconds_between=0.5),
}


def request_body(kind: str, model: str) -> bytes:
    """Return the body of a request for this kind of response."""
    text = f"bench:{kind} Which planet is the largest? Answer in one sentence."
    body = chat(model, temperature=0.2, max_tokens=200, stream=KINDS[kind].chunks > 0)
    return to_json(body | {"messages": [{"role": "user", "content": text}]})


def _object(kind: str, **choice: object) -> Json:
    fixed = {"id": "chatcmpl-bench", "object": kind, "created": 1_790_000_000}
    choices = [{"index": 0, "logprobs": None, "finish_reason": None} | choice]
    return fixed | {"model": "gpt-4o", "choices": choices}


def _writes(kind: Kind) -> list[bytes]:
    request_id = {"x-request-id": "req_bench"}
    if not kind.chunks:
        message = {"role": "assistant", "content": "Jupiter. " * 40}
        completion = _object("chat.completion", message=message, finish_reason="stop")
        usage = {"prompt_tokens": 12, "completion_tokens": 80, "total_tokens": 92}
        body = to_json(completion | {"usage": usage})
        return [wire.respond(body, headers=JSON | request_id)]
    deltas = ({"content": f" {number}"} for number in range(kind.chunks))
    objects = (_object("chat.completion.chunk", delta=delta) for delta in deltas)
    first, *rest = map(wire.chunk, (*map(wire.event, objects), wire.DONE))
    start = wire.response_head(
        200, EVENTS | request_id, ("transfer-encoding", "chunked")
    )
    chunks = [start + first, *rest, wire.LAST_CHUNK]
    return [b"".join(each) for each in batched(chunks, kind.chunks_per_write)]


_WRITES = {name: _writes(kind) for name, kind in KINDS.items()}
# Stock Llama Stack lists the models at boot, in an event loop that it closes
# afterwards: a connection kept open would cost it a traceback.
_REJECTED = wire.respond(b"", 401, {"connection": "close"})
_KIND = re.compile(rb"bench:(\w+)")
_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Upstream(asyncio.Protocol):
    """One connection; clients must not pipeline."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._loop, self._received = asyncio.get_running_loop(), b""
        # uvloop's transports are no subclass of asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        headers, end, body = self._received.partition(b"\r\n\r\n")
        length = _CONTENT_LENGTH.search(headers)
        if not end or len(body) < (int(length[1]) if length else 0):
            return
        self._received = b""
        if found := _KIND.search(body):
            name = found[1].decode()
            self._write(KINDS[name].seconds_between, iter(_WRITES[name]))
        else:
            self._transport.write(_REJECTED)
            self._transport.close()

    def _write(self, pause: float, parts: Iterator[bytes]) -> None:
        part = next(parts, b"")
        if not part or self._transport.is_closing():
            return
        self._transport.write(part)
        # One write per turn of the loop: uvloop would join the writes of one turn.
        if pause:
            self._loop.call_later(pause, self._write, pause, parts)
        else:
            self._loop.call_soon(self._write, pause, parts)


async def serve(port: int) -> None:
    create = asyncio.get_running_loop().create_server
    await (await create(Upstream, "127.0.0.1", port, backlog=2048)).serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(os.environ["LLAMA_STACK_PORT"])))
