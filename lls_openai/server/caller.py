"""The caller of one request, of which uvicorn tells applications little."""

import asyncio
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


class Caller:
    """Stands in a request's scope, as `lls_openai.caller`.

    Args:
        cycle: uvicorn's own object for the request and its answer.
    """

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self.cycle = cycle
        self._tell: Callable[[], object] | None = None
        if cycle.scope["http_version"] == "1.0":
            _leave_unchunked(cycle)

    @property
    def is_sending(self) -> bool:
        """Whether more of the request's body is to come."""
        return self.cycle.more_body and not self.cycle.disconnected

    def on_disconnect(self, tell: Callable[[], object]) -> None:
        """Have something called when the caller is gone; at once, if it is already."""
        self._tell = tell
        # uvicorn reads no more behind a large body, and would not see it go.
        self.cycle.flow.resume_reading()
        if self.cycle.disconnected:
            tell()

    def disconnect(self) -> None:
        """Tell who asked for it that the caller is gone."""
        self.cycle.disconnected = True
        if self._tell:
            self._tell()

    async def abort(self) -> None:
        """End the connection at once, and wait until the application can know."""
        self._tell = None
        self.cycle.transport.abort()
        while not self.cycle.disconnected:  # noqa: ASYNC110 (two turns of the loop away)
            await asyncio.sleep(0)


def _leave_unchunked(cycle: RequestResponseCycle) -> None:
    """Send an answer as it is: HTTP/1.0 knows no chunks, which uvicorn would send."""
    cycle.chunked_encoding = False
    send = cycle.send

    async def send_as_is(message: Any) -> None:  # noqa: ANN401 (ASGI's)
        cycle.expected_content_length = len(message.get("body", b""))
        await send(message)

    cycle.send = send_as_is  # type: ignore[method-assign]
