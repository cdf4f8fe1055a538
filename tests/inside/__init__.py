"""A look inside the server's process: which files it opens, what it still holds.

`tests/inside/path/sitecustomize.py` runs in that process, put there by PYTHONPATH, and
answers on a socket; nothing of it is in the server's own code.
"""

import json
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tests.server import Server

_PATH = Path(__file__).parent / "path"
# A search walks a million objects; a machine under load takes its time.
_SECONDS = 60.0


@dataclass(frozen=True)
class Inside:
    """The inside of a server started with `variables`.

    Args:
        socket: Where the server's process listens for questions: a short path.
    """

    socket: Path

    @property
    def variables(self) -> dict[str, str]:
        """What the server has to be started with."""
        return {"PYTHONPATH": str(_PATH), "INSIDE": str(self.socket)}

    def files(self) -> list[str]:
        """What was done to files, or to a database's, that could leave something.

        Bytecode that Python keeps of modules is not counted: it is Python's own, holds
        nothing of a request, and is written once.
        """
        return list(self._ask({"files": True}))

    def holders(self, *texts: str) -> list[str]:
        """The kinds of objects that hold one of some texts, anywhere in the process.

        Args:
            texts: Looked for in every string and in all bytes that Python can reach.
        """
        # Written otherwise, so that the question is not found itself.
        return list(self._ask({"hex": [text.encode().hex() for text in texts]}))

    def _ask(self, question: dict[str, Any]) -> Any:  # noqa: ANN401 - any JSON
        with socket.socket(socket.AF_UNIX) as asking:
            asking.settimeout(_SECONDS)
            asking.connect(str(self.socket))
            asking.sendall(json.dumps(question).encode())
            asking.shutdown(socket.SHUT_WR)
            with asking.makefile("rb") as answering:
                return json.load(answering)


class Watched(NamedTuple):
    """A server and its inside."""

    server: Server
    inside: Inside
