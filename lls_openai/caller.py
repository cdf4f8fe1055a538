"""A caller that goes away, and what is done about it: its call ends at once."""

import asyncio
from types import TracebackType

from starlette.types import Scope


class Caller:
    """Whoever sent a request, and may leave before it is answered.

    As a context it runs a block for as long as the caller is there: a caller that
    leaves cancels the block, which then ends without an error.
    """

    __slots__ = ("_left", "_task")

    def __init__(self) -> None:
        self._left = False
        self._task: asyncio.Task[object] | None = None

    def leave(self) -> None:
        """Say that the caller has left."""
        self._left = True
        if self._task:
            self._task.cancel()

    def __enter__(self) -> None:
        """Begin the block, in the task that a leaving caller ends."""
        self._task = asyncio.current_task()
        if self._left:
            self.leave()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        """End the block; a cancellation that the caller has caused goes no further."""
        task, self._task = self._task, None
        ended = self._left and isinstance(error, asyncio.CancelledError)
        if ended and task:
            task.uncancel()
        return ended


def caller_of(scope: Scope) -> Caller:
    """Find who sent a request; without a `Connection`, it is one who never leaves.

    Args:
        scope: the request's.
    """
    caller: Caller = scope.get("lls_openai.caller") or Caller()
    return caller
