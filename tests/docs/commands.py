"""The commands and programs in the documentation, read from its fenced blocks."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Example:
    """A line of a block of shell, without its comment, or a whole program."""

    page: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}: {self.text.splitlines()[0][:60]}"

    @property
    def words(self) -> list[str]:
        return shlex.split(self.text)


def commands() -> list[Example]:
    """Each command line once, in order."""
    lines = [
        Example(page, line)
        for page, block in _blocks("sh")
        for line in map(_bare, block.replace("\\\n", " ").splitlines())
        if line
    ]
    return list(dict.fromkeys(lines))


def programs() -> list[Example]:
    return [Example(page, block) for page, block in _blocks("python")]


def _blocks(language: str) -> list[tuple[str, str]]:
    return [
        (path.name, match[2])
        for path in PAGES
        for match in _BLOCK.finditer(path.read_text(encoding="utf-8"))
        if match[1] == language
    ]


def _bare(line: str) -> str:
    return re.sub(r"\s+#\s.*$|^#.*$", "", line).strip()
