"""An answer before it is written: whole, or as the events of a stream."""

import asyncio
import json
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from tests.upstream.wire import Connection

type Json = dict[str, Any]

DONE = b"data: [DONE]\n\n"


def event(data: Json) -> bytes:
    """One server-sent event with JSON in it, as the vendors write it."""
    return b"data: " + json.dumps(data, separators=(",", ":")).encode() + b"\n\n"


@dataclass(frozen=True)
class Reply:
    """Status, headers, and either a body or events.

    Attributes:
        events: The events of a stream, each written as a chunk of its own; None when
            the answer is whole.
        breaks_off: Whether the connection is reset: a stream after half of its events,
            a whole answer before its first byte.
    """

    status: int
    headers: dict[str, str]
    body: bytes = b""
    events: list[bytes] | None = None
    breaks_off: bool = False

    async def send(self, connection: Connection, pause: float) -> None:
        """Write it.

        Args:
            connection: Where to.
            pause: Seconds between the events of a stream.
        """
        if self.events is not None:
            await self._stream(self.events, connection, pause)
        elif self.breaks_off:
            connection.reset()
        else:
            await connection.answer(self.status, self.headers, self.body)

    async def _stream(
        self, events: list[bytes], connection: Connection, pause: float
    ) -> None:
        await connection.head(self.status, self.headers)
        for sse_event in events[: len(events) // 2] if self.breaks_off else events:
            await connection.chunk(sse_event)
            # Also without a pause: the event leaves before the next one is written.
            await asyncio.sleep(pause)
        if self.breaks_off:
            connection.reset()
        else:
            await connection.end()


def whole(
    body: Json | list[Json], headers: dict[str, str], status: int = HTTPStatus.OK
) -> Reply:
    """A JSON answer."""
    return Reply(status, headers, json.dumps(body, indent=2).encode() + b"\n")
