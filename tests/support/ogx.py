"""The tests that do not run on OGX, each with its reason."""

from pathlib import Path

import pytest

NOT_ON_OGX = {
    "test_client.py": "main.py uses Llama Stack's client",
    "test_client_errors.py": "main.py uses Llama Stack's client",
    "test_distribution.py": "it calls the server with Llama Stack's client",
    "test_docs.py": "the pages describe Llama Stack",
    "test_make_server.py": "the pages describe Llama Stack",
    "test_operating.py": "OGX has no CORS and no quota, which the snippets configure",
    "test_repository.py": "it checks files, not a server",
    "test_access_control.py::test_call_from_inside": "OGX has no safety API",
    "test_stack_errors.py::test_junk_token": "OGX words its log lines otherwise",
    "test_boot_errors.py::test_error_during_boot_ends_with_one_line_and_status_3"
    "[unknown-provider-type]": "OGX logs the reason before the last line",
    "test_stack_errors.py::test_request_over_quota": "OGX has no quota",
}


def is_ignored_on_ogx(path: Path) -> bool:
    """Whether a file is in the list; some of them cannot even be imported."""
    return path.name in NOT_ON_OGX


def skip_on_ogx(items: list[pytest.Item]) -> None:
    """Skip the single tests of the list."""
    for item in items:
        name = f"{item.path.name}::{item.name}"
        for start, reason in NOT_ON_OGX.items():
            if name.startswith(start):
                item.add_marker(pytest.mark.skip(reason))
