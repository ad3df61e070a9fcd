"""The terminal view as a picture for documents.

Rich can export SVG too, but leaves block characters to the fonts of whoever looks, which draw seams
between rows, and asks the network for a font. Here blocks and frames are shapes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

from rich.cells import cell_len
from rich.color import Color
from rich.console import Console
from rich.style import Style
from rich.terminal_theme import SVG_EXPORT_THEME, TerminalTheme
from rich.text import Text

from stream.pubsub.messages import Event
from stream.view.layout import frame
from stream.view.look import Look
from stream.view.state import ViewState

_THEME: Final[TerminalTheme] = SVG_EXPORT_THEME
_CELL_X, _CELL_Y, _FONT_PX = 9.0, 20.0, 15
_MARGIN, _BAR = 16.0, 36.0  # around the rows; above them, with the window's title
_BLOCKS: Final = {
    "█": (0.0, 0.0, 1.0, 1.0),
    "▀": (0.0, 0.0, 1.0, 0.5),
    "▄": (0.0, 0.5, 1.0, 0.5),
    "▌": (0.0, 0.0, 0.5, 1.0),
    "▐": (0.5, 0.0, 0.5, 1.0),
}
"""x, y, width and height of the part of a cell that is filled."""
_CORNERS: Final = {"╭": (1, 1), "╮": (-1, 1), "╰": (1, -1), "╯": (-1, -1)}
"""Directions, from the middle of the cell, of its two arms."""
# A run of one kind of mark, or words with single spaces between them, which no renderer collapses.
_RUN: Final = re.compile(rf"([{''.join(_BLOCKS)}─│╭╮╰╯])\1*|[^\s─│]+(?: [^\s─│]+)*")


def snapshot(
    events: Iterable[Event], path: str | os.PathLike[str], width: int = 80, height: int = 30
) -> None:
    """Write the view as it stands after `events` as SVG, the same for the same events.

    Args:
        events: as received or as read from a recording.
        path: the SVG file.
        width: cells.
        height: rows.
    """
    state = ViewState()
    for event in events:
        state.update(event)
    rows = frame(state, None, Look(), width, height)
    Path(path).write_text(svg(rows, width, "emostream watch"), encoding="utf-8")


def svg(rows: Sequence[Text], width: int, title: str) -> str:
    """Rows of a terminal of `width` cells in a window with a title, as an SVG document."""
    size_x = width * _CELL_X + 2 * _MARGIN
    size_y = len(rows) * _CELL_Y + _BAR + _MARGIN
    console = Console(width=width, color_system="truecolor", force_terminal=True, no_color=False)
    dots = "".join(
        f'<circle cx="{22 + 20 * k}" cy="19" r="6" fill="{fill}"/>'
        for k, fill in enumerate(("#ff5f57", "#febc2e", "#28c840"))
    )
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size_x:g} {size_y:g}" '
        f'font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, DejaVu Sans Mono, monospace" '
        f'font-size="{_FONT_PX}" shape-rendering="crispEdges">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{size_x:g}" height="{size_y:g}" rx="8" fill="{_THEME.background_color.hex}"/>',
        dots,
        f'<text x="{size_x / 2:g}" y="24" text-anchor="middle" font-weight="bold" '
        f'fill="{_THEME.foreground_color.hex}">{escape(title)}</text>',
    ]
    body: list[str] = []
    for number, row in enumerate(rows):
        x, y = _MARGIN, _BAR + number * _CELL_Y
        for segment in row.render(console):
            style = segment.style or Style.null()
            for match in _RUN.finditer(segment.text):
                before = cell_len(segment.text[: match.start()])
                body += _shapes(match[0], x + before * _CELL_X, y, style)
            x += cell_len(segment.text) * _CELL_X
    return "\n".join([*head, *body, "</svg>\n"])


def _shapes(run: str, x: float, y: float, style: Style) -> Iterator[str]:
    """Shapes of a run of equal marks or of words whose first cell has its corner at (x, y)."""
    ink, size_x = _ink(style), cell_len(run) * _CELL_X
    if run[0] in _BLOCKS:
        if style.bgcolor is not None:
            yield _rect(x, y, size_x, _CELL_Y, _hex(style.bgcolor))
        left, top, right, bottom = _BLOCKS[run[0]]
        if right == 1:
            yield _rect(x, y + top * _CELL_Y, size_x, bottom * _CELL_Y, ink)
        else:
            for k in range(len(run)):
                yield _rect(x + (k + left) * _CELL_X, y, right * _CELL_X, _CELL_Y, ink)
    elif run[0] == "─":
        yield _rect(x, y + _CELL_Y / 2, size_x, 1, ink)
    elif run[0] == "│":
        yield _rect(x + _CELL_X / 2, y, 1, _CELL_Y, ink)
    elif run[0] in _CORNERS:
        right, down = _CORNERS[run[0]]
        middle_x, middle_y = x + _CELL_X / 2 + 0.5, y + _CELL_Y / 2 + 0.5
        curve = f"M{middle_x:g} {middle_y + down * _CELL_Y / 2:g}Q{middle_x:g} {middle_y:g}"
        curve += f" {middle_x + right * _CELL_X / 2:g} {middle_y:g}"
        yield f'<path d="{curve}" fill="none" stroke="{ink}" shape-rendering="auto"/>'
    else:
        weight = ' font-weight="bold"' if style.bold else ""
        yield (
            f'<text x="{x:g}" y="{y + 0.75 * _CELL_Y:g}" textLength="{size_x:g}" '
            f'lengthAdjust="spacingAndGlyphs" fill="{ink}"{weight}>{escape(run)}</text>'
        )


def _rect(x: float, y: float, size_x: float, size_y: float, fill: str) -> str:
    return f'<rect x="{x:g}" y="{y:g}" width="{size_x:g}" height="{size_y:g}" fill="{fill}"/>'


def _hex(colour: Color) -> str:
    return colour.get_truecolor(_THEME).hex


def _ink(style: Style) -> str:
    ink = (style.color or Color.default()).get_truecolor(_THEME)
    if not style.dim:
        return ink.hex
    paper = _THEME.background_color
    return "#" + "".join(f"{(a + b) // 2:02x}" for a, b in zip(ink, paper, strict=True))
