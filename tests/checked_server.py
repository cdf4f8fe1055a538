"""The server as `make server` runs it: `python -m lls_openai run.yaml`."""

import subprocess
import sys
from typing import override

from tests.server import Server


class CheckedServer(Server):
    """The server, started by the command that looks at its configuration first."""

    @override
    def _start(self) -> subprocess.Popen[bytes]:
        run_yaml = self._command[-1]
        self._command = [sys.executable, "-m", "lls_openai", run_yaml]
        return super()._start()
