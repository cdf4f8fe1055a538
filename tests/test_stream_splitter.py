"""Where events end is found wherever the reads are cut."""

import pytest

from lls_openai.sse import HELD_BYTES, EventSplitter

# The events of each stream; what stands last in one is not ended.
STREAMS = {
    "LF": [b"data: 1\n\n", b": a\n\n", b"data: [DONE]\n\n", b""],
    "CR LF": [b"data: 1\r\n\r\n", b"event: a\r\ndata: 2\r\n\r\n", b""],
    "CR": [b"data: 1\r\r", b"event: a\rdata: 2\r\r", b""],
    "mixed": [b"data: 1\n\r\n", b"data: 2\r\n\n", b"data: 3\n\n", b""],
    "not ended": [b"data: 1\n\n", b"data: 2\n"],
}
EACH_STREAM = pytest.mark.parametrize("events", STREAMS.values(), ids=STREAMS)


@EACH_STREAM
def test_only_whole_events_pass_wherever_a_read_ends(events: list[bytes]) -> None:
    """Cut in two at each byte, the first part gives the events that it holds whole."""
    body = b"".join(events)
    ends = [len(b"".join(events[:count])) for count in range(len(events))]

    for cut in range(1, len(body)):
        splitter = EventSplitter()
        passed = splitter.feed(body[:cut])

        assert len(passed) == max(end for end in ends if end <= cut)
        assert body == passed + splitter.feed(body[cut:]) + splitter.held


@EACH_STREAM
def test_single_bytes_give_single_events(events: list[bytes]) -> None:
    """Each event passes when its last byte is there, not before and not after."""
    splitter = EventSplitter()

    fed = [splitter.feed(bytes([byte])) for byte in b"".join(events)]

    passed = [piece for piece in fed if piece]
    assert (events, True) == ([*passed, splitter.held], splitter.between_events)


def test_no_more_than_the_limit_is_held() -> None:
    """A line without an end passes in pieces, and is known to be unfinished."""
    splitter = EventSplitter()
    passed = b""

    for _ in range(20):
        passed += splitter.feed(b"x" * 10_000)
        assert len(splitter.held) <= HELD_BYTES

    assert passed + splitter.held == b"x" * 200_000
    assert not splitter.between_events


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
def test_the_end_of_a_large_event_is_found_wherever_it_is_cut(line_end: bytes) -> None:
    """After it, what was passed on ends with a whole event again."""
    event = b"x" * (HELD_BYTES + 1) + line_end * 2

    for cut in range(1, len(line_end * 2) + 1):
        splitter = EventSplitter()
        passed = splitter.feed(event[:-cut]) + splitter.feed(event[-cut:])

        assert (event, b"", True) == (passed, splitter.held, splitter.between_events)
