"""The Markdown files and what stands in them: blocks of code, commands, prose."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PAGES = sorted({path for glob in ("*.md", "docs/**/*.md", "benchmarks/**/*.md") for path in ROOT.glob(glob)})
GUIDES = [page for page in PAGES if page.name not in ("CHANGELOG.md", "decisions.md")]  # these tell of other times
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
INDENTED = re.compile(r"(?:^ {4}.*\n)+", re.MULTILINE)
QUOTED = re.compile(r"`([^`\n]+)`")
PROGRAM = re.compile(r"(?:^|\s)(cce-minus-(?:torch|jax)|python -m benchmarks\.[\w.]+)(?=\s|$)")


@dataclass(frozen=True)
class Block:
    """Code between fences, which name its ``language``: python is run by the tests, py is others' and is not."""

    language: str
    code: str

    def lines(self) -> list[str]:
        """The commands of a shell's block, each in one line."""
        return [line.strip() for line in re.sub(r"\\\n\s*", "", self.code).splitlines() if line.strip()]


def blocks(text: str) -> list[Block]:
    return [Block(language, code) for language, code in FENCE.findall(text)]


def prose(text: str) -> str:
    """The text without its blocks of code."""
    return INDENTED.sub("\n", FENCE.sub("", text))


def commands(text: str) -> Iterator[tuple[str, bool]]:
    """Commands of ours, and whether each is a whole one, of a block, or mentioned in a sentence."""
    for block in blocks(text):
        if block.language == "sh":
            yield from ((line, True) for line in block.lines() if PROGRAM.search(line))
    yield from ((code, False) for code in QUOTED.findall(prose(text)) if PROGRAM.match(code))
