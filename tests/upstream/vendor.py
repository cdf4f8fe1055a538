"""One vendor: a listening port that records what it receives and answers it."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, NamedTuple

from tests.upstream.dialect import Dialect
from tests.upstream.recording import Recording
from tests.upstream.wire import Connection, Request

type Handler = Callable[[Request, Connection], Awaitable[None]]

_BACKLOG = 4096


class _Script(NamedTuple):
    handler: Handler
    times: int | None
    read_body: bool


class Vendor(Recording):
    """A vendor on a port of the loopback interface.

    `start`, `stop` and `answer` belong into the loop; everything else may be used from
    any thread but the loop's.

    Attributes:
        dialect: How it answers what no script answers.
        pause: Seconds between the events of a stream; 0 after a reset.
        port: The port it listens on; 0 before `start`.
    """

    def __init__(self, dialect: Dialect) -> None:
        """Make a vendor that does not listen yet."""
        super().__init__()
        self.dialect = dialect
        self.pause = 0.0
        self.port = 0
        self._script: _Script | None = None
        self._accepted = 0
        self._serving: dict[Connection, asyncio.Task[None]] = {}
        self._answering: set[Connection] = set()
        self._loop: asyncio.AbstractEventLoop
        self._server: asyncio.Server

    async def start(self, port: int = 0) -> None:
        """Listen, in the running loop.

        Args:
            port: The port to listen on; 0 takes a free one.

        Raises:
            OSError: The port is taken; the message names vendor and port.
        """
        self._loop = asyncio.get_running_loop()
        try:
            self._server = await self._loop.create_server(
                self._accept, "127.0.0.1", port, backlog=_BACKLOG
            )
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            message = f"Port {port} for {self.dialect.name}: {reason}"
            raise OSError(error.errno, message) from error
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening and drop every connection."""
        self._server.close()
        await self._drop(self._serving)

    @property
    def url(self) -> str:
        """What `*_UPSTREAM_URL` has to be for the server to call this vendor."""
        return f"http://127.0.0.1:{self.port}{self.dialect.base_path}"

    @property
    def open_connections(self) -> int:
        """How many connections are open now, idle ones included."""
        return len(self._serving)

    def answer_with(
        self, handler: Handler, *, times: int | None = None, read_body: bool = True
    ) -> None:
        """Let a script answer from now on, in place of the dialect.

        A script that is underway when the peer leaves is cancelled.

        Args:
            handler: Gets the request and the connection, and writes what it likes.
            times: How many requests it answers before the dialect answers again; None
                for all until the next reset.
            read_body: Whether the body is read before the handler is called; otherwise
                it may call `connection.read_body(request)` itself.
        """
        self._script = _Script(handler, times, read_body)

    async def answer(self, request: Request, connection: Connection) -> None:
        """Answer as the dialect does: for scripts that only add to it."""
        await self.dialect.answer(request, connection, self.pause)

    def reset(self) -> None:
        """Forget recordings and scripts and break off what is underway.

        Idle connections stay open, as the server's pool expects them to.
        """
        self._in_loop(self._reset())

    def drop_connections(self) -> None:
        """Close every connection, the idle ones as well, as vendors do."""
        self._in_loop(self._drop(self._serving))

    def _in_loop(self, job: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(job, self._loop).result(timeout=10)

    async def _reset(self) -> None:
        await self._drop(self._answering)
        self._forget()
        self._script = None
        self.pause = 0.0

    async def _drop(self, connections: Iterable[Connection]) -> None:
        tasks = [self._serving[connection] for connection in connections]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _accept(self) -> Connection:
        self._accepted += 1
        return Connection(self._accepted, self._connected, self._peer_left)

    def _connected(self, connection: Connection) -> None:
        def count() -> None:
            self._connections += 1
            self._serving[connection] = self._loop.create_task(self._serve(connection))

        self._note(count)

    def _peer_left(self, connection: Connection) -> None:
        if connection in self._answering:
            self._serving[connection].cancel()
        self._note(lambda: None)

    async def _serve(self, connection: Connection) -> None:
        try:
            while request := await connection.read_head():
                await self._serve_one(request, connection)
                if connection.closed or request.wants_close:
                    break
        except ConnectionError:
            pass  # The peer left while its answer was written: recorded already.
        except Exception as error:  # noqa: BLE001 - whatever a script raised is shown
            fault = error
            self._note(lambda: self._faults.append(fault))
        finally:
            connection.close()
            self._note(lambda: self._serving.pop(connection))

    async def _serve_one(self, request: Request, connection: Connection) -> None:
        self._answering.add(connection)
        try:
            self._note(lambda: self._calls.append(request))
            script = self._next_script()
            if script is None or script.read_body:
                await connection.read_body(request)
            await (script.handler if script else self.answer)(request, connection)
            self._note(lambda: setattr(request, "answered_at", time.monotonic()))
        finally:
            self._answering.discard(connection)

    def _next_script(self) -> _Script | None:
        script = self._script
        if script is not None and script.times is not None:
            left = script.times - 1
            self._script = script._replace(times=left) if left else None
        return script
