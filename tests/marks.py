"""Marked secrets, and whether a text holds a part of one."""

# A caller's key and prompt, and a token for the server's own door.
KEY = "sk-k3yk3yk3y-of-a-caller"
PROMPT = "pr0mptpr0mpt of a caller"
TOKEN = "t0kent0ken-of-a-caller"  # noqa: S105 - it is made up

_MARKS = ("k3yk3yk3y", "pr0mptpr0mpt", "t0kent0ken")
# How a traceback looks in the two forms of the log.
_TRACEBACKS = ("Traceback", '"exc_info": [', "Exception in", "was never retrieved")


def traces(text: str) -> list[str]:
    """The lines that hold a part of a secret."""
    return _lines_with(text, _MARKS)


def complaints(text: str) -> list[str]:
    """The lines of a log that hold that, or a traceback."""
    return _lines_with(text, (*_MARKS, *_TRACEBACKS))


def _lines_with(text: str, wanted: tuple[str, ...]) -> list[str]:
    return [line for line in text.splitlines() if any(each in line for each in wanted)]
