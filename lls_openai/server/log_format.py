"""Log lines as text or JSON, without a character that acts on a terminal."""

import json
import os
import time
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import PurePath

import msgspec

from lls_openai.stack import VARIABLE

FORMAT_VARIABLE = f"{VARIABLE}_LOG_FORMAT"

# The limit of a text that a client or an upstream has sent, in characters.
MAX_TEXT = 256

# An exception with more causes than this is described without the others.
_MAX_CAUSES = 3

_ENCODER = msgspec.json.Encoder(enc_hook=str)


def is_json() -> bool:
    """Whether the environment asks for JSON lines, by Llama Stack's own variable."""
    return os.environ.get(FORMAT_VARIABLE, "").lower() == "json"


def cut(text: str | None) -> str | None:
    """Return at most 256 characters of a text."""
    if text is None or len(text) <= MAX_TEXT:
        return text
    return text[: MAX_TEXT - 3] + "..."


def escape(text: str) -> str:
    """Escape control, format and other characters that `str.isprintable` excludes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escape(c) for c in text)


def _escape(character: str) -> str:
    """Return JSON's escape: one or two UTF-16 units; a lone surrogate is one, too."""
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))


def json_line(fields: Mapping[str, object]) -> str:
    """Encode a line, in which escaped characters read as what they were."""
    try:
        return escape(_ENCODER.encode(fields).decode())
    except UnicodeEncodeError:
        # A lone surrogate, of which msgspec makes no UTF-8.
        return escape(json.dumps(fields, default=str))


@lru_cache(1)
def time_of_day(second: int) -> str:
    """Return `HH:MM:SS` in UTC; many lines have the same second."""
    return time.strftime("%H:%M:%S", time.gmtime(second))


def describe_exception(error: BaseException) -> str:
    """Return the types and places of an exception and its causes, in one line.

    Messages are left out, because a library may quote a key or a prompt in one.
    """
    return " from ".join(_describe(each) for each in _causes(error))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    for _ in range(_MAX_CAUSES):
        if error is None:
            return
        yield error
        error = error.__cause__ or (
            None if error.__suppress_context__ else error.__context__
        )


def _describe(error: BaseException) -> str:
    name = type(error).__qualname__
    return f"{name} in {place_of(error)}" if error.__traceback__ else name


def place_of(error: BaseException) -> str:
    """Return the function, file and line that raised an exception."""
    trace = error.__traceback__
    if trace is None:
        return "an unknown place"
    while trace.tb_next:
        trace = trace.tb_next
    code = trace.tb_frame.f_code
    return f"{code.co_qualname} ({PurePath(code.co_filename).name}:{trace.tb_lineno})"
