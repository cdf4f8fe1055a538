"""The fuzz of the tests, with more examples than they take, others each time."""

import subprocess
import sys

from tests import environment
from tests.server import PROJECT
from tests.soak.figures import Figure
from tests.soak.stage import Stage, progress

_PART = "fuzz"
_FILE = PROJECT / "tests" / "test_fuzz.py"
# As many the tests take by themselves.
_OWN = 80
_MOST_SECONDS = 300


def fuzz(stage: Stage) -> list[Figure]:
    """Run it, with a server and an upstream of its own; what fails is shown.

    Args:
        stage: Says how many calls the endurance takes: a twentieth are the examples.
    """
    examples = stage.calls // 20
    if examples <= _OWN or not _FILE.exists():
        return []
    progress(f"{_PART}: {examples} examples a test")
    outcome = _outcome(examples)
    if outcome:
        progress(f"{_PART}: {outcome}")
    what = "examples a test (tests/test_fuzz.py)"
    return [Figure(_PART, what, str(examples), bound="no fault", holds=not outcome)]


def _outcome(examples: int) -> str:
    """What pytest says when something fails; nothing when all holds."""
    command = [sys.executable, "-m", "pytest", "-q", str(_FILE)]
    variables = environment.clean() | {"FUZZ_EXAMPLES": str(examples)}
    try:
        done = subprocess.run(
            command,
            cwd=PROJECT,
            env=variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=_MOST_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return f"not over within {_MOST_SECONDS} s"
    return done.stdout if done.returncode else ""
