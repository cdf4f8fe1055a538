"""Runs first in a process of a test: notes what is opened, answers what is asked.

The standard library is all there is at this point.
"""

import gc
import json
import os
import socket
import sys
import threading
from collections.abc import Iterator
from types import ModuleType
from typing import Any

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC
# Audit events of what changes a file system otherwise.
_CHANGING = {
    f"os.{name}"
    for name in ("chmod", "link", "mkdir", "rename", "symlink", "truncate", "utime")
} | {"tempfile.mkstemp", "tempfile.mkdtemp", "sqlite3.connect"}
_files: list[str] = []


def _audit(event: str, args: tuple[Any, ...]) -> None:
    """Note what is opened to be written (https://docs.python.org/3/library/sys.html)."""
    if event == "open":
        path, _mode, flags = args
        if isinstance(flags, int) and flags & _WRITING and not isinstance(path, int):
            _note(event, path)
    elif event in _CHANGING:
        _note(event, args[0])


def _note(event: str, path: object) -> None:
    name = os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else ""
    if "__pycache__" not in name and name not in {os.devnull, ":memory:"}:
        _files.append(f"{event} {name}")


def _serve(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        while True:
            asked, _ = listening.accept()
            with asked, asked.makefile("rwb") as stream:
                question = json.load(stream)
                found = _files if "files" in question else _holders(question["hex"])
                stream.write(json.dumps(found).encode())


def _holders(texts_in_hex: list[str]) -> list[str]:
    texts = [bytes.fromhex(text).decode() for text in texts_in_hex]
    gc.collect()
    found = (value for value in _values() if any(_holds(value, text) for text in texts))
    return [f"{type(value).__name__} of {len(value)}" for value in found]


def _values() -> Iterator[Any]:
    """Everything that can be reached: also what the collector does not track.

    What has been frozen (`gc.freeze`) is reached from the modules.
    """
    seen: set[int] = set()
    frames = sys._current_frames().values()  # noqa: SLF001 - no other way to the frames of other threads
    waiting = [sys.modules, *frames, *gc.get_objects()]
    # Neither this search nor what it holds is searched.
    own = sys._getframe(), sys._getframe(1)  # noqa: SLF001 - likewise
    seen |= {id(seen), id(waiting), id(own), *map(id, own)}
    while waiting:
        value = waiting.pop()
        if id(value) not in seen:
            seen.add(id(value))
            yield value
            waiting += _referents(value)


def _referents(value: object) -> list[Any]:
    """What an object refers to; of a module, what stands in it.

    Asked for all that `_asyncio` refers to, CPython 3.12 frees what it keeps to be used
    again, once more.
    """
    if isinstance(value, ModuleType):
        return [vars(value)]
    return gc.get_referents(value)


def _holds(value: Any, text: str) -> bool:  # noqa: ANN401 - anything at all
    if isinstance(value, str):
        return text in value and value is not text
    if isinstance(value, bytes | bytearray):
        return text.encode() in value
    return isinstance(value, memoryview) and text.encode() in bytes(value)


# Workers and helpers of the process get the same variables; the first one answers.
if (path := os.environ.get("INSIDE")) and not os.path.exists(path):  # noqa: PTH110 - pathlib would be imported before the server
    sys.addaudithook(_audit)
    threading.Thread(target=_serve, args=(path,), name="inside", daemon=True).start()
