"""The marks of the terminal view, rows of text of known width: bars, stacks, strips, areas.

Every style is a span, never the base style of a `Text`, which would colour whatever is appended.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import TypeVar

from rich.cells import cell_len
from rich.text import Span, Text

from stream.view.look import Look

Colours = Mapping[str, str]
"""Hex colour by label."""
Slot = TypeVar("Slot")


def styled(content: str, style: str = "") -> Text:
    """A row that begins with `content`."""
    return Text(no_wrap=True, end="").append(content, style or None)


def runs(pieces: Iterable[tuple[str, str]]) -> Text:
    """A row of marks of one cell each with their styles; equal neighbours share a span."""
    plain, spans, start = "", [], 0
    for (mark, style), run in groupby(pieces):
        plain += mark * len(list(run))
        if style:
            spans.append(Span(start, len(plain), style))
        start = len(plain)
    return Text(plain, no_wrap=True, end="", spans=spans)


def bar(look: Look, smoothed: float, raw: float, cells: int, colour: str) -> Text:
    """Two bars in one row of `cells`: the smoothed score above, the raw one, greyer, below.

    Args:
        look: what can be shown.
        smoothed: probability in [0, 1].
        raw: probability in [0, 1].
        cells: length of a probability of 1.
        colour: hex, of the label.
    """
    upper, lower = (max(round(p * cells), int(p >= 0.01)) for p in (smoothed, raw))
    both = min(upper, lower)
    # With colours the two halves of a cell differ; without them a full block stands for both.
    text = styled(look.fit("▀" if look.halves else "█") * both, f"{colour} on {_greyer(colour)}")
    text.append(look.fit("▀") * (upper - both), colour)
    text.append(look.fit("▄") * (lower - both), _greyer(colour))
    return pad(text, cells)


def stack(look: Look, scores: Mapping[str, float], cells: int, colours: Colours) -> Text:
    """All scores in one row, each as long as it is probable; as initials where colours lack."""
    letters = initials(scores)
    text, done, total = styled(""), 0, 0.0
    for label, score in scores.items():
        total += score
        end = min(cells, round(total * cells))
        mark = look.fit("▀") if look.halves else letters[label]
        text.append(mark * (end - done), colours[label])
        done = max(done, end)
    return pad(text, cells)


def strip(
    look: Look, slots: Sequence[str | None], share: int, cells: int, colours: Colours
) -> Text:
    """The newest slots (labels, None for no window), oldest first, right-aligned in `cells`.

    Args:
        look: what can be shown; without colours labels are initials.
        slots: labels.
        share: slots to a cell, 1 or, with half cells, 2.
        cells: width.
        colours: by label.
    """
    slots = _newest(slots, share, cells)
    if not look.halves:
        letters = initials(colours)
        pieces = [(letters[x], colours[x]) if x else (look.fit("·"), "") for x in slots]
    elif share == 1:
        pieces = [("█", colours[label]) if label else ("·", "dim") for label in slots]
    else:
        pieces = [_half(*pair, colours) for pair in zip(slots[::2], slots[1::2], strict=True)]
    return runs([(" ", "")] * (cells - len(pieces)) + pieces)


def areas(
    slots: Sequence[Mapping[str, float] | None],
    share: int,
    cells: int,
    rows: int,
    colours: Colours,
) -> list[Text]:
    """Scores over time as stacked areas, the first label on top, right-aligned in `rows` x `cells`.

    For terminals with colours and half blocks.

    Args:
        slots: probability by label, oldest first; None for no window.
        share: slots to a cell, which shows their mean.
        cells: width.
        rows: height; each has two levels.
        colours: by label.
    """
    slots = _newest(slots, share, cells)
    columns = [_levels(slots[k : k + share], 2 * rows) for k in range(0, len(slots), share)]
    blank = [(" ", "")] * (cells - len(columns))
    out = []
    for row in range(rows):
        pairs = [column and column[2 * row : 2 * row + 2] for column in columns]
        pieces = [("▀", f"{colours[p[0]]} on {colours[p[1]]}") if p else (" ", "") for p in pairs]
        out.append(runs(blank + pieces))
    return out


def initials(labels: Iterable[str]) -> dict[str, str]:
    """One letter for each label, the first of its own that no label before it has taken."""
    letters: dict[str, str] = {}
    for label in labels:
        own = [c for c in (*label.lower(), *label.upper()) if c.isalnum() and c.isascii()]
        letters[label] = next((c for c in own if c not in letters.values()), "?")
    return letters


def flow(items: Iterable[Text], width: int, gap: str = "   ") -> list[Text]:
    """`items` one after another on as many rows of `width` cells as they need, none broken."""
    rows: list[Text] = []
    for item in items:
        if rows and rows[-1].cell_len + len(gap) + item.cell_len <= width:
            rows[-1].append(gap).append_text(item)
        else:
            rows.append(item.copy())
    return [crop(row, width) for row in rows]


def wrap(text: str, width: int) -> list[str]:
    """`text` broken at spaces into rows of at most `width` cells; longer words are broken too."""
    rows = [""]
    for word in text.split(" "):
        if rows[-1] and cell_len(rows[-1]) + 1 + cell_len(word) <= width:
            rows[-1] += f" {word}"
            continue
        if rows[-1]:
            rows.append("")
        for character in word:
            if cell_len(rows[-1]) + cell_len(character) > width:
                rows.append("")
            rows[-1] += character
    return rows


def crop(text: Text, width: int, ellipsis: str = "") -> Text:
    """`text` cut to `width` cells, with `ellipsis` at its end where something is missing."""
    if text.cell_len <= width:
        return text
    text = text.copy()
    text.truncate(max(0, width - cell_len(ellipsis)), overflow="crop")
    return text.append(ellipsis if cell_len(ellipsis) <= width else "")


def pad(text: Text, width: int) -> Text:
    """A copy of `text`, cut or filled with spaces to exactly `width` cells."""
    text = crop(text, width).copy()
    return text.append(" " * (width - text.cell_len))


def spread(left: Text, right: Text, width: int) -> Text:
    """`left` and `right` at the two ends of a row; what does not fit goes, the right one first."""
    if left.cell_len + 2 + right.cell_len > width:
        return crop(left, width)
    return pad(left, width - right.cell_len).append_text(right)


def _newest(slots: Sequence[Slot | None], share: int, cells: int) -> list[Slot | None]:
    """As many of the newest as there are places, filled up to whole cells from the left."""
    kept = list(slots[max(0, len(slots) - share * cells) :])
    return [None] * (-len(kept) % share) + kept


def _greyer(colour: str) -> str:
    return "#" + "".join(f"{(int(colour[k : k + 2], 16) + 120) // 2:02x}" for k in (1, 3, 5))


def _half(left: str | None, right: str | None, colours: Colours) -> tuple[str, str]:
    """The mark and style of two slots in one cell."""
    if left and right:
        return "▌", f"{colours[left]} on {colours[right]}"
    if left:
        return "▌", colours[left]
    return ("▐", colours[right]) if right else ("·", "dim")


def _levels(slots: Sequence[Mapping[str, float] | None], levels: int) -> list[str] | None:
    """Label at each level from the top, by the mean of the slots; None without any."""
    known = [slot for slot in slots if slot]
    if not known:
        return None
    out: list[str] = []
    total = 0.0
    for label in known[0]:
        total += sum([slot[label] for slot in known])
        out += [label] * (min(levels, round(total / len(known) * levels)) - len(out))
    return out + [label] * (levels - len(out))
