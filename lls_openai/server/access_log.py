"""Log lines: one a request, cheap, and without what must not be in them.

Llama Stack's own console handler (`llama_stack.log`) draws with rich, at 0.8 ms a line.
It can write JSON as well, which `make server` has it do where there is no terminal.
"""

import logging
import os
import re
import sys
import time
from datetime import UTC, datetime
from typing import Any

import msgspec
from starlette.types import Scope

from lls_openai.context import RequestContext
from lls_openai.stack import NAME, VARIABLE

_FORMAT = f"{VARIABLE}_LOG_FORMAT"

_STANDARD_ERROR = 2

# A line's fields, in their order.
type Line = dict[str, Any]

# What is no news to a person, or not true: `Model refresh task cancelled` is an error
# as which Llama Stack logs the end of its own task at every stop.
_NO_NEWS = re.compile(
    "Started server process|Waiting for application startup"
    "|Application startup complete|Model refresh task cancelled"
)


def choose_format() -> None:
    """Have what is no terminal get JSON, unless the environment says otherwise."""
    if not sys.stderr.isatty():
        os.environ.setdefault(_FORMAT, "json")


def set_up_logs() -> None:
    """Call it after Llama Stack's `setup_logging`; its levels stay as they are."""
    logging.getLogger("lls_openai").setLevel(logging.INFO)
    for name in (f"{NAME}.core.stack", "uvicorn.error"):
        logging.getLogger(name).addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    """Drop what is none, and uvicorn's own copy of a message with terminal colours."""
    record.__dict__.pop("color_message", None)
    return not _NO_NEWS.search(record.getMessage())


class AccessLog:
    """Writes the line of a request to standard error.

    Python's logger takes its caller, thread and process down for each line, and Llama
    Stack's formatter takes a fifth of the time that relaying takes.
    """

    def __init__(self) -> None:
        self._write = _json if os.environ.get(_FORMAT) == "json" else _text

    def __call__(self, scope: Scope, record: RequestContext) -> None:
        """Write the line, without the query, in which a key may stand."""
        host, port = scope["client"] or ("-", 0)
        line = {
            "event": "request",
            "timestamp": datetime.now(UTC),
            "level": "info",
            "logger": "lls_openai.access",
            "client": f"{host}:{port}",
            "method": scope["method"],
            "path": scope["path"],
            "status": record.status,
            "ms": _since(record.started, time.perf_counter()),
            "model": record.model,
            "provider": record.provider,
            "first_byte_ms": record.first and _since(record.started, record.first),
            "code": record.code,
            "request_id": record.request_id,
        }
        os.write(_STANDARD_ERROR, self._write(line))


def _since(start: float, end: float) -> float:
    # A tenth of the time of `round`.
    return int((end - start) * 10_000) / 10


def _json(line: Line) -> bytes:
    return msgspec.json.encode(line) + b"\n"


def _text(line: Line) -> bytes:
    facts = (line["model"], line["code"], line["client"], line["request_id"])
    more = "  ".join(filter(None, facts))
    # A path is written as JSON would be: no line feed or escape gets into a terminal.
    path = msgspec.json.encode(line["path"]).decode()[1:-1]
    return (
        f"{line['timestamp']:%H:%M:%S}  {line['status']}  {line['ms']:>9} ms  "
        f"{line['method']:<6} {path:<26}  {more}\n"
    ).encode()
