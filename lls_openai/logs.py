"""Log lines: one a request, cheap, and without what must not be in them.

Llama Stack's own console handler (`llama_stack.log`) draws with rich, at 0.8 ms a line.
It can write JSON as well, which is what anything but a terminal gets here.
"""

import logging
import os
import sys
import time
from functools import lru_cache
from typing import Any

import msgspec
import structlog
from llama_stack.log import CATEGORIES, setup_logging

_FORMAT = "LLAMA_STACK_LOG_FORMAT"
_AUTHENTICATION = "llama_stack.core.server.auth"
_ACCESS = "uvicorn.access"


def set_up_logs() -> None:
    """Choose the form of the log, and make the line of each request a plain one.

    Call it after Llama Stack's `setup_logging`; its levels stay as they are.
    """
    if not sys.stderr.isatty() and _FORMAT not in os.environ:
        os.environ[_FORMAT] = "json"
        levels = {name: logging.getLogger(name).level for name in CATEGORIES}
        setup_logging(levels | {"root": logging.root.level})
    structlog.configure(wrapper_class=_FrugalLogger)
    # What no line here shows need not be found out for each (Python's logging HOWTO).
    logging.logThreads = logging.logProcesses = False
    logging.logMultiprocessing = False
    logging.logAsyncioTasks = False  # type: ignore[attr-defined]  # (new in 3.12)
    _plain_access_lines()
    logging.getLogger(_AUTHENTICATION).addFilter(_without_traceback)


class _FrugalLogger(structlog.stdlib.BoundLogger):
    """Spares a debug line that nobody reads its processing: 0.1 ms a request."""

    def debug(self, event: str | None = None, *args: Any, **kw: Any) -> Any:  # noqa: ANN401 (structlog's own signature)
        if self._logger.isEnabledFor(logging.DEBUG):
            return super().debug(event, *args, **kw)
        return None


def _plain_access_lines() -> None:
    access = logging.getLogger(_ACCESS)
    handler = logging.StreamHandler()
    handler.setFormatter(AccessFormatter(json_lines=os.environ.get(_FORMAT) == "json"))
    files = [each for each in access.handlers if isinstance(each, logging.FileHandler)]
    access.handlers = [handler, *files]
    access.addFilter(_without_query)


class AccessFormatter(logging.Formatter):
    """Writes uvicorn's record of a request as one line.

    Args:
        json_lines: whether to write JSON, or else text.
    """

    def __init__(self, *, json_lines: bool) -> None:
        super().__init__()
        self._json_lines = json_lines

    def format(self, record: logging.LogRecord) -> str:
        """Write the line.

        Args:
            record: with uvicorn's arguments: client, method, path, HTTP version, status
                (`uvicorn.protocols.http.httptools_impl`).
        """
        client, method, path, _, status = record.args  # type: ignore[misc]  # (as above)
        second = _second(int(record.created))
        if not self._json_lines:
            return f"{second[11:]}  {status}  {method:<6} {path}  {client}"
        line = {
            "timestamp": f"{second}.{int(record.msecs):03}Z",
            "level": "info",
            "logger": _ACCESS,
            "client": client,
            "method": method,
            "path": path,
            "status": status,
        }
        return msgspec.json.encode(line).decode()


@lru_cache(maxsize=1)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def _without_query(record: logging.LogRecord) -> bool:
    """Drop the query of a request's target: a key may stand in one."""
    if isinstance(record.args, tuple):
        record.args = tuple(
            arg.partition("?")[0] if isinstance(arg, str) else arg
            for arg in record.args
        )
    return True


def _without_traceback(record: logging.LogRecord) -> bool:
    """Leave one line of a refused token: with rich, a traceback takes seconds."""
    record.exc_info = None
    return True
