"""A caller that goes away, and what is done about it: its call ends at once."""

import asyncio
from types import TracebackType

from starlette.types import Receive


class WhileConnected:
    """Runs a block for as long as the caller is there, and cancels it when it leaves.

    Args:
        receive: ASGI's receive, after the whole body has been read.
    """

    __slots__ = ("_left", "_receive", "_task", "_watcher")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._left = False

    async def __aenter__(self) -> None:
        """Begin to watch the caller."""
        self._task = asyncio.current_task()
        self._watcher = asyncio.create_task(self._watch())

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        """End the watch; a cancellation that it has caused goes no further."""
        self._watcher.cancel()
        ended = self._left and isinstance(error, asyncio.CancelledError)
        if ended and self._task:
            self._task.uncancel()
        return ended

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._left = True
        if self._task:
            self._task.cancel()
