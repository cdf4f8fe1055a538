"""Server-sent events: where one ends and the next may begin.

The format is the WHATWG HTML standard's, section 9.2.6: an event ends with a blank
line, and a line with LF, CR LF or CR.
"""

# An incomplete event is held back up to this many bytes, then relayed in pieces.
HELD_BYTES = 64 * 1024

_BLANK_LINES = (b"\n\n", b"\n\r\n", b"\r\r")

# So much of a blank line may be there when a read ends inside it.
_CUT_OFF = max(map(len, _BLANK_LINES)) - 1


class EventSplitter:
    """Cuts a stream of bytes where events end, changing none of them.

    An event is passed on when it is whole, which is the first moment a caller could
    use it. So a stream that breaks off never leaves half an event with the caller, and
    an error event can follow.
    """

    __slots__ = ("_inside", "held")

    def __init__(self) -> None:
        self.held = b""
        self._inside = False

    @property
    def between_events(self) -> bool:
        """Whether what was passed on ends with a whole event."""
        return not self._inside

    def feed(self, chunk: bytes) -> bytes:
        """Take bytes as they arrived and give those that may be passed on.

        Args:
            chunk: the next bytes of the stream, cut anywhere.
        """
        if not self.held and chunk.endswith(_BLANK_LINES):
            self._inside = False
            return chunk
        data = self.held + chunk
        end = _end_of_events(data)
        if not end:
            return self._hold(data)
        self._inside = False
        self.held = data[end:]
        return data[:end]

    def _hold(self, data: bytes) -> bytes:
        if len(data) <= HELD_BYTES:
            self.held = data
            return b""
        self._inside = True
        self.held = data[-_CUT_OFF:]
        return data[:-_CUT_OFF]


def _end_of_events(data: bytes) -> int:
    """Say where the last whole event ends: 0 when none does."""
    found = [(data.rfind(line), len(line)) for line in _BLANK_LINES]
    return max(at + length if at >= 0 else 0 for at, length in found)


def error_event(body: bytes) -> bytes:
    """Write an error as an event, the way OpenAI puts one into a stream.

    Args:
        body: the error's JSON, in one line.
    """
    return b"data: " + body + b"\n\n"
