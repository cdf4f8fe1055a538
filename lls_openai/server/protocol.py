"""One connection of a caller: uvicorn's, with bounds that it has none of.

uvicorn bounds neither heads nor waiting, stops listening for a disconnect behind a
large body, and takes what follows an offer to upgrade for a new request.
"""

import asyncio

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from lls_openai.errors import RelayError
from lls_openai.server.caller import Caller
from lls_openai.server.middleware import LINGER_BYTES, new_request_id

# The largest head, in bytes: what uvicorn allows with h11, its other parser. It is
# looked at after each read, so that a head may be larger by one read (256 KiB).
# httptools joins a long header in time that grows with its square: 200 MB of one
# header would hold every other caller for two minutes.
HEAD_BYTES = 64 * 1024

# How many requests may be sent ahead of their answers on one connection.
PIPELINED = 32

# How long an idle caller has to end its side of a TLS connection at a stop, in seconds.
GOODBYE_SECONDS = 1.0

# How often a connection is looked at while it may wait.
LOOKS = 4

HEAD_TOO_LARGE = b"431 Request Header Fields Too Large"


class Connection(HttpToolsProtocol):
    """Ends when its caller keeps it waiting, and reads nothing that is no request.

    One timer looks at it from time to time. Whenever the caller is the one to act (to
    send a head, a body or a next request, or to read an answer) and there has been no
    progress for `caller_timeout` seconds, the connection ends.
    """

    caller_timeout: float

    # Bytes received since the last complete head or part of a body.
    _pending = 0
    # Bytes discarded since the connection was refused, if it was.
    _discarded: int | None = None
    # Whether the head of a declined upgrade is being read again.
    _again = False
    _unsent = 0
    _since = 0.0
    _timer: asyncio.TimerHandle | None = None
    # The requests that are not answered yet, in order; the first is being answered.
    _open: tuple[Caller, ...] = ()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # (uvicorn's own signature)
        """Expect a first head."""
        super().connection_made(transport)
        # `Front` writes a better line at the end of a request.
        self.access_log = False
        self._since = self.loop.time()
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the request that is being answered, even with others behind it."""
        if self._timer:
            self._timer.cancel()
        super().connection_lost(exc)
        for caller in self._open:
            caller.disconnect()

    def data_received(self, data: bytes) -> None:
        """Take what was read, and no more when it is too much."""
        if self._discarded is not None:
            self._discarded += len(data)
            if self._discarded > LINGER_BYTES:
                self.transport.abort()
            return
        self._unset_keepalive_if_required()
        self._pending += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            self._decline_upgrade(data[offer.args[0] :])
        except httptools.HttpParserError:
            self._refuse(
                RelayError("invalid_http_request", "That is no HTTP/1.1 request")
            )
        if self._pending > HEAD_BYTES:
            message = f"The request's head is over the limit of {HEAD_BYTES:,} bytes"
            self._refuse(RelayError("request_too_large", message), HEAD_TOO_LARGE)

    def _decline_upgrade(self, rest: bytes) -> None:
        """Read on in HTTP/1.1, as RFC 9110, section 7.8, allows.

        The parser has stopped behind the head. A new one is given a head with the same
        framing, of which nobody is told, and then what follows.
        """
        framing = (b"content-length", b"transfer-encoding")
        lines = (b"%b: %b\r\n" % pair for pair in self.headers if pair[0] in framing)
        self.parser = httptools.HttpRequestParser(self)
        self._again = True
        self.parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n" % b"".join(lines))
        self._again = False
        if rest:
            self.data_received(rest)

    def _refuse(self, error: RelayError, line: bytes = b"400 Bad Request") -> None:
        """Answer what is no request, and discard whatever else comes.

        In the middle of an answer nothing is written: it ends, then the connection.
        A request whose body breaks off has none yet, and will never be whole.
        """
        if self._discarded is not None or self.transport.is_closing():
            return
        self._discarded = 0
        if self._open:
            cycle = self._open[0].cycle
            cycle.keep_alive = False
            if cycle.response_started or not cycle.more_body:
                return
        self.logger.warning(error.message)
        body = error.body()
        head = (
            b"HTTP/1.1 %b\r\nconnection: close\r\ncontent-type: application/json\r\n"
            b"x-request-id: %b\r\ncontent-length: %d\r\n\r\n"
        )
        self.transport.write(head % (line, new_request_id(), len(body)) + body)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    def resume_writing(self) -> None:
        """Take it for progress: what is written next would hide it from `_look`."""
        super().resume_writing()
        self._since = self.loop.time()

    def on_headers_complete(self) -> None:
        """Hand the head on; a trailer is added to a copy (RFC 9110, section 6.5.1).

        Raises:
            OverflowError: too many requests wait; the parser then gives up.
        """
        self._pending = 0
        self._since = self.loop.time()
        if self._again:
            return
        if len(self._open) > PIPELINED:
            raise OverflowError
        super().on_headers_complete()
        self.headers = self.headers.copy()
        caller = self.scope["lls_openai.caller"] = Caller(self.cycle)  # type: ignore[typeddict-unknown-key]  # (an extension)
        self._open = (*self._open, caller)
        # uvicorn reads no more behind a pipelined one, and would not see a disconnect.
        self.flow.resume_reading()

    def on_body(self, body: bytes) -> None:
        """Take a part of a body."""
        self._pending = 0
        self._since = self.loop.time()
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Take the end of a request, unless its body follows a declined upgrade."""
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """Go on with the next request."""
        self._open = self._open[1:]
        self._since = self.loop.time()
        super().on_response_complete()

    def shutdown(self) -> None:
        """End with the running answer, or soon: TLS waits for the caller's goodbye."""
        super().shutdown()
        if self.transport.is_closing():
            self.loop.call_later(GOODBYE_SECONDS, self.transport.abort)

    def _look(self) -> None:
        """End the connection if its caller has kept it waiting for too long."""
        now = self.loop.time()
        unsent = self.transport.get_write_buffer_size()
        if unsent < self._unsent or self._is_ours_to_act():
            self._since = now
        self._unsent = unsent
        if now - self._since > self.caller_timeout:
            self.transport.abort()
        else:
            pause = self.caller_timeout / LOOKS
            self._timer = self.loop.call_later(pause, self._look)

    def _is_ours_to_act(self) -> bool:
        """Whether a request is whole, and its caller reads the answer as it comes."""
        if not self._open or self.flow.write_paused:
            return False
        return self.flow.read_paused or not self._open[0].is_sending
