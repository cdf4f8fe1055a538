"""A gate between the threads: the upstream waits at it, a test opens it."""

import asyncio
import concurrent.futures


class Gate:
    """Closed at first; once open it stays open."""

    def __init__(self) -> None:
        """Make a closed gate, in any thread."""
        self._opened: concurrent.futures.Future[None] = concurrent.futures.Future()

    def open(self) -> None:
        """Let everyone pass; from any thread, any number of times."""
        if not self._opened.done():
            self._opened.set_result(None)

    async def wait(self) -> None:
        """Wait until the gate is open; in a handler, so in the upstream's loop."""
        # Shielded: a handler that is cancelled must not cancel the gate for the others.
        await asyncio.shield(asyncio.wrap_future(self._opened))
