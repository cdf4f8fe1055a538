"""README.md taken apart, for the tests that hold it to what is there."""

import re
from dataclasses import dataclass

from tests.server import PROJECT

TEXT = (PROJECT / "README.md").read_text()

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`([^`\n]+)`")
_HEADING = re.compile(r"^(#+) (.+)$")


@dataclass(frozen=True)
class Section:
    """What stands under one heading, up to the next one.

    Attributes:
        level: 1 for the title of the whole, 2 and 3 below it.
        title: The heading.
        text: What stands under it.
    """

    level: int
    title: str
    text: str

    def blocks(self, language: str) -> list[str]:
        """The fenced blocks of a language."""
        return [body for fence, body in _FENCE.findall(self.text) if fence == language]

    def block(self, language: str) -> str:
        """The one fenced block of a language."""
        (block,) = self.blocks(language)
        return block

    @property
    def rows(self) -> list[list[str]]:
        """The rows of its table, below the head, without the marks of code."""
        lines = [line for line in self.text.splitlines() if line.startswith("|")]
        return [_cells(line) for line in lines[2:]]


def sections() -> list[Section]:
    """All sections, in order."""
    found = [Section(0, "", "")]
    in_fence = False
    for line in TEXT.splitlines(keepends=True):
        in_fence ^= line.startswith("```")
        heading = None if in_fence else _HEADING.match(line)
        if heading:
            found.append(Section(len(heading[1]), heading[2], ""))
        else:
            level, title, text = found[-1].level, found[-1].title, found[-1].text
            found[-1] = Section(level, title, text + line)
    return found[1:]


def section(title: str) -> Section:
    """The section of a heading."""
    (found,) = [each for each in sections() if each.title == title]
    return found


def below(title: str) -> list[Section]:
    """The sections one level below a heading."""
    found: list[Section] = []
    inside = False
    for each in sections():
        if each.level == 2:
            inside = each.title == title
        elif inside:
            found.append(each)
    return found


def words(text: str) -> list[str]:
    """What is marked as code inside a text."""
    return _INLINE.findall(_FENCE.sub("", text))


def code() -> list[str]:
    """Everything that is marked as code: blocks for a shell, and words in the text."""
    blocks = [body for fence, body in _FENCE.findall(TEXT) if fence == "sh"]
    return blocks + words(TEXT)


def _cells(line: str) -> list[str]:
    return [cell.strip().replace("`", "") for cell in line.strip("|\n ").split("|")]
