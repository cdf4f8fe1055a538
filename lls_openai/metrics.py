"""Llama Stack's inference metrics for the calls that its router does not see.

The instruments and what is recorded when are the router's
(`llama_stack.core.routers.inference`); only chat completions are measured there.
"""

import re
import time

from llama_stack.telemetry.inference_metrics import (
    create_inference_metric_attributes,
    inference_duration,
    inference_time_to_first_token,
    inference_tokens_per_second,
)

# Inside a JSON string the quotes would be escaped: this matches the field only.
_COMPLETION_TOKENS = re.compile(rb'"completion_tokens"\s*:\s*(\d{1,12})')


class CallMetrics:
    """Measures one call, from its request to the end of its answer.

    Args:
        model: the model as the caller names it.
        provider: the provider's id.
    """

    __slots__ = ("_first", "_model", "_provider", "_started", "_tokens", "stream")

    def __init__(self, model: str, provider: str) -> None:
        self._model = model
        self._provider = provider
        self._started = time.perf_counter()
        self._first: float | None = None
        self._tokens = 0
        self.stream = False

    def observe(self, data: bytes) -> None:
        """See a part of the answer: when the first came, and the usage if it is there.

        Args:
            data: whole events of a stream, or a whole body.
        """
        if self._first is None:
            self._first = time.perf_counter()
        # The last of them counts. It is looked for from the end: Gemini sends many.
        at = data.rfind(b'"completion_tokens"')
        if at >= 0 and (count := _COMPLETION_TOKENS.match(data, at)):
            self._tokens = int(count[1])

    def record(self, *, success: bool) -> None:
        """Record the call, which has ended.

        Args:
            success: whether the caller got a whole answer that is no error.
        """
        duration = time.perf_counter() - self._started
        attributes = create_inference_metric_attributes(
            model=self._model,
            provider=self._provider,
            stream=self.stream,
            status="success" if success else "error",
        )
        inference_duration.record(duration, attributes=attributes)
        if self.stream and self._first is not None:
            first = self._first - self._started
            inference_time_to_first_token.record(first, attributes=attributes)
        if self._tokens:
            rate = self._tokens / duration
            inference_tokens_per_second.record(rate, attributes=attributes)
