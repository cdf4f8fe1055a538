"""A program that is run to its end, or to the end of its time."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path


def run(
    command: list[str], directory: Path, variables: Mapping[str, str], seconds: float
) -> tuple[int | None, str, str]:
    """Run a program; what it has started goes with it, whatever happens here.

    Args:
        command: The program and its arguments.
        directory: Its working directory.
        variables: Its environment.
        seconds: How long it may take.

    Returns:
        Its exit status, or None when its time was over, and all that it printed on
        standard output and standard error.
    """
    process = subprocess.Popen(
        command,
        cwd=directory,
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A group of its own, which can be killed as one.
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        _kill(process)
        return None, *process.communicate()
    finally:
        _kill(process)
    return process.returncode, output, errors


def _kill(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
