"""A caller that goes away, and what is done about it: its call ends at once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.types import Receive


@asynccontextmanager
async def while_connected(receive: Receive) -> AsyncIterator[None]:
    """Run a block for as long as the caller is there, and cancel it when it leaves.

    Args:
        receive: ASGI's receive, after the whole body has been read.
    """
    task = asyncio.current_task()
    left = False

    async def watch() -> None:
        nonlocal left
        while (await receive())["type"] != "http.disconnect":
            pass
        left = True
        if task:
            task.cancel()

    watcher = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if not left:
            raise
        if task:
            task.uncancel()
    finally:
        watcher.cancel()
