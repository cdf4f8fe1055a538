"""What is noted of one call, for the log and the metrics: no key, prompt or answer."""

import re
import time
from collections.abc import MutableMapping
from dataclasses import dataclass, field
from typing import Any

# Inside a JSON string the quotes would be escaped: this matches the field only.
_TOKENS = re.compile(rb'"(?:completion|output)_tokens"\s*:\s*(\d{1,12})')

_NAME = "lls_openai.record"


@dataclass(slots=True)
class Record:
    """One request: the door makes it, the relay fills it, log and metrics read it.

    A model is set when the call is for an upstream: its listed name, or the one name
    for all others. Times are those of `time.perf_counter`.
    """

    started: float = field(default_factory=time.perf_counter)
    first: float | None = None
    model: str | None = None
    provider: str | None = None
    code: str | None = None
    stream: bool = False
    success: bool = False
    tokens: int = 0
    # The answer's; nginx's 499 is a caller that disconnected before there was one.
    status: int = 499
    # What the caller has got as `x-request-id`.
    request_id: str = ""
    # Bytes of the body that count as in flight (`request.InFlight`).
    held: int = 0

    def observe(self, data: bytes) -> None:
        """See whole events or a body: when the first came, and the usage in them."""
        if self.first is None:
            self.first = time.perf_counter()
        # Use the last count; Gemini repeats it. With `in`, CPython raises and drops an
        # exception before it looks, which costs more than the look.
        if data.find(b"_tokens") >= 0 and (counts := _TOKENS.findall(data)):
            self.tokens = int(counts[-1])


def record_of(scope: MutableMapping[str, Any]) -> Record:
    """Give a request's record, making one where there is none yet."""
    record: Record = scope.get(_NAME) or scope.setdefault(_NAME, Record())
    return record
