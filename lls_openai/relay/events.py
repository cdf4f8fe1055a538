"""Splits a stream where its events end, and ends a stream that broke off.

The WHATWG HTML standard, section 9.2.6: an event ends with a blank line, and a line
with LF, CR LF or CR. A line that begins with a colon is a comment.
"""

import re

from lls_openai.errors import Format, RelayError, ResponseTruncated

# A longer event is relayed in parts.
MAX_EVENT_BYTES = 64 * 1024

_BLANK_LINES = (b"\n\n", b"\n\r\n", b"\r\r")
# The longest part of a blank line that may come at the end of a read.
_PARTIAL_BLANK_LINE = max(map(len, _BLANK_LINES)) - 1

# Comments and blank lines between two events, which keep a connection alive.
_KEEP_ALIVE = re.compile(rb"(?::[^\r\n]*+(?:\r\n|\r|\n)|[\r\n])+")

_FIELDS = (b":", b"data:", b"event:", b"id:", b"retry:")

# In the last event of a stream. Inside a JSON string, quotes and line ends are escaped.
_LAST = {
    "openai": re.compile(rb"\[DONE\][\r\n]"),
    "responses": re.compile(rb'"type": ?"response\.(?:completed|incomplete|failed)"'),
    "anthropic": re.compile(rb'"type": ?"message_stop"'),
}


def begins_like_events(data: bytes) -> bool:
    """Return whether a response begins with a field of an event, or a part of one.

    Line ends before it keep a connection alive.
    """
    start = data.lstrip(b"\r\n")
    return bool(data) and any(
        start.startswith(field) or field.startswith(start) for field in _FIELDS
    )


class Passthrough:
    """Passes the chunks of a response as they arrive."""

    # The part that has been held back.
    tail = b""

    def feed(self, chunk: bytes) -> bytes:
        """Return the bytes that can be sent now."""
        return chunk

    def ends_stream(self, sent: bytes) -> bool:  # noqa: ARG002 (see EventSplitter)
        """Return whether the bytes that were sent last contain the last event."""
        return False

    def finish(self, error: RelayError) -> bytes:  # noqa: ARG002 (EventSplitter sends it)
        """Return the bytes that report an error, or raise ResponseTruncated."""
        raise ResponseTruncated


class EventSplitter(Passthrough):
    """Passes complete events, so that an error event can follow each of them."""

    def __init__(self, error_format: Format) -> None:
        self._format = error_format
        self._last = _LAST[error_format]
        # Whether a part of a long event has been passed.
        self._is_inside_event = False

    def feed(self, chunk: bytes) -> bytes:
        """Return the events that are complete; their bytes are unchanged."""
        if not self.tail and chunk.endswith(_BLANK_LINES):
            self._is_inside_event = False
            return chunk
        data = self.tail + chunk
        end = self._find_end(data)
        self.tail = data[end:]
        return data[:end]

    def ends_stream(self, sent: bytes) -> bool:
        """Return whether the bytes that were sent last contain the last event."""
        return bool(self._last.search(sent))

    def finish(self, error: RelayError) -> bytes:
        """Return the error as an event, in the place of an incomplete one.

        Raises ResponseTruncated if a part of that event has been passed.
        """
        if self._is_inside_event:
            raise ResponseTruncated
        return error.event(self._format)

    def _find_end(self, data: bytes) -> int:
        """Return where the last complete event, or keep-alive behind it, ends."""
        found = ((data.rfind(line), len(line)) for line in _BLANK_LINES)
        end = max(at + length if at >= 0 else 0 for at, length in found)
        if end:
            self._is_inside_event = False
        if not self._is_inside_event and (match := _KEEP_ALIVE.match(data, end)):
            return match.end()
        if not end and len(data) > MAX_EVENT_BYTES:
            self._is_inside_event = True
            return len(data) - _PARTIAL_BLANK_LINE
        return end
