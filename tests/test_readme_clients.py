"""The README's "Use it from": what stands there is what the tests run."""

import re
import subprocess

from tests import environment
from tests.clients.listing import CLIENTS
from tests.clients.trying import SNIPPETS
from tests.server import PROJECT


def _snippets() -> dict[str, str]:
    """The snippet files: name and content."""
    files = [file for file in SNIPPETS.iterdir() if file.name.startswith("with_")]
    return {file.name: file.read_text() for file in files}


def _blocks() -> list[str]:
    """The code blocks of the section, in order."""
    readme = (PROJECT / "README.md").read_text()
    _, _, rest = readme.partition("\n## Use it from\n")
    section, _, _ = rest.partition("\n## ")
    return re.findall(r"(?ms)^```\w+\n(.*?)^```$", section)


def test_each_block_is_a_snippet_that_is_run_and_none_is_left_out() -> None:
    """The README quotes the files verbatim; the first block sets the environment."""
    setting, *snippets = _blocks()
    assert (SNIPPETS / "environment.sh").read_text() == setting
    assert sorted(_snippets().values()) == sorted(snippets)


def test_every_snippet_belongs_to_a_client() -> None:
    """`make clients` runs what its clients name, so each has to be named."""
    named = [name for client in CLIENTS for name in client.snippets]
    assert sorted(_snippets()) == sorted(named)


def test_the_first_block_sets_what_the_others_read() -> None:
    """An address at the default port, and a key; tests put others in their place."""
    script = f"unset OPENAI_BASE_URL; . {SNIPPETS / 'environment.sh'}; env"
    output = subprocess.run(
        ["/bin/sh", "-c", script],
        env=environment.clean(),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    expected = {
        "OPENAI_BASE_URL=http://localhost:8321/v1",
        "OPENAI_API_KEY=sk-your-own-key",
    }
    actual = {line for line in output.splitlines() if line.startswith("OPENAI_")}
    assert expected == actual
