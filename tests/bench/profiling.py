"""Where the time goes: this server and the bare relay under py-spy and the same load.

What both spend in uvicorn and aiohttp cancels out; what is left in the column "over
bare" is what this server could still save.
"""

import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from tests.bench.rounds import CONNECTIONS
from tests.bench.targets import Target
from tests.bench.wrk import Wrk

MISSING: Final = (
    "make bench ARGS=--profile needs py-spy, a sampling profiler, and finds neither it "
    "nor uv, which would fetch it, on PATH."
)
_SECONDS: Final = 5
# Samples a second.
_RATE: Final = 250
_LINES: Final = 20
# The serving loop runs in it; py-spy takes waiting threads beside it for busy ones.
_LOOP: Final = "(asyncio/runners.py"


class Profile(NamedTuple):
    """The CPU time of one call, in microseconds.

    Attributes:
        total: All of it.
        packages: By the package whose code ran.
        functions: By the function whose code ran.
        callees: By function, with all it called.
    """

    total: float
    packages: Mapping[str, float]
    functions: Mapping[str, float]
    callees: Mapping[str, float]


def command() -> list[str] | None:
    """Return how to start py-spy here; None when it cannot be had."""
    if py_spy := shutil.which("py-spy"):
        return [py_spy]
    # `uv run` leaves its own path in UV.
    uv = os.environ.get("UV") or shutil.which("uv")
    return [uv, "tool", "run", "--quiet", "py-spy"] if uv else None


def profile(target: Target, wrk: Wrk, kind: str, folder: Path) -> Profile:
    """Sample a server while it is under load.

    Args:
        target: The server.
        wrk: The load generator.
        kind: The kind of its calls, one of `payloads.KINDS`.
        folder: An existing folder for the samples.

    Returns:
        What py-spy saw.

    Raises:
        subprocess.CalledProcessError: py-spy or wrk failed.
    """
    samples = folder / f"{target.name}-{kind}"
    options = [f"--pid={target.pid}", f"--duration={_SECONDS}", f"--rate={_RATE}"]
    options += ["--format=raw", "--function", f"--output={samples}"]
    sampling = [*(command() or ["py-spy"]), "record", *options]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(sampling, stdout=quiet, stderr=quiet) as py_spy:
        before = target.cpu_seconds
        load = wrk.load(target.url, kind, CONNECTIONS, _SECONDS + 1)
        cpu = (target.cpu_seconds - before) / max(load.calls, 1)
    if py_spy.returncode:
        raise subprocess.CalledProcessError(py_spy.returncode, "py-spy")
    return parse(samples.read_text(), cpu * 1e6)


def parse(samples: str, total: float) -> Profile:
    """Share out the CPU time of a call by py-spy's samples.

    Args:
        samples: Its raw format: on each line a stack, outermost function first, as
            `function (file:line);...`, and how often it was seen.
        total: The CPU time of a call, in microseconds.
    """
    packages: Counter[str] = Counter()
    functions: Counter[str] = Counter()
    callees: Counter[str] = Counter()
    for line in samples.splitlines():
        stack, _, seen = line.rpartition(" ")
        if _LOOP not in stack:
            continue
        frames = stack.split(";")
        frame = _credited(frames)
        packages[_path(frame).partition("/")[0]] += int(seen)
        functions[frame] += int(seen)
        callees.update(dict.fromkeys(frames, int(seen)))
    all_seen = max(packages.total(), 1)
    each = total / all_seen
    counts = (packages, functions, _inner(callees, all_seen))
    return Profile(total, *({k: n * each for k, n in c.items()} for c in counts))


def report(kind: str, bare: Profile, this: Profile) -> str:
    """Return what this server spends beyond the bare relay, as lines of text."""
    spent = f"bare {bare.total:.0f}, this {this.total:.0f}"
    parts = [
        f"{kind}: CPU of one call, in microseconds: {spent}",
        _most("by package", bare.packages, this.packages),
        _most("by function", bare.functions, this.functions),
        _most("by function, with all it calls", bare.callees, this.callees),
    ]
    return "\n\n".join(parts)


def _most(title: str, bare: Mapping[str, float], this: Mapping[str, float]) -> str:
    over = {name: spent - bare.get(name, 0) for name, spent in this.items()}
    names = sorted(over, key=lambda name: over[name], reverse=True)[:_LINES]
    lines = [f"over bare  this  bare  {title}"]
    lines += [
        f"{over[name]:9.0f} {this[name]:5.0f} {bare.get(name, 0):5.0f}  {name}"
        for name in names
    ]
    return "\n".join(lines)


def _inner(callees: Mapping[str, int], all_seen: int) -> dict[str, int]:
    # What is in nearly every stack is the way from the command line to the loop.
    return {name: seen for name, seen in callees.items() if seen < 0.9 * all_seen}


def _credited(frames: list[str]) -> str:
    # The standard library's small helpers (contextlib, typing, os) are credited to who
    # called them; they stand alone in a file, while packages have a folder.
    return next((f for f in reversed(frames) if "/" in _path(f)), frames[-1])


def _path(frame: str) -> str:
    return frame.rpartition("(")[2]
