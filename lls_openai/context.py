"""One request, from the moment the connection knows it to its access log line."""

import re
import time
import uuid
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from lls_openai.errors import RelayError

# Inside a JSON string the quotes would be escaped, so only a field matches.
_OUTPUT_TOKENS = re.compile(rb'"(?:completion|output)_tokens"\s*:\s*(\d{1,12})')
_INPUT_TOKENS = re.compile(rb'"(?:prompt|input)_tokens"\s*:\s*(\d{1,12})')
# Comments of an event stream, and white space.
_KEEP_ALIVE = re.compile(rb"(?::[^\r\n]*+|\s)*+")

# A field begins up to this many bytes before `_tokens`.
_LONGEST_NAME = len('"completion')

SCOPE_KEY = "lls_openai"


@dataclass(slots=True)
class RequestContext:
    """Everything that is known about one request; no key, prompt or response.

    Times are those of `time.perf_counter`, in seconds.
    """

    started: float = field(default_factory=time.perf_counter)
    # When the first event of a stream, or the body of a response, was complete.
    first: float | None = None
    # The listed name of the model, or "other"; set when an upstream is called.
    model: str | None = None
    provider: str | None = None
    # The code of the server's own error, and its cause for the operator.
    code: str | None = None
    reason: str | None = None
    # The operation's name in OpenTelemetry's conventions.
    operation: str | None = None
    stream: bool = False
    success: bool = False
    # The response's usage, as the upstream reported it last.
    tokens: int = 0
    input_tokens: int = 0
    # The response's status; nginx's 499 is a client that disconnected before it.
    status: int = 499
    # The value that the client received as `x-request-id`.
    request_id: str = ""
    # Bytes of the request body that count against `max_bytes_in_flight`.
    held: int = 0
    is_disconnected: bool = False
    _on_disconnect: Callable[[], object] | None = None

    def fail(self, error: RelayError) -> None:
        """Note the server's own error."""
        self.status, self.code, self.reason = error.status, error.code, error.reason

    def on_disconnect(self, callback: Callable[[], object]) -> None:
        """Call `callback` when the client disconnects, or now if it already has."""
        self._on_disconnect = callback
        if self.is_disconnected:
            callback()

    def disconnect(self) -> None:
        """Note that the client has disconnected."""
        self.is_disconnected = True
        if self._on_disconnect:
            self._on_disconnect()

    def observe(self, data: bytes) -> None:
        """Record the time of the first complete event or body, and the token usage."""
        if self.first is None and not _KEEP_ALIVE.fullmatch(data):
            self.first = time.perf_counter()
        # `find` because CPython's `in` raises and drops an exception first.
        at = data.find(b"_tokens")
        if at >= 0:
            usage = data[max(0, at - _LONGEST_NAME) :]
            self.tokens = _last_count(_OUTPUT_TOKENS, usage) or self.tokens
            self.input_tokens = _last_count(_INPUT_TOKENS, usage) or self.input_tokens


def _last_count(pattern: re.Pattern[bytes], data: bytes) -> int:
    """Return the last count in `data`, because Gemini repeats it; 0 without one."""
    counts = pattern.findall(data)
    return int(counts[-1]) if counts else 0


def context_of(scope: MutableMapping[str, Any]) -> RequestContext:
    """Return the context of the request with this scope."""
    context: RequestContext = scope.get(SCOPE_KEY) or scope.setdefault(
        SCOPE_KEY, RequestContext()
    )
    return context


def new_request_id() -> bytes:
    """Return an id for a response that has none of the vendor's."""
    return b"req_%b" % uuid.uuid4().hex.encode()
