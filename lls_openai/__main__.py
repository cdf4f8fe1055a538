"""Command `lls-openai run.yaml`, also called as `python -m lls_openai run.yaml`."""

import os
import signal
import sys
from types import FrameType

# The status of a process that Ctrl-C has ended, by the shell's convention.
_INTERRUPTED = 128 + signal.SIGINT


def main() -> None:
    """Check the configuration and the port, then run Llama Stack's own command."""
    # A script may run it in the background, with SIGINT ignored.
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _interrupt)
    # Imported here, because it takes a second, in which Ctrl-C ends with one line, too.
    from lls_openai.server.command import run  # noqa: PLC0415

    run()


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """End a process that is booting, without the traceback of KeyboardInterrupt."""
    print("lls-openai: interrupted before startup", file=sys.stderr)  # noqa: T201 (no log yet)
    os._exit(_INTERRUPTED)


if __name__ == "__main__":
    main()
