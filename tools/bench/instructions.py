"""The instructions that a server executes for a call and for a chunk of a stream.

valgrind counts them, so they do not depend on how busy the machine is. System calls are
left out. A server is twenty times slower then, and every upstream ahead of it.
"""

import re
import shutil
import subprocess
from contextlib import ExitStack
from pathlib import Path

from tools.bench.load import Figures, Target, run_wrk
from tools.bench.targets import Command, Targets
from tools.bench.upstream import KINDS
from tools.cli import log

# At the end, one call is counted that is not complete: less than one in a hundred.
_SECONDS = 4
_TOTAL = re.compile(r"(?m)^totals: (\d+)$")


def count(directory: Path) -> dict[str, Figures]:
    """Count those of the bare relay and of this server, in thousands."""
    if not shutil.which("valgrind"):
        log("instructions are left out: apt-get install valgrind")
        return {}
    log("counting instructions")
    output = directory / "callgrind"
    valgrind: Command = ["valgrind", "--tool=callgrind", "--instr-atstart=no"]
    valgrind += [f"--callgrind-out-file={output}"]
    with ExitStack() as stack:
        targets = Targets(directory, stack, valgrind)
        return {
            target.name: _figures(target, output)
            for target in (targets.bare(), targets.this())
        }


def _figures(target: Target, output: Path) -> Figures:
    per_call, per_stream = (
        _count(target, kind, output) for kind in ("buffered", "burst")
    )
    chunks = KINDS["burst"].chunks
    return {
        "call_instructions": per_call / 1000,
        "chunk_instructions": per_stream / chunks / 1000,
    }


def _count(target: Target, kind: str, output: Path) -> float:
    """Return the instructions of one request."""
    # The first requests look models up and compile patterns.
    run_wrk(target, kind, 1, 1)
    _control(target, "--instr=on")
    run_wrk(target, kind, 1, 1)
    _control(target, "--zero")
    requests = run_wrk(target, kind, 1, _SECONDS)[0]
    _control(target, "--dump")
    _control(target, "--instr=off")
    newest = max(
        output.parent.glob(f"{output.name}.*"), key=lambda p: p.stat().st_mtime_ns
    )
    total = _TOTAL.search(newest.read_text())
    assert total, f"callgrind wrote no total for {target.name}"
    return int(total[1]) / requests


def _control(target: Target, option: str) -> None:
    command = ["callgrind_control", option, str(target.server.process.pid)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
