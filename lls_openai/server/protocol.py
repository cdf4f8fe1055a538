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
import socket
from collections import deque
from http import HTTPStatus
from typing import Any, cast
from urllib.parse import unquote

import httptools
from uvicorn.config import Config
from uvicorn.server import ServerState

from lls_openai.context import new_request_id
from lls_openai.errors import RelayError
from lls_openai.server.cycle import RequestCycle

# httptools joins the parts of a long header in quadratic time, so the limit is checked
# after each read.
MAX_HEADER_BYTES = 64 * 1024
MAX_HEADERS = 200

# How many requests may wait behind the running one, and their size in bytes.
MAX_WAITING_REQUESTS = 8
MAX_WAITING_BYTES = 256 * 1024

# A client that sends its whole body before it reads would see a connection reset in the
# place of an early response. Up to this many bytes are discarded for it.
MAX_DISCARDED_BYTES = 512 * 1024 * 1024

PROGRESS_BYTES = 16 * 1024
CHECKS_PER_TIMEOUT = 4

# How long a client may take to answer a TLS close_notify, in seconds.
TLS_CLOSE_TIMEOUT = 1.0

# Dead peers are detected after 60 s of silence and 4 probes in 60 s (tcp(7)).
_KEEP_ALIVE_OPTIONS = (
    (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
    (socket.IPPROTO_TCP, "TCP_KEEPIDLE", 60),
    (socket.IPPROTO_TCP, "TCP_KEEPINTVL", 15),
    (socket.IPPROTO_TCP, "TCP_KEEPCNT", 4),
)

_NO_ADDRESS = ("-", 0)

logger = logging.getLogger("lls_openai.connection")


class ClientConnection(asyncio.Protocol):
    """The protocol of one client, as uvicorn makes it for each connection.

    Args:
        config: uvicorn's configuration; its application is called for each request.
        server_state: uvicorn's; it holds the open connections and running tasks.
        app_state: what the application's lifespan has stored.
    """

    # In seconds; set once for the process.
    client_timeout = 60.0

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._app = config.loaded_app
        self._root_path = config.root_path
        self._server = server_state
        self._app_state = app_state
        self._loop = _loop or asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport
        self._address: dict[str, Any] = {}
        # Requests whose responses are not complete; only the first one is running.
        self._requests: deque[RequestCycle] = deque()
        # The request whose body is being received, and the waiting requests' size.
        self._receiving: RequestCycle | None = None
        self._waiting_bytes = 0
        # The headers being received, and the bytes since the last complete part.
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._unparsed_bytes = 0
        self._expects_continue = False
        self._is_replay = False
        self._error: RelayError | None = None
        # True once no further request will be read.
        self._is_last = False
        self._discarded_bytes = 0
        self._reading_paused = False
        self._writable: asyncio.Future[None] | None = None
        # The idle timer: bytes since the last progress, and its time.
        self._progress_time = self._loop.time()
        self._body_bytes = 0
        self._written_bytes = self._read_bytes = 0
        self._timer: asyncio.TimerHandle | None = None

    # Callbacks of the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the first request."""
        self._transport = cast("asyncio.Transport", transport)
        self._server.connections.add(self)  # type: ignore[arg-type]  # (not uvicorn's)
        _keep_alive(self._transport)
        self._address = {
            # A client that has already disconnected has no address any more.
            "server": transport.get_extra_info("sockname", _NO_ADDRESS)[:2],
            "client": transport.get_extra_info("peername", _NO_ADDRESS)[:2],
            "scheme": "https" if transport.get_extra_info("sslcontext") else "http",
        }
        self._check_progress()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (asyncio's)
        """Notify the requests that the client has disconnected."""
        self._server.connections.discard(self)
        if self._timer:
            self._timer.cancel()
        self.resume_writing()
        for request in self._requests:
            request.disconnect()
        self._requests.clear()

    def pause_writing(self) -> None:
        """Hold responses back until the client has read more."""
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        """Continue with the responses."""
        if self._writable and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    def data_received(self, data: bytes) -> None:
        """Parse the bytes, then start the next request."""
        if self._is_last:
            self._count_body(len(data))
            self._discard(len(data))
            return
        if self._requests and not self._requests[0].more_body:
            self._waiting_bytes += len(data)
        self._unparsed_bytes += len(data)
        self._parse(data)
        if self._unparsed_bytes > MAX_HEADER_BYTES:
            self._reject(_headers_too_large())
        elif self._waiting_bytes > MAX_WAITING_BYTES:
            self._stop_after_running_request()
        self._start_next()

    # Callbacks of the parser.

    def on_message_begin(self) -> None:
        """Begin with the headers of a request."""
        self._url, self._headers = b"", []
        self._expects_continue = False

    def on_url(self, url: bytes) -> None:
        """Add a part of the request target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header, or a trailer, which is ignored (RFC 9110, section 6.5.1).

        Raises:
            RelayError: there are too many.
        """
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self._expects_continue = True
        self._headers.append((name, value))
        if len(self._headers) > MAX_HEADERS:
            self._error = _headers_too_large()
            raise self._error

    def on_headers_complete(self) -> None:
        """Queue the request.

        Raises:
            OverflowError: too many requests are waiting.
        """
        self._note_progress()
        if self._is_replay:
            self._is_replay = False
            return
        if len(self._requests) > MAX_WAITING_REQUESTS:
            raise OverflowError
        scope = self._make_scope()
        keep_alive = scope["http_version"] != "1.0" and self._parser.should_keep_alive()
        self._receiving = RequestCycle(
            self, scope, keep_alive=keep_alive, expects_continue=self._expects_continue
        )
        self._requests.append(self._receiving)
        # The scope has the list now; trailers go to another one.
        self._headers = []

    def on_body(self, body: bytes) -> None:
        """Add a part of the body."""
        self._unparsed_bytes = 0
        self._count_body(len(body))
        request = self._receiving
        if request is None:
            return
        if request.is_complete:
            self._discard(len(body))
        elif request.add_body(body) and request is self._requests[0]:
            self._reading_paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        """End the body, unless a declined upgrade has made the parser stop early."""
        if self._receiving and not self._parser.should_upgrade():
            self._receiving.end_body()
            self._receiving = None
            self._note_progress()

    # The methods that a request's cycle calls.

    @property
    def default_headers(self) -> list[tuple[bytes, bytes]]:
        """Return the headers that uvicorn adds to each response."""
        return self._server.default_headers

    @property
    def is_writing_paused(self) -> bool:
        """Return whether the client has to read before more is written."""
        return self._writable is not None

    async def drain(self) -> None:
        """Wait until the client has read enough of the response."""
        while self._writable:
            await self._writable

    def write(self, data: bytes) -> None:
        """Send bytes of a response."""
        self._written_bytes += len(data)
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
        self._server.total_requests += 1
        self._note_progress()
        self._requests.popleft()
        if len(self._requests) <= 1:
            self._waiting_bytes = 0
        if request.keep_alive and not self._is_last:
            self.read_on()
            self._start_next()
        elif request.more_body or self._requests or self._is_last:
            self._linger()
        else:
            self._close()

    def shutdown(self) -> None:
        """Close after the running response, as uvicorn asks when the server stops."""
        if self._requests and self._requests[0].is_started:
            self._stop_after_running_request()
        else:
            self._close()

    # The connection's own steps.

    def _parse(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            self._decline_upgrade(data[offer.args[0] :])
        except httptools.HttpParserError:
            message = "Invalid HTTP request"
            self._reject(self._error or RelayError("invalid_http_request", message))

    def _decline_upgrade(self, rest: bytes) -> None:
        """Continue in HTTP/1.1 (RFC 9110, section 7.8).

        The parser has stopped behind the headers. A new one reads headers with the same
        framing, which are not a request, and continues with the body.
        """
        framing = (b"content-length", b"transfer-encoding")
        request = self._requests[-1]
        lines = [
            b"%b: %b\r\n" % pair
            for pair in request.scope["headers"]
            if pair[0] in framing
        ]
        self._parser = httptools.HttpRequestParser(self)
        self._receiving, self._is_replay = request, True
        self._parse(b"POST / HTTP/1.1\r\n%b\r\n%b" % (b"".join(lines), rest))

    def _make_scope(self) -> dict[str, Any]:
        url = httptools.parse_url(self._url)
        path = url.path.decode("ascii")
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": self._parser.get_http_version(),
            "method": self._parser.get_method().decode("ascii"),
            "root_path": self._root_path,
            "path": self._root_path + (unquote(path) if "%" in path else path),
            "raw_path": self._root_path.encode() + url.path,
            "query_string": url.query or b"",
            "headers": self._headers,
            "state": self._app_state.copy(),
            **self._address,
        }

    def _start_next(self) -> None:
        if self._requests and not self._requests[0].is_started:
            self._requests[0].is_started = True
            # An eager start saves a turn of the event loop.
            run = self._requests[0].run(self._app)
            task = asyncio.Task(run, loop=self._loop, eager_start=True)
            self._server.tasks.add(task)
            task.add_done_callback(self._server.tasks.discard)

    def _reject(self, error: RelayError) -> None:
        """Send an error, unless an earlier request is still to be answered."""
        if self._is_last or self._transport.is_closing():
            return
        if self._requests:
            running = self._requests[0]
            if running.has_begun_response or not running.more_body:
                self._stop_after_running_request()
                return
            # The running request is the invalid one: its body has no end.
            running.context.fail(error)
            running.disconnect()
        logger.warning("%s", error.message)
        self.write(_raw_response(error))
        self._linger()

    def _stop_after_running_request(self) -> None:
        """Read no further request, and close when the running one has ended."""
        self._is_last = True
        running = self._requests[0]
        running.keep_alive = False
        self._requests = deque([running])
        self.read_on()

    def _linger(self) -> None:
        """Close for writing, and discard what the client still sends.

        Closing a socket with unread bytes resets it, and the client may lose the
        response (RFC 9112, section 9.6).
        """
        self._is_last = True
        self._requests.clear()
        self.read_on()
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._close()

    def _close(self) -> None:
        """Close after what is buffered has been sent."""
        self._transport.close()
        self._loop.call_later(TLS_CLOSE_TIMEOUT, self._transport.abort)

    def _discard(self, size: int) -> None:
        self._discarded_bytes += size
        if self._discarded_bytes > MAX_DISCARDED_BYTES:
            self.abort()

    # The idle timer.

    def _note_progress(self) -> None:
        self._unparsed_bytes = self._body_bytes = 0
        self._progress_time = self._loop.time()

    def _count_body(self, size: int) -> None:
        self._body_bytes += size
        if self._body_bytes >= PROGRESS_BYTES:
            self._note_progress()

    def _check_progress(self) -> None:
        """Close the connection if the client has made no progress for too long."""
        read = self._written_bytes - self._transport.get_write_buffer_size()
        if self._application_acts() or read - self._read_bytes >= PROGRESS_BYTES:
            self._read_bytes = read
            self._progress_time = self._loop.time()
        left = self._progress_time + self.client_timeout - self._loop.time()
        if left <= 0:
            self.abort()
        else:
            pause = min(left, self.client_timeout / CHECKS_PER_TIMEOUT)
            self._timer = self._loop.call_later(pause, self._check_progress)

    def _application_acts(self) -> bool:
        """Return whether the connection is RUNNING."""
        if not self._requests or self._writable:
            return False
        return self._reading_paused or not self._requests[0].more_body


def _headers_too_large() -> RelayError:
    message = (
        f"Request headers exceed the limit of {MAX_HEADER_BYTES:,} bytes "
        f"or {MAX_HEADERS} headers"
    )
    return RelayError("request_too_large", message, status=431)


def _raw_response(error: RelayError) -> bytes:
    """Return the response to bytes that are not a request."""
    body = error.body()
    status = HTTPStatus(error.status)
    return (
        b"HTTP/1.1 %d %b\r\nconnection: close\r\ncontent-type: application/json\r\n"
        b"x-request-id: %b\r\ncontent-length: %d\r\n\r\n%b"
    ) % (status, status.phrase.encode(), new_request_id(), len(body), body)


def _keep_alive(transport: asyncio.Transport) -> None:
    """Switch TCP keep-alive on, so that a client that vanished is noticed."""
    sock = transport.get_extra_info("socket")
    for level, option, value in _KEEP_ALIVE_OPTIONS:
        if hasattr(socket, option):
            sock.setsockopt(level, getattr(socket, option), value)
