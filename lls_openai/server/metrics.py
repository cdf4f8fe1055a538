"""Llama Stack's inference metrics for the calls that its router does not see.

The instruments and what is recorded when are the router's
(`llama_stack.core.routers.inference`).
"""

import time

from lls_openai.context import RequestContext
from lls_openai.stack import inference_metrics as stock


def measure(record: RequestContext) -> None:
    """RequestContext a request that has ended, if it was a call to an upstream."""
    if record.model is None:
        return
    duration = time.perf_counter() - record.started
    status = "success" if record.success else "error"
    attributes = stock.create_inference_metric_attributes(
        record.model, record.provider, record.stream, status
    )
    stock.inference_duration.record(duration, attributes=attributes)
    if record.stream and record.first is not None:
        first = record.first - record.started
        stock.inference_time_to_first_token.record(first, attributes=attributes)
    if record.tokens:
        rate = record.tokens / duration
        stock.inference_tokens_per_second.record(rate, attributes=attributes)
