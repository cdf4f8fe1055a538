"""The machine the figures come from, and how much of it the bench had."""

import os
import platform
import resource
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

_PACKAGES: Final = ("llama-stack", "aiohttp", "uvicorn", "uvloop", "httptools")
# A stream held by a relay takes two descriptors, one to each side.
_DESCRIPTORS: Final = 4096


def description() -> str:
    """Return when, where and with what the figures are made, in two lines."""
    today = datetime.now(tz=UTC).date().isoformat()
    cpus = f"{len(os.sched_getaffinity(0))} CPUs ({_cpu()})"
    python = f"Python {platform.python_version()}"
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    return f"lls-openai {version('lls-openai')}, {today}, {cpus}, {python}\n{packages}"


def allow_descriptors() -> None:
    """Raise this process's limit of open files, and so that of what it starts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(_DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class Elsewhere:
    """The CPU time that did not go to the bench, from its beginning on."""

    def __init__(self) -> None:
        """Begin."""
        self._all, self._busy = _ticks()
        self._own = _own_ticks()

    @property
    def share(self) -> float:
        """The share, from 0 to 1, of the CPU time that others had.

        Other programs, and other machines on the same host (Linux's "steal"). Children
        count as the bench's own once they have ended.
        """
        ticks, busy = _ticks()
        others = busy - self._busy - (_own_ticks() - self._own)
        return max(0.0, others / max(1, ticks - self._all))


def _ticks() -> tuple[float, float]:
    # user nice system idle iowait irq softirq steal ...; see proc_stat(5).
    line = Path("/proc/stat").read_text().splitlines()[0]
    ticks = [int(field) for field in line.split()[1:9]]
    return sum(ticks), sum(ticks) - ticks[3] - ticks[4]


def _own_ticks() -> float:
    return sum(os.times()[:4]) * os.sysconf("SC_CLK_TCK")


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return " ".join(line.partition(":")[2].split())
    return platform.machine()
