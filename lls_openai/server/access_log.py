"""The access log: one line per request, without keys, prompts and responses."""

import time
from datetime import UTC, datetime
from typing import Any

from starlette.types import Scope

from lls_openai.context import RequestContext
from lls_openai.server.log_format import cut, escape, is_json, json_line, time_of_day
from lls_openai.server.log_writer import STANDARD_ERROR

# The fields of a line, in their order.
type Fields = dict[str, Any]


class AccessLog:
    """Writes the line of a request to standard error.

    Python's logger collects function, thread and process for each line.
    """

    def __init__(self) -> None:
        self._format = json_line if is_json() else _text

    def __call__(self, scope: Scope, context: RequestContext) -> None:
        """Write the line, without the query, which may hold a key."""
        host, port = scope["client"] or ("-", 0)
        fields = {
            "event": "request",
            "timestamp": datetime.now(UTC),
            "level": "info",
            "logger": "lls_openai.access",
            "client": f"{host}:{port}",
            "method": scope["method"],
            "path": cut(scope["path"]),
            "status": context.status,
            "ms": _elapsed_ms(context.started, time.perf_counter()),
            "model": context.model,
            "provider": context.provider,
            "first_byte_ms": context.first
            and _elapsed_ms(context.started, context.first),
            "code": context.code,
            "reason": cut(context.reason),
            "request_id": cut(context.request_id),
        }
        STANDARD_ERROR.write(self._format(fields).encode() + b"\n")


def _text(fields: Fields) -> str:
    more = [fields["model"], fields["code"], fields["client"], fields["request_id"]]
    if fields["reason"]:
        more.insert(2, f"({fields['reason']})")
    return escape(
        f"{time_of_day(int(time.time()))}  {fields['status']}  {fields['ms']:>9} ms  "
        f"{fields['method']:<6} {fields['path']:<26}  " + "  ".join(filter(None, more))
    )


def _elapsed_ms(start: float, end: float) -> float:
    # `round` would take ten times as long.
    return int((end - start) * 10_000) / 10
