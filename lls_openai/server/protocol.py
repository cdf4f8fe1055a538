"""One client connection: HTTP/1.1 on httptools, with limits and one idle timer.

A connection is always in one of these states:

| state      | who acts    | ends when                                              |
|------------|-------------|--------------------------------------------------------|
| IDLE       | client      | the headers of a request are complete                  |
| RECEIVING  | client      | the body is complete, or 64 KiB of it wait to be read  |
| RUNNING    | application | the response is complete                               |
| SENDING    | client      | the client has read enough of the response             |
| DISCARDING | client      | the body of a request that has its response has ended  |
| LINGERING  | client      | the client closes; until then, all bytes are discarded |

Where the client acts and makes no progress for `client_timeout` seconds, the
connection is closed. Progress is a request, 16 KiB of a body, the end of a body, or
16 KiB that the client has read of a response. When the client closes, the running
request is notified.

Requests behind a running one wait in their order. Bytes that are not a request move the
connection to LINGERING, after the running response. So do too many waiting requests,
which the client may send again on another connection (RFC 9112, section 9.3.2).
"""

import asyncio
import logging
from typing import Any, cast

from starlette.types import Scope
from uvicorn.config import Config
from uvicorn.server import ServerState

from lls_openai.context import new_request_id
from lls_openai.errors import RelayError
from lls_openai.server.cycle import RequestCycle
from lls_openai.server.progress import ProgressTimer
from lls_openai.server.request_parser import RequestParser
from lls_openai.tcp import enable_keep_alive

# How many requests may wait behind the running one, and their size in bytes.
MAX_WAITING_REQUESTS = 8
MAX_WAITING_BYTES = 256 * 1024

# A client that sends its whole body before it reads would see a connection reset in the
# place of an early response. Up to this many bytes are discarded for it.
MAX_DISCARDED_BYTES = 512 * 1024 * 1024

# How long a client without a running request may take to close at a shutdown.
CLOSE_TIMEOUT = 1.0  # seconds

_NO_ADDRESS = ("-", 0)

logger = logging.getLogger("lls_openai.connection")


class ClientConnection(asyncio.Protocol):
    """The protocol of one client, as uvicorn makes it for each connection."""

    # In seconds; set once for the process.
    client_timeout = 60.0

    _transport: asyncio.Transport
    _progress: ProgressTimer

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.server = server_state
        self._app, self._app_state = config.loaded_app, app_state
        self._loop = _loop or asyncio.get_running_loop()
        self._parser = RequestParser(self)
        # The part of the scope that all requests of the connection share.
        self._scope: Scope = {}
        # Requests whose responses are not complete; only the first one is running, and
        # only the body of the last one may be incomplete.
        self._requests: list[RequestCycle] = []
        # The size of the requests behind the running one.
        self._waiting_bytes = 0
        # True once no further request will be read.
        self._is_last = False
        # True once the client has sent bytes that will not be read as a request.
        self._has_sent_more = False
        self._discarded_bytes = 0
        self._is_shutting_down = False
        self._reading_paused = False
        # Whether the client has to read before more is written.
        self.is_writing_paused = False
        self.writable = asyncio.Event()

    # Callbacks of the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the first request."""
        self._transport = cast("asyncio.Transport", transport)
        self.server.connections.add(self)  # type: ignore[arg-type]  # (not uvicorn's)
        enable_keep_alive(transport.get_extra_info("socket"))
        self._scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "root_path": "",
            # A client that has already disconnected has no address any more.
            "server": transport.get_extra_info("sockname", _NO_ADDRESS)[:2],
            "client": transport.get_extra_info("peername", _NO_ADDRESS)[:2],
            "scheme": "https" if transport.get_extra_info("sslcontext") else "http",
        }
        self._progress = ProgressTimer(
            self.client_timeout, self._transport, self._waits_for_client
        )

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (asyncio's)
        """Notify the requests that the client has disconnected."""
        self.server.connections.discard(self)
        self._progress.stop()
        self.resume_writing()
        for request in self._requests:
            request.disconnect()
        self._requests.clear()

    def pause_writing(self) -> None:
        """Hold responses back until the client has read more."""
        self.is_writing_paused = True
        self.writable.clear()

    def resume_writing(self) -> None:
        """Continue with the responses."""
        self.is_writing_paused = False
        self.writable.set()

    def data_received(self, data: bytes) -> None:
        """Parse the bytes, then start the next request."""
        if self._is_last:
            self._has_sent_more = True
            self._progress.add_body(len(data))
            self._discard(len(data))
            return
        if self._requests and not self._requests[0].more_body:
            self._waiting_bytes += len(data)
        try:
            self._parser.feed(data)
        except RelayError as error:
            self._reject(error)
        else:
            if self._waiting_bytes > MAX_WAITING_BYTES:
                self._stop_after_running_request()
        self._start_next()

    # Callbacks of the parser.

    def begin_request(
        self, scope: Scope, *, keep_alive: bool, expects_continue: bool
    ) -> None:
        """Queue a request; raise RelayError if too many are waiting."""
        self._progress.note()
        if len(self._requests) > MAX_WAITING_REQUESTS:
            raise RelayError("invalid_http_request", "Too many pipelined requests")
        scope.update(self._scope, state=self._app_state.copy())
        self._requests.append(
            RequestCycle(
                self, scope, keep_alive=keep_alive, expects_continue=expects_continue
            )
        )

    def add_body(self, body: bytes) -> None:
        """Buffer a part of a body, or discard it if the response is complete."""
        self._progress.add_body(len(body))
        if not self._requests:
            self._discard(len(body))
            return
        request = self._requests[-1]
        if request.add_body(body) and request is self._requests[0]:
            self._reading_paused = True
            self._transport.pause_reading()

    def end_request(self) -> None:
        """Note that a request is complete."""
        self._progress.note()
        if self._requests:
            self._requests[-1].end_body()

    # The methods that a request's cycle calls.

    def write(self, data: bytes) -> None:
        """Send bytes of a response."""
        self._progress.written_bytes += len(data)
        self._transport.write(data)

    def read_on(self) -> None:
        """Read again, after too much of a body was buffered."""
        if self._reading_paused:
            self._reading_paused = False
            self._transport.resume_reading()

    def abort(self) -> None:
        """Close at once: the client must see that the response is incomplete."""
        self._transport.abort()

    def end_response(self, request: RequestCycle) -> None:
        """Continue with the next request, or close the connection."""
        self.server.total_requests += 1
        self._progress.note()
        del self._requests[0]
        if len(self._requests) <= 1:
            self._waiting_bytes = 0
        if request.keep_alive and not self._is_last:
            self.read_on()
            self._start_next()
        elif request.more_body or self._requests or self._has_sent_more:
            self._linger()
        else:
            self._transport.close()

    def shutdown(self) -> None:
        """Close after the running response, as uvicorn asks when the server stops."""
        self._is_shutting_down = True
        if self._requests:
            self._requests[0].keep_alive = False
            # Otherwise, the rest of its body is still to be read.
            if not self._requests[0].more_body:
                self._stop_after_running_request()
            return
        self._transport.close()
        if not self._transport.get_write_buffer_size():
            self._loop.call_later(CLOSE_TIMEOUT, self.abort)

    # The connection's own steps.

    def _start_next(self) -> None:
        if self._requests and not self._requests[0].is_started:
            self._requests[0].is_started = True
            # An eager start saves a turn of the event loop.
            run = self._requests[0].run(self._app)
            task = asyncio.Task(run, loop=self._loop, eager_start=True)
            self.server.tasks.add(task)
            task.add_done_callback(self.server.tasks.discard)

    def _reject(self, error: RelayError) -> None:
        """Send an error, unless an earlier request is still to be answered."""
        if self._transport.is_closing():
            return
        if self._requests:
            running = self._requests[0]
            if running.has_begun_response or not running.more_body:
                self._stop_after_running_request()
                self._has_sent_more = True
                return
            # The running request is the invalid one: its body has no end.
            running.context.fail(error)
            running.disconnect()
        logger.warning("%s", error.message)
        self.write(error.http_response(new_request_id()))
        self._linger()

    def _stop_after_running_request(self) -> None:
        """Read no further request, and close when the running one has ended."""
        self._is_last = True
        running = self._requests[0]
        running.keep_alive = False
        self._has_sent_more = self._has_sent_more or len(self._requests) > 1
        del self._requests[1:]
        self.read_on()

    def _linger(self) -> None:
        """Close for writing, and discard what the client still sends.

        Closing a socket with unread bytes resets it, and the client may lose the
        response (RFC 9112, section 9.6).
        """
        self._is_last = True
        self._requests.clear()
        self.read_on()
        if self._is_shutting_down:
            self._progress.shorten(CLOSE_TIMEOUT)
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()

    def _discard(self, size: int) -> None:
        self._discarded_bytes += size
        if self._discarded_bytes > MAX_DISCARDED_BYTES:
            self.abort()

    # The state, for the timer.

    def _waits_for_client(self) -> bool:
        """Return whether the connection is in any state but RUNNING."""
        if not self._requests or self.is_writing_paused:
            return True
        return self._requests[0].more_body and not self._reading_paused
