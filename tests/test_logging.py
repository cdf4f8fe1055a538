"""The log lines of uvicorn that are kept and dropped."""

import logging

import pytest

from lls_openai.server.access_log import set_up_logs


def test_startup_failure_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Of uvicorn's messages at startup, only those of a success are dropped."""
    set_up_logs()
    for end in ("complete.", "failed. Exiting."):
        logging.getLogger("uvicorn.error").error("Application startup %s", end)

    assert caplog.messages == ["Application startup failed. Exiting."]
