"""The load generator: wrk, driven by a script for each kind of call."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Final, NamedTuple

from tests.bench.payloads import HEADERS, PATH, request_body

MISSING: Final = (
    "make bench needs wrk, an HTTP load generator, and finds none on PATH.\n"
    "Debian and Ubuntu have it: sudo apt-get install wrk"
)
# Lua's long brackets hold any bytes that have no "]==]" among them.
_SCRIPT: Final = """\
wrk.method = "POST"
wrk.body = [==[{body}]==]
{headers}
function done(summary, latency, requests)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.status
  io.write(string.format(
    '\\n{{"calls": %d, "failed": %d, "seconds": %f, "p50": %f}}\\n',
    summary.requests, failed, summary.duration / 1e6, latency:percentile(50) / 1e6))
end
"""


class Load(NamedTuple):
    """What a load was answered with.

    Attributes:
        calls: How many answers arrived whole.
        failed: How many of them were errors, and how many connections broke.
        seconds: How long it took.
        p50: The median time of a call, in seconds.
    """

    calls: int
    failed: int
    seconds: float
    p50: float

    @property
    def rate(self) -> float:
        """Calls per second."""
        return (self.calls - self.failed) / self.seconds


class Wrk:
    """wrk with its scripts in a folder."""

    def __init__(self, folder: Path) -> None:
        """Use this folder, which the caller removes, for the scripts."""
        self._folder = folder

    def load(self, url: str, kind: str, connections: int, seconds: float) -> Load:
        """Send calls of one kind, each connection its next as soon as it is answered.

        Args:
            url: The server's URL, without a path.
            kind: One of `payloads.KINDS`.
            connections: How many connections call at once.
            seconds: How long, in seconds; wrk takes whole ones from 1 up.

        Returns:
            What wrk counted.

        Raises:
            subprocess.CalledProcessError: wrk failed, for instance to connect.
        """
        command = ["wrk", "--threads=1", f"--connections={connections}"]
        command += [f"--duration={max(1, round(seconds))}s", "--timeout=30s"]
        command += [f"--script={self._script(kind)}", url + PATH]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return Load(**json.loads(done.stdout.strip().splitlines()[-1]))

    def _script(self, kind: str) -> Path:
        script = self._folder / f"{kind}.lua"
        headers = [f"wrk.headers['{k}'] = [==[{v}]==]" for k, v in HEADERS.items()]
        body = request_body(kind).decode()
        script.write_text(_SCRIPT.format(body=body, headers="\n".join(headers)))
        return script


def is_installed() -> bool:
    """Tell whether wrk can be started."""
    return shutil.which("wrk") is not None
