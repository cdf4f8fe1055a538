"""The bare relay: uvicorn and aiohttp, and nothing else.

`python -m tools.bench.bare URL` listens on LLAMA_STACK_PORT and forwards each request
to URL. It checks nothing, logs nothing and handles no error: the yardstick.
"""

import os
import sys

# Not a dependency of the package; Llama Stack installs it.
import aiohttp
import uvicorn
import uvloop
from starlette.types import Receive, Scope, Send

_FORWARDED = (b"authorization", b"content-type", b"content-length", b"x-request-id")


async def serve(port: int, upstream: str) -> None:
    async def relay(scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message["body"], message["more_body"]
        given = scope["headers"]
        headers = {n.decode(): v.decode() for n, v in given if n in _FORWARDED}
        url = upstream + scope["path"]
        async with session.post(url, data=body, headers=headers) as response:
            returned = [each for each in response.raw_headers if each[0] in _FORWARDED]
            start = {"type": "http.response.start", "status": response.status}
            await send(start | {"headers": returned})
            async for part in response.content.iter_any():
                event = {"type": "http.response.body", "body": part, "more_body": True}
                await send(event)
            await send({"type": "http.response.body"})

    config = uvicorn.Config(
        relay, port=port, http="httptools", lifespan="off", access_log=False
    )
    pool = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=pool, auto_decompress=False) as session:
        await uvicorn.Server(config).serve()


if __name__ == "__main__":
    uvloop.run(serve(int(os.environ["LLAMA_STACK_PORT"]), sys.argv[1]))
