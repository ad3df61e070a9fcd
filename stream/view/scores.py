"""What the model says in figures: the large label, the bars of all labels, the last minute."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable

from rich.cells import cell_len
from rich.text import Text

from stream.pubsub.messages import Label
from stream.view import lettering
from stream.view.look import Look
from stream.view.marks import areas, bar, crop, initials, pad, stack, strip, styled
from stream.view.palette import colours as palette
from stream.view.state import HISTORY_S, SourceView

_LEFT_CELLS = 24  # what stands under the large label
_BARS_CELLS = 30  # least width of bars beside it
_GAP = 3
_MAX_BARS = 12
_LEAST_LUMINANCE = 0.13  # 3.6 : 1 against black


def head(view: SourceView, label: Label, look: Look, width: int) -> list[Text]:
    """The label in large letters beside the bars; above them where it is too narrow for both."""
    smoothed = label.smoothed
    colour = f"bold {colours(label.scores)[smoothed.label]}"
    name = look.clean(smoothed.label.upper())
    score = f"{smoothed.scores[smoothed.label]:.0%}"
    beside = width - _GAP - _BARS_CELLS
    if beside < _LEFT_CELLS:
        row = styled(name, colour).append(f"  {score}", "bold").append(f"  {_held(view)}", "dim")
        return [crop(row, width), *_bars(label, look, width)]
    # As wide as the longest label needs, so that the bars stay where they are when it changes.
    large = {name: lettering.letter(name) for name in label.scores} if look.unicode else {}
    left_cells = max([_LEFT_CELLS, *(len(rows[0]) for rows in large.values() if rows)])
    if left_cells > beside:
        large, left_cells = {}, _LEFT_CELLS
    bars = _bars(label, look, width - left_cells - _GAP)
    drawn = large.get(smoothed.label)
    spaced = " ".join(name) if 2 * len(name) <= left_cells else name
    left = [styled(row, colour) for row in drawn or [spaced]]
    left += [styled("")] if len(bars) >= len(left) + 4 else []
    left.append(styled(score, "bold").append(f"  {_held(view)}", "dim"))
    raw = styled("this window  ", "dim").append(look.clean(label.label))
    left.append(raw.append(f" {label.scores[label.label]:.0%}"))
    if view.answers:
        left.append(styled("answers agree", "dim").append(f" {view.agreements} of {view.answers}"))
    rows = max(len(left), len(bars))
    left += [styled("")] * (rows - len(left))
    bars += [styled("")] * (rows - len(bars))
    return [pad(a, left_cells + _GAP).append_text(b) for a, b in zip(left, bars, strict=True)]


def compact_head(view: SourceView, label: Label, look: Look, width: int) -> Text:
    """The label and all scores in one row."""
    smoothed, colour = label.smoothed, colours(label.scores)
    name = look.clean(smoothed.label.upper())
    row = styled(f"{name:9}", f"bold {colour[smoothed.label]}")
    row.append(f" {smoothed.scores[smoothed.label]:4.0%}  ", "bold")
    held = _held(view)
    if (cells := width - row.cell_len - 2 - len(held)) >= 8:
        row.append_text(stack(look, smoothed.scores, cells, colour)).append("  ")
    return crop(row.append(held, "dim"), width)


def history(view: SourceView, label: Label, look: Look, width: int, rows: int) -> list[Text]:
    """The last minute in `rows` rows: the smoothed label, then the raw one, then areas of scores."""
    colour, slots, hop_s = colours(label.scores), view.slots(), view.hop_s
    slots = [slot if slot and slot.scores.keys() <= colour.keys() else None for slot in slots]
    captions = ("scores   ", "label    ", "raw      ") if width >= 50 else ("", "", "")
    cells = width - len(captions[0]) - 5
    per_minute = math.ceil(HISTORY_S / hop_s - 1e-6) if hop_s else 0
    # Two hops share a cell only where a cell for each would show less than 45 s.
    share = 2 if look.halves and per_minute * 0.75 > cells else 1
    cells = min(cells, -(-per_minute // 2)) if share == 2 else cells
    slots = slots[-share * cells :]
    span = f" {len(slots) * hop_s:2.0f} s" if hop_s else ""
    if share == 2 and view.hops[-1].window_id // view.hop_ids % 2 == 0:
        slots = [*slots, None]  # pairs stay pairs as they move left
    out = []
    if look.halves and rows > 3:
        values = [slot.scores if slot else None for slot in slots]
        picture = areas(values, share, cells, rows - 3, colour)
        for k, row in enumerate(picture):
            out.append(styled(" " * len(captions[0]) if k else captions[0], "dim").append_text(row))
        out.append(styled(""))
    smoothed = strip(
        look, [slot.smoothed if slot else None for slot in slots], share, cells, colour
    )
    out.append(styled(captions[1], "dim").append_text(smoothed).append(span, "dim"))
    if rows > 1:
        raw = strip(look, [slot.label if slot else None for slot in slots], share, cells, colour)
        out.append(styled(captions[2], "dim").append_text(raw))
    return [crop(row, width) for row in out]


def line(view: SourceView, label: Label, look: Look, width: int) -> Text:
    """Label, latency and history in what is left of a single row."""
    smoothed, colour = label.smoothed, colours(label.scores)
    row = styled(f"{look.clean(smoothed.label.upper()):9}", f"bold {colour[smoothed.label]}")
    row.append(f" {smoothed.scores[smoothed.label]:4.0%}")
    row.append(f" {label.latency_ms.total:5.0f} ms  ", "dim")
    if (cells := min(60, width - row.cell_len)) >= 8:
        slots = [s.smoothed if s and s.smoothed in colour else None for s in view.slots()]
        row.append_text(strip(look, slots, 1, cells, colour))
    return crop(row, width)


def colours(labels: Iterable[str]) -> dict[str, str]:
    """The palette with its darkest colours lightened until they stand out from a dark terminal."""
    return {label: _lightened(colour) for label, colour in palette(labels).items()}


@functools.cache
def _lightened(colour: str) -> str:
    channels = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    while _luminance(channels) < _LEAST_LUMINANCE:
        channels = [0.95 * channel + 0.05 for channel in channels]
    return "#" + "".join(f"{round(255 * channel):02x}" for channel in channels)


def _luminance(channels: list[float]) -> float:
    """Relative luminance of sRGB in [0, 1] (WCAG 2.2, without its linear toe)."""
    red, green, blue = (channel**2.2 for channel in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _bars(label: Label, look: Look, width: int) -> list[Text]:
    """Name, bars, smoothed and raw percentage of every label, or of the most probable of many."""
    colour, letters = colours(label.scores), initials(label.scores)
    smoothed = label.smoothed.scores
    top = sorted(smoothed, key=smoothed.__getitem__, reverse=True)[:_MAX_BARS]
    names = {name: look.clean(name) for name in label.scores if name in top}
    name_cells = min(max(map(cell_len, names.values())), max(8, width // 3))
    out = []
    for name, shown in names.items():
        style = "bold" if name == label.smoothed.label else ""
        row = styled("" if look.halves else f"{letters[name]} ", "dim")
        row.append_text(pad(styled(shown, style), name_cells + 1))
        if (cells := width - row.cell_len - 10) >= 4:
            row.append_text(bar(look, smoothed[name], label.scores[name], cells, colour[name]))
        row.append(f" {smoothed[name]:4.0%}", style).append(f" {label.scores[name]:4.0%}", "dim")
        out.append(crop(row, width))
    return out


def _held(view: SourceView) -> str:
    return f"for {clock(view.held_s)}"


def clock(seconds: float) -> str:
    """12 s, 3:05 or 1:00:00."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, hours = whole // 60, whole // 3600
    if not hours:
        return f"{minutes}:{whole % 60:02d}"
    return f"{hours}:{minutes % 60:02d}:{whole % 60:02d}"
