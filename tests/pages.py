"""The pages that people read, and what stands in their fenced blocks."""

import re
from pathlib import Path
from typing import NamedTuple

from tests.conftest import ROOT

ADDING = sorted((ROOT / "docs" / "adding").glob("*.md"))
READ = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block; language is "" for what is typed into a terminal."""

    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page."""
    return [Block(*match) for match in _FENCE.findall(page.read_text())]


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return _FENCE.sub("", page.read_text())


def typed(page: Path) -> list[str]:
    """The lines of a page's terminal blocks, without comments."""
    lines = [line for block in blocks(page) if not block.language for line in block.text.splitlines()]
    return [re.sub(r"(?:^|\s+)#.*", "", line).strip() for line in lines]
