"""Log records of Python and Llama Stack are one line each, which shows no secret."""

import json
import logging
import sys
from typing import Any

import pytest

from lls_openai.server.log_format import FORMAT_VARIABLE
from lls_openai.server.logging_setup import LineFormatter, is_wanted


def record(message: object, *args: object, **more: Any) -> logging.LogRecord:  # noqa: ANN401 - logging's
    exc_info = more.get("exc_info")
    return logging.LogRecord(
        "name", logging.WARNING, "file.py", 1, message, args, exc_info
    )


@pytest.fixture(params=["json", "text"])
def formatter(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> LineFormatter:
    monkeypatch.setenv(FORMAT_VARIABLE, request.param)
    return LineFormatter()


def test_startup_failure_is_logged_and_success_is_not() -> None:
    ends = ("complete.", "failed. Exiting.")
    wanted = [is_wanted(record("Application startup %s", end)) for end in ends]

    assert wanted == [False, True]


def test_message_of_structlog_is_interpolated(formatter: LineFormatter) -> None:
    """Llama Stack leaves the arguments beside it."""
    fields = {"event": "Quota exceeded: %d/%d", "positional_args": (3, 2), "path": "/x"}
    line = formatter.format(record(fields | {"category": "core"}))

    assert "Quota exceeded: 3/2" in line
    assert "/x" in line
    assert "core" not in line


def test_exception_is_its_type_and_place_in_one_line(formatter: LineFormatter) -> None:
    """Not its message, in which a library may quote a key or a prompt."""
    try:
        try:
            json.loads("secret-prompt")
        except ValueError as cause:
            raise LookupError("secret-key") from cause
    except LookupError:
        line = formatter.format(record("It failed", exc_info=sys.exc_info()))

    assert "It failed" in line
    assert "LookupError in test_exception_is_its_type" in line
    assert " from JSONDecodeError in JSONDecoder.raw_decode (decoder.py:" in line
    assert "secret" not in line
    assert "\n" not in line


def test_control_and_format_characters_are_escaped(formatter: LineFormatter) -> None:
    unsafe = "\x1b[31m \x7f \x9b31m \u202e \ufeff \ud800 \U000e0001"
    line = formatter.format(record("%s", unsafe))

    assert line.isprintable()
    for escaped in (r"\u001b[31m", r"\u007f", r"\u009b31m", r"\u202e", r"\ufeff"):
        assert escaped in line
    assert r"\ud800" in line
    assert r"\udb40\udc01" in line


def test_further_lines_of_a_text_message_cannot_pass_for_log_lines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(FORMAT_VARIABLE, "text")
    line = LineFormatter().format(record("first\n12:00:00  forged"))

    assert line.endswith("warning: first\n    12:00:00  forged")
