"""`make clients` itself: what is not shown is not called ok."""

import json
import sys
from pathlib import Path
from typing import override

import pytest

from tests.clients.__main__ import Installer, row
from tests.clients.drivers.driver import CAPABILITIES
from tests.clients.installing import Installed, InstallError, MissingError, Source
from tests.clients.listing import Client
from tests.clients.table import Row, render
from tests.clients.trying import COLUMNS, Cell
from tests.upstream import Upstream

_UNUSED_ADDRESS = "http://127.0.0.1:9"

# Says that all is well, and calls nobody.
_BOASTER = "\n".join(
    json.dumps({"capability": name, "outcome": "ok", "detail": ""})
    for name in CAPABILITIES
)


class Fake(Source):
    """A client whose driver is a line of Python."""

    def __init__(self, code: str = "", trouble: Exception | None = None) -> None:
        """Have a driver, or trouble with the installation."""
        self._code = code
        self._trouble = trouble

    @override
    def install(self, directory: Path) -> Installed:
        if self._trouble:
            raise self._trouble
        return Installed("1.0", directory, directory, (sys.executable,))

    @override
    def driver(self, installed: Installed, name: str) -> list[str]:
        return [sys.executable, "-c", self._code]


def _row(source: Source, upstream: Upstream, directory: Path) -> Row:
    client = Client("fake", source, "fake", ())
    return row(client, Installer(directory), upstream, _UNUSED_ADDRESS)


def test_what_the_upstream_has_not_seen_is_a_failure(
    upstream: Upstream, tmp_path: Path
) -> None:
    """A client's word is enough only where the upstream can be no witness."""
    cells = _row(Fake(f"print({_BOASTER!r})"), upstream, tmp_path).cells
    expected = {"models", "errors", "id", "snippet"}
    actual = {column for column, cell in cells.items() if cell == Cell("ok")}
    assert expected == actual


def test_a_driver_that_dies_fails_in_each_column_it_did_not_reach(
    upstream: Upstream, tmp_path: Path
) -> None:
    """Its last words are the reason."""
    first = _BOASTER.splitlines()[0]
    code = f"print({first!r}); raise SystemExit('no such thing')"
    cells = _row(Fake(code), upstream, tmp_path).cells
    reason = "ended with 1: no such thing"
    expected = {name: Cell("failed", reason) for name in CAPABILITIES[1:]}
    actual = {name: cells[name] for name in CAPABILITIES[1:]}
    assert expected == actual
    assert Cell("ok") == cells[CAPABILITIES[0]]


@pytest.mark.parametrize(
    ("trouble", "outcome"),
    [(MissingError("no node here"), "-"), (InstallError("no network"), "failed")],
    ids=["missing", "broken"],
)
def test_a_client_that_is_not_there_is_told_and_not_called_ok(
    trouble: Exception, outcome: str, upstream: Upstream, tmp_path: Path
) -> None:
    """What this machine lacks is no failure; what cannot be installed is one."""
    cells = _row(Fake(trouble=trouble), upstream, tmp_path).cells
    assert dict.fromkeys(COLUMNS, Cell(outcome, str(trouble))) == cells


def test_the_table_gives_the_reason_of_each_no() -> None:
    """Below the table, once, by number."""
    good = Row("good", "1.0", dict.fromkeys(COLUMNS, Cell("ok")))
    limited = Row("limited", "10.0", dict.fromkeys(COLUMNS, Cell("no", "too small")))
    head, first, second, *rest = render([good, limited]).splitlines()
    assert ["client", "version", *COLUMNS] == head.split()
    assert ["good", "1.0"] + ["ok"] * len(COLUMNS) == first.split()
    assert ["limited", "10.0"] + ["no", "1"] * len(COLUMNS) == second.split()
    assert rest == ["", "1  too small"]
