"""What a terminal can show: colours or none, Unicode or ASCII, and text made safe for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from rich.console import Console

_ASCII: Final = str.maketrans(
    {
        "“": '"',
        "”": '"',
        "‘": "'",
        "’": "'",
        "–": "-",
        "—": "-",
        "−": "-",
        "…": "~",
        "→": ">",
        "·": ".",
        "✓": "+",
        "✗": "x",
        "▲": "!",
        "●": "*",
        "│": "|",
        "─": "-",
        "╭": "+",
        "╮": "+",
        "╰": "+",
        "╯": "+",
        "█": "#",
        "▀": "=",
        "▄": "-",
        "▌": "_",
    }
)
"""What stands for our own marks without Unicode, cell for cell, so that layouts stay as they are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """What the terminal can show.

    Attributes:
        colour: whether it has colours and they are wanted.
        encoding: of what is written to it; anything but UTF-8 gets ASCII marks.
    """

    colour: bool = True
    encoding: str = "utf-8"

    @classmethod
    def of(cls, console: Console) -> Look:
        """The look of a console: NO_COLOR, TERM and the encoding of its file decide."""
        return cls(
            colour=console.color_system is not None and not console.no_color,
            encoding="ascii" if console.legacy_windows else console.encoding,
        )

    @property
    def unicode(self) -> bool:
        """Whether marks outside ASCII can be shown."""
        return self.encoding.lower().startswith("utf")

    @property
    def halves(self) -> bool:
        """Whether the two halves of a cell can have colours of their own."""
        return self.colour and self.unicode

    def fit(self, text: str) -> str:
        """`text` in characters that can be shown: without Unicode `─` becomes `-` and so on."""
        if self.unicode:
            return text
        return text.translate(_ASCII).encode(self.encoding, "replace").decode(self.encoding)

    def clean(self, text: str) -> str:
        """`text` from the network on one line, in characters that can be shown and steer nothing.

        A message must not move the cursor or retitle the window: control and format characters go.
        """
        text = " ".join(text.split())
        return self.fit("".join(c if c.isprintable() else "?" for c in text))
