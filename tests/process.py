"""What Linux tells about a process: its memory, its descriptors, its children."""

from pathlib import Path


def resident(pid: int) -> int:
    """How much memory a process holds, in bytes."""
    return _kibibytes(pid, "VmRSS:")


def peak(pid: int) -> int:
    """How much memory a process has held at most, in bytes, since `forget_peak`."""
    return _kibibytes(pid, "VmHWM:")


def forget_peak(pid: int) -> None:
    """Begin anew with what a process has held at most."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def descriptors(pid: int) -> int:
    """How many descriptors a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def children(pid: int) -> list[int]:
    """The processes that a process has started and that still run."""
    return [int(path.name) for path in Path("/proc").glob("[0-9]*") if _is(path, pid)]


def is_running(pid: int) -> bool:
    """Whether a process still runs; what waits to be buried does not."""
    return _state(Path(f"/proc/{pid}"))[0] not in {"", "Z", "X"}


def _is(path: Path, parent: int) -> bool:
    """Whether a process is a child of that parent, and still runs."""
    state, found = _state(path)
    return found == parent and state not in {"Z", "X"}


def _state(path: Path) -> tuple[str, int]:
    """The letter of a process's state, and its parent; no letter if there is none."""
    try:
        # The name of a program stands in brackets, and may hold some.
        state, parent, *_ = (path / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return "", 0
    return state, int(parent)


def _kibibytes(pid: int, name: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith(name)]
    return int(line.split()[1]) * 1024
