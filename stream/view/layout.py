"""The whole view as rows of text: a panel for each source, smaller the more there are, and a footer."""

from __future__ import annotations

from typing import Final

from rich.text import Text

from stream.view import scores, words
from stream.view.look import Look
from stream.view.marks import crop, pad, spread, styled, wrap
from stream.view.state import Link, SourceView, ViewState
from stream.windows.person_names import person_of

MAX_WIDTH: Final = 120
"""Wider terminals keep their right side empty: longer rows of text are hard to read."""

_PANEL_ROWS: Final = 5  # below, every source is a single row
_MAX_AREA_ROWS: Final = 8
_STATES: Final = {
    "starting": "cyan",
    "live": "green",
    "degraded": "yellow",
    "lost": "bold red",
    "stopped": "bold",
}


def frame(
    state: ViewState,
    link: Link | None,
    look: Look,
    width: int,
    height: int,
    *,
    footer: bool = True,
) -> list[Text]:
    """At most `height` rows of at most `width` cells.

    Args:
        state: what has been received.
        link: the connection; None where there is none to speak of, as in a picture.
        look: what the terminal can show.
        width: cells.
        height: rows.
        footer: whether the last row tells of the connection.
    """
    width = min(width, MAX_WIDTH)
    foot = [_footer(link, look, width)] if link is not None and footer else []
    room = max(0, height - len(foot))
    views = list(state.sources.values())
    if not views:
        rows = _nobody(link, look, width)
    elif room // len(views) >= _PANEL_ROWS and width >= 20:
        share, more = divmod(room, len(views))
        rows = []
        for number, view in enumerate(views):
            rows += panel(view, link, look, width, share + (number < more))
    else:
        rows = [_line(view, link, look, width) for view in views]
        if 2 * len(rows) <= room:
            rows = [row for line in rows for row in (line, styled(""))]
        if len(rows) > room:
            others = len(rows) - room + 1
            rows = [*rows[: max(0, room - 1)], styled(f"and {others} more sources", "dim")]
    rows = rows[:room]
    rows += [styled("")] * (room - len(rows))
    return [crop(row, width) for row in rows + foot][:height]


def panel(view: SourceView, link: Link | None, look: Look, width: int, height: int) -> list[Text]:
    """One source in a frame, exactly `height` rows of `width` cells."""
    condition, style = _condition(view, link)
    note = styled("")
    if view.label is not None:
        note.append(f" {look.clean(view.label.model)} ").append(look.fit("·"), "dim")
    note.append(f" {condition} ", style)
    side = styled(look.fit("│"), "dim")
    title = styled(f" {view.name} ", "bold")
    if view.presence is not None and (person := person_of(view.name)) is not None:
        title.append(f"person {person[1]} of {person[0]} ", "dim")
    out = [_edge(look, ("╭", "╮"), title, note, width)]
    for row in _body(view, look, width - 4, height - 2):
        body = pad(row, width - 4)
        if condition != view.state or view.away:
            body.stylize("dim")
        out.append(styled("").append_text(side).append(" ").append_text(body).append(" "))
        out[-1].append_text(side)
    return [*out, _edge(look, ("╰", "╯"), styled(""), styled(""), width)]


def _body(view: SourceView, look: Look, width: int, height: int) -> list[Text]:
    label = view.label
    bottom = words.health(view, look, width)
    if label is None:
        top = words.waiting(view, look, width)
    else:
        # What a panel cannot do without besides the head: a row of history, an answer with two of
        # its reasons, two rows of health. A row more or less of health must not change the head.
        top = scores.head(view, label, look, width)
        least = 1 + 3
        if height < len(top) + least + 2:
            top = [scores.compact_head(view, label, look, width)]
        bottom = bottom[: max(1, height - len(top) - least)]
        # More rows go to the reasons first, then to raw history and blank rows, then to areas.
        spare = height - len(top) - 1 - len(bottom)
        history_rows = 1 + (spare >= 5)
        gaps = [[styled("")] if spare >= least else [] for least in (7, 6, 8)]
        area_rows = min(_MAX_AREA_ROWS, (spare - 10) // 2)
        if look.halves and area_rows >= 3:
            history_rows += area_rows + 1
        top += gaps[0] + scores.history(view, label, look, width, history_rows) + gaps[1]
        bottom = gaps[2] + bottom
        top += words.reasons(view, look, width, height - len(top) - len(bottom))
    top = top[: max(0, height - len(bottom))]
    return (top + [styled("")] * (height - len(top) - len(bottom)) + bottom)[:height]


def _line(view: SourceView, link: Link | None, look: Look, width: int) -> Text:
    condition, style = _condition(view, link)
    row = styled(f"{view.name:8} ", "bold").append(f"{condition:9} ", style)
    if view.away and view.presence is not None:
        row.append(look.clean(words.presence(view.presence)), "yellow")
    elif view.label is not None:
        row.append_text(scores.line(view, view.label, look, max(0, width - row.cell_len)))
    return row


def _condition(view: SourceView, link: Link | None) -> tuple[str, str]:
    """State of a source as far as it can be known, and its style."""
    if link is not None and view.state != "stopped":
        if not link.connected:
            return "no connection", "bold red"
        if view.name in link.silent_s:
            return f"silent for {link.silent_s[view.name]} s", "bold red"
    return view.state, _STATES[view.state]


def _edge(look: Look, corners: tuple[str, str], title: Text, note: Text, width: int) -> Text:
    left, right = (look.fit(corner) for corner in corners)
    dash = look.fit("─")
    title = crop(title, width - 4)
    note = crop(note, max(0, width - 4 - title.cell_len))
    row = styled(left + dash, "dim").append_text(title)
    row.append(dash * (width - 4 - title.cell_len - note.cell_len), "dim")
    return row.append_text(note).append(dash + right, "dim")


def _nobody(link: Link | None, look: Look, width: int) -> list[Text]:
    if link is None:
        return [styled("No events.", "dim")]
    whom = "a source" if link.source is None else link.source
    if link.connected:
        head, hint = f"Connected to {link.endpoint}", f"Waiting for {whom} to publish."
    elif link.connections:
        head, hint = f"Lost the connection to {link.endpoint}", "Trying to connect again."
    else:
        head = f"Waiting for a publisher on {link.endpoint}"
        hint = "Start one with: emostream run"
    rows = [styled(row, "bold") for row in wrap(head, max(1, width - 2))]
    rows += [styled(row, "dim") for row in wrap(hint, max(1, width - 2))]
    return [styled(""), *(styled("  ").append_text(row) for row in rows)]


def _footer(link: Link, look: Look, width: int) -> Text:
    if link.connected:
        left = styled(f" {link.endpoint}", "dim")
    elif link.connections:
        left = styled(f" lost the connection to {link.endpoint}, trying again", "bold red")
    else:
        left = styled(f" waiting for {link.endpoint}", "cyan")
    if link.notice:
        left = styled(" ").append(look.clean(link.notice), "yellow")
    return spread(crop(left, width, look.fit("…")), styled("Ctrl-C ends ", "dim"), width)
