"""What the documents tell a reader to type: fenced blocks, and the commands in them."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
LANGUAGES = ("sh", "python", "yaml", "csv", "json", "text")
_FENCE = re.compile(r"^```(\w*)(?: title=\"([^\"]+)\")?$")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block.

    Attributes:
        document: Path from the repository's root.
        line: Of the first line in the block, from 1.
        language: After the fence.
        title: File name that the document gives it; empty for none.
        text: Without the fences.
    """

    document: str
    line: int
    language: str
    title: str
    text: str


def documents() -> list[Path]:
    """README and everything in docs/, in no particular order."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(document: Path) -> Iterator[Block]:
    """The fenced blocks of a document.

    Raises:
        ValueError: A fence has no closing one, or is not of the form that is understood here.
    """
    begun: tuple[int, str, str] | None = None
    lines: list[str] = []
    name = document.relative_to(ROOT).as_posix()
    for number, line in enumerate(document.read_text(encoding="utf-8").splitlines(), 1):
        if begun is not None and line == "```":
            yield Block(name, begun[0], begun[1], begun[2], "\n".join(lines) + "\n")
            begun, lines = None, []
        elif begun is not None:
            lines.append(line)
        elif line.lstrip().startswith("```"):
            found = _FENCE.match(line)
            if found is None:
                raise ValueError(f'{name}:{number}: wanted ```LANGUAGE or ```LANGUAGE title="FILE"')
            begun = (number + 1, found[1], found[2] or "")
    if begun is not None:
        raise ValueError(f"{name}:{begun[0]}: this block is never closed")


def commands(block: Block) -> Iterator[tuple[int, str]]:
    """(line, command) of a shell block: comments gone, spaces and quotes in one form."""
    for number, line in enumerate(block.text.splitlines(), block.line):
        words = shlex.split(line, comments=True)
        if words:
            yield number, " ".join(shlex.quote(w) if w != "&&" else w for w in words)
