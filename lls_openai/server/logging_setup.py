"""Python's logging, Llama Stack's included, through the writer of the access log.

Llama Stack's handler draws with rich: 0.8 ms a line, and up to a second a traceback,
during which the event loop stands still.
"""

import logging
import os
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from typing import Any

from lls_openai.server.log_format import (
    FORMAT_VARIABLE,
    describe_exception,
    escape,
    is_json,
    json_line,
    time_of_day,
)
from lls_openai.server.log_writer import STANDARD_ERROR
from lls_openai.stack import NAME

# Start and stop messages of uvicorn and Llama Stack that add nothing to those of this
# project, or are not true: Llama Stack logs the end of one of its tasks as an error.
_DROPPED = re.compile(
    "Started server process|Waiting for application|Application startup complete"
    "|Application shutdown complete|Finished server process|Uvicorn running on"
    "|^Shutting down$"
    "|Waiting for background tasks|Model refresh task cancelled"
    # OGX warns that there are no server tokens, which are optional here.
    "|Authentication is not configured"
    # The configuration: a proxy's URL in it may contain a password.
    r"|Stack Configuration:|\\nproviders:\\n"
)

# What structlog and Llama Stack add to the fields of a message.
_INTERNAL = frozenset({"event", "level", "logger", "timestamp", "category", "exc_info"})
_INTERNAL |= {"positional_args", "stack_info", "stack"}


def choose_format() -> None:
    """Default to JSON when standard error is not a terminal."""
    if not sys.stderr.isatty():
        os.environ.setdefault(FORMAT_VARIABLE, "json")


def set_up_logging() -> None:
    """Replace the handlers of all loggers, whose levels stay as they are.

    Call it after each of Llama Stack's `setup_logging`, which installs its own.
    """
    # Otherwise a handler that fails prints a traceback to standard error.
    logging.raiseExceptions = False
    logging.captureWarnings(capture=True)
    handler = _handler()
    for logger in _all_loggers(logging.getLogger()):
        for old in logger.handlers[:]:
            if isinstance(old, logging.FileHandler):
                old.setFormatter(handler.formatter)
            elif old is not handler:
                logger.removeHandler(old)
                logger.addHandler(handler)
    logging.getLogger("lls_openai").setLevel(logging.INFO)
    for name in (f"{NAME}.core.stack", f"{NAME}.core.server.server", "uvicorn.error"):
        logging.getLogger(name).addFilter(is_wanted)


@cache
def _handler() -> "LineHandler":
    return LineHandler()


def _all_loggers(logger: logging.Logger) -> Iterator[logging.Logger]:
    yield logger
    for child in logger.getChildren():
        yield from _all_loggers(child)


def is_wanted(record: logging.LogRecord) -> bool:
    """Return whether a message is not one of the usual ones of a start or stop."""
    return not _DROPPED.search(record.getMessage())


class LineHandler(logging.Handler):
    """Hands each record to the writer as one line."""

    def __init__(self) -> None:
        super().__init__()
        self.formatter = LineFormatter()

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record's line, or count it as dropped."""
        try:
            STANDARD_ERROR.write(self.format(record).encode() + b"\n")
        except Exception:  # noqa: BLE001 (a message that cannot be formatted)
            STANDARD_ERROR.dropped_lines += 1


class LineFormatter(logging.Formatter):
    """Formats a record of Python's logging or of structlog, without a traceback."""

    def __init__(self) -> None:
        super().__init__()
        self._is_json = is_json()

    def format(self, record: logging.LogRecord) -> str:
        """Return one line of JSON, or of text whose further lines are indented."""
        extra = dict(record.msg) if isinstance(record.msg, dict) else {}
        message = _message(record, extra)
        error = _exception(record, extra.get("exc_info"))
        fields = {n: value for n, value in extra.items() if n not in _INTERNAL}
        if error:
            fields["exception"] = describe_exception(error)
        if self._is_json:
            return _json(record, message, fields)
        level = (
            "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        )
        more = "".join(f"  {n}={value}" for n, value in fields.items())
        text = f"{time_of_day(int(record.created))}  {level}{message}{more}"
        return "\n    ".join(map(escape, text.splitlines()))


def _message(record: logging.LogRecord, extra: dict[str, Any]) -> str:
    if not extra:
        return record.getMessage()
    message = str(extra.get("event", ""))
    arguments = extra.get("positional_args")
    return message % tuple(arguments) if arguments else message


def _exception(record: logging.LogRecord, given: object) -> BaseException | None:
    """Return the exception of a record, in any of the forms that loggers take."""
    if given is True:
        return sys.exc_info()[1]
    found = given or record.exc_info
    if isinstance(found, tuple):
        found = found[1]
    return found if isinstance(found, BaseException) else None


def _json(record: logging.LogRecord, message: str, fields: dict[str, Any]) -> str:
    line = {
        "event": message,
        "timestamp": datetime.fromtimestamp(record.created, UTC),
        "level": record.levelname.lower(),
        "logger": record.name,
    }
    return json_line(line | fields)
