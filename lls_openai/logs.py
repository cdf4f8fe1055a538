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
    """Choose the form of the log.

    Call it after Llama Stack's `setup_logging`; its levels stay as they are.
    """
    if not sys.stderr.isatty() and _FORMAT not in os.environ:
        os.environ[_FORMAT] = "json"
        levels = {name: logging.getLogger(name).level for name in CATEGORIES}
        setup_logging(levels | {"root": logging.root.level})
    structlog.configure(wrapper_class=_FrugalLogger)
    logging.getLogger(_AUTHENTICATION).addFilter(_without_traceback)


class _FrugalLogger(structlog.stdlib.BoundLogger):
    """Spares a debug line that nobody reads its processing: 0.1 ms a request."""

    def debug(self, event: str | None = None, *args: Any, **kw: Any) -> Any:  # noqa: ANN401 (structlog's own signature)
        if self._logger.isEnabledFor(logging.DEBUG):
            return super().debug(event, *args, **kw)
        return None


class AccessLog:
    """Writes the line of a request in the place of the logger that uvicorn calls.

    The logger takes its caller, thread and process down for each line, which costs as
    much as a fifth of the relaying itself.

    It writes to standard error, and to the files that the logger writes to.
    """

    def __init__(self) -> None:
        handlers = logging.getLogger(_ACCESS).handlers
        files = (each for each in handlers if isinstance(each, logging.FileHandler))
        self._files = [file.stream for file in files if file.stream]
        self._line = _json_line if os.environ.get(_FORMAT) == "json" else _text_line

    def info(
        self, _: str, client: str, method: str, target: str, _version: str, status: int
    ) -> None:
        """Write the line, less the query of the target, in which a key may stand.

        Args:
            _: uvicorn's own form of a line.
            client: the caller's address and port.
            method: the request's method.
            target: its path and query.
            _version: the version of HTTP.
            status: the answer's status.
        """
        line = self._line(client, method, target.partition("?")[0], status)
        # It is buffered by lines, whatever it leads to.
        sys.stderr.write(line)
        for file in self._files:
            file.write(line)
            file.flush()


def _text_line(client: str, method: str, path: str, status: int) -> str:
    clock = _second(int(time.time()))[11:]
    return f"{clock}  {status}  {method:<6} {path}  {client}\n"


def _json_line(client: str, method: str, path: str, status: int) -> str:
    now = time.time()
    line = {
        "timestamp": f"{_second(int(now))}.{int(now * 1000) % 1000:03}Z",
        "level": "info",
        "logger": _ACCESS,
        "client": client,
        "method": method,
        "path": path,
        "status": status,
    }
    return msgspec.json.encode(line).decode() + "\n"


@lru_cache(maxsize=1)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def _without_traceback(record: logging.LogRecord) -> bool:
    """Leave one line of a refused token: with rich, a traceback takes seconds."""
    record.exc_info = None
    return True
