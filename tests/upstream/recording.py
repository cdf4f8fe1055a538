"""What a vendor has seen since the last reset, to be read from any thread."""

import threading
from collections.abc import Callable

from tests.upstream.wire import Request


class Recording:
    """Requests, connections and faults, written in one loop and read anywhere."""

    def __init__(self) -> None:
        """Begin with nothing recorded."""
        self._changed = threading.Condition()
        self._forget()

    def _forget(self) -> None:
        with self._changed:
            self._calls: list[Request] = []
            self._faults: list[BaseException] = []
            self._connections = 0

    @property
    def calls(self) -> list[Request]:
        """The requests since the last reset, in the order in which they arrived."""
        with self._changed:
            return list(self._calls)

    @property
    def connections(self) -> int:
        """How many connections were accepted since the last reset."""
        return self._connections

    @property
    def faults(self) -> list[BaseException]:
        """What went wrong in here: scripts that raised, peers that spoke no HTTP."""
        with self._changed:
            return list(self._faults)

    def wait_until(self, condition: Callable[[], bool], deadline: float = 5) -> None:
        """Wait for something that is recorded here.

        Args:
            condition: True when it has happened; asked again at every change.
            deadline: Seconds to wait at most.

        Raises:
            TimeoutError: It has not happened in time.
        """
        with self._changed:
            if not self._changed.wait_for(condition, deadline):
                message = f"the upstream has not seen it within {deadline} s"
                raise TimeoutError(message)

    def _note(self, change: Callable[[], object]) -> None:
        with self._changed:
            change()
            self._changed.notify_all()
