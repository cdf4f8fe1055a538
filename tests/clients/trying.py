"""One client tried: its driver and its snippets run, and what came of it."""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from tests import environment
from tests.clients import program, witness
from tests.clients.busy import be_busy_once
from tests.clients.drivers import content
from tests.clients.drivers.driver import CAPABILITIES
from tests.clients.installing import Installed
from tests.clients.listing import Client
from tests.server import PROJECT
from tests.upstream import Upstream

SNIPPETS = Path(__file__).parent / "snippets"
COLUMNS = (*CAPABILITIES, "snippet")

# Seconds; `llm` is started a score of times and needs a second or two each time.
_DRIVER_SECONDS = 240.0
_SNIPPET_SECONDS = 60.0

# What runs a snippet of a language that has no environment of its own.
_SHELL = ("sh",)


@dataclass(frozen=True)
class Cell:
    """What came of one capability.

    Attributes:
        outcome: "ok", "no" for a limit of the client, "failed", or "-" when it was not
            tried, because this machine lacks what it takes.
        detail: The reason; empty for "ok".
    """

    outcome: str
    detail: str = ""


def all_cells(outcome: str, detail: str) -> dict[str, Cell]:
    """A row with the same in each column."""
    return dict.fromkeys(COLUMNS, Cell(outcome, detail))


def attempt(
    client: Client, installed: Installed, upstream: Upstream, address: str
) -> dict[str, Cell]:
    """Run a client's driver and its snippets.

    Args:
        client: The client.
        installed: Where it is.
        upstream: The upstream of the server, where everything is forgotten first.
        address: The server's, without "/v1".

    Returns:
        A cell for each column.
    """
    upstream.reset()
    be_busy_once(upstream)
    variables = _variables(installed, address)
    cells = _drive(client, installed, variables)
    for capability, cell in cells.items():
        if cell.outcome == "ok" and not witness.has_seen(upstream, capability):
            cells[capability] = Cell("failed", f"{capability}: not seen upstream")
    cells["snippet"] = _show(client, installed, variables)
    upstream.reset()
    return cells


def _variables(installed: Installed, address: str) -> dict[str, str]:
    """The environment of a user who has exported an address and a key."""
    return environment.clean() | {
        "HOME": str(installed.directory),
        "TMPDIR": str(installed.directory),
        "PATH": f"{installed.programs}{os.pathsep}{os.environ['PATH']}",
        "OPENAI_BASE_URL": f"{address}/v1",
        "OPENAI_API_KEY": witness.BEARER_KEY,
        "GEMINI_API_KEY": witness.HEADER_KEY,
        "HEADER_API_KEY": witness.HEADER_KEY,
    }


def _drive(
    client: Client, installed: Installed, variables: dict[str, str]
) -> dict[str, Cell]:
    command = client.source.driver(installed, client.driver)
    variables = variables | {"PYTHONPATH": str(PROJECT), "CONTENT": content.as_json()}
    status, output, errors = program.run(
        command, installed.directory, variables, _DRIVER_SECONDS
    )
    ending = f"ended with {status}: {_last_line(errors)}"
    late = f"not done in {_DRIVER_SECONDS:g} s"
    cells = dict.fromkeys(
        CAPABILITIES, Cell("failed", late if status is None else ending)
    )
    for line in output.splitlines():
        told = json.loads(line)
        cells[told["capability"]] = Cell(told["outcome"], told["detail"])
    return cells


def _show(client: Client, installed: Installed, variables: dict[str, str]) -> Cell:
    """Run the snippets of a client as they stand."""
    for name in client.snippets:
        # Beside its packages, where Node looks for them, and where a user has it.
        file = str(shutil.copy(SNIPPETS / name, installed.directory))
        interpreter = _SHELL if name.endswith(".sh") else installed.interpreter
        status, output, errors = program.run(
            [*interpreter, file], installed.directory, variables, _SNIPPET_SECONDS
        )
        if status != 0 or f" heard: {content.PROMPT}" not in output:
            return Cell("failed", f"{name}: {_last_line(errors) or output!r}")
    return Cell("ok")


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1]
