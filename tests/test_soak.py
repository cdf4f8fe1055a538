"""The soak: a tiny one in full, and the parts of it that could tell a wrong figure."""

import subprocess
import sys
from collections import Counter

import pytest

from tests import environment
from tests.server import PROJECT
from tests.soak import __main__ as program
from tests.soak.figures import Figure, all_of, none_of, table
from tests.soak.kinds import KEYS, KINDS, MARK, mixed
from tests.soak.latency import percentile

PARTS = ["endurance", "slow", "isolation", "leaving", "keys"]


def test_a_tiny_soak_holds() -> None:
    """Every part has its figures, and each is what it must be."""
    command = [sys.executable, "-m", "tests.soak", "--calls", str(len(KINDS))]
    soak = subprocess.run(
        command,
        cwd=PROJECT,
        env=environment.clean(),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    lines = soak.stdout.splitlines()
    parts = [line.split()[0] for line in lines[5:] if not line.startswith(" ")]
    told = (soak.returncode, parts)
    assert told == (0, PARTS), soak.stdout + soak.stderr
    assert MARK not in soak.stdout + soak.stderr


def test_what_does_not_hold_ends_with_status_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The table is printed all the same, and says which figure it is."""
    figures = [none_of("part", "faults", 0), all_of("part", "answers", 2, 3)]
    monkeypatch.setattr(program, "_run", lambda _calls: figures)
    monkeypatch.setattr(sys, "argv", ["soak"])

    assert program.main() == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.split() == ["answers", "2", "3", "FAILS"]


def test_the_figures_stand_in_columns() -> None:
    """A part is named once, and what is only told has no verdict."""
    figures = [
        Figure("one", "time, ms", "12.00", "1.00"),
        none_of("one", "faults", 0),
        all_of("other", "answers", 2, 3),
    ]
    assert table(figures).splitlines() == [
        "                 before   with  must be",
        "one    time, ms    1.00  12.00",
        "       faults                0  0        ok",
        "other  answers               2  3        FAILS",
    ]


def test_ten_thousand_calls_are_of_all_kinds_and_keys() -> None:
    """Each key is used as often as any other, each kind in turns, in both headers."""
    calls = mixed(2000) + mixed(8000, start=2000)
    of_kinds = Counter(call.kind.name for call in calls)
    numbers = {str(call.headers).partition(f"{MARK}-")[2][:4] for call in calls}
    carriers = Counter(name for call in calls for name in call.headers)

    assert (len(KINDS), KEYS) == (len(of_kinds), len(numbers))
    assert max(of_kinds.values()) - min(of_kinds.values()) <= 1
    assert carriers == {"Authorization": 5000, "X-LlamaStack-Provider-Data": 5000}


@pytest.mark.parametrize(
    ("share", "time"), [(0.5, 50), (0.95, 95), (0.951, 96), (1, 100)]
)
def test_a_percentile_is_one_of_the_times(share: float, time: float) -> None:
    """So many of them did not take longer; nothing is interpolated."""
    assert time == percentile(range(100, 0, -1), share)
