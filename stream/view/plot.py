"""A recording as a figure: scores over time, label changes, reasons, health of the modalities."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

from emostream.errors import ConfigError
from stream.pubsub.messages import Label, Reasoning
from stream.pubsub.recording import RecordingError, read
from stream.view.figure import STYLE, Track, draw

FORMATS = (".png", ".svg", ".pdf")


def plot(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    source: str | None = None,
    reasons: int = 4,
    dpi: int = 300,
) -> None:
    """Draw a recording into a PNG, SVG or PDF file.

    Each source (and session) gets a block: reasons above, tied to their moment; the smoothed label
    as a strip whose changes run through the figure; the raw scores of each window as stacked areas
    at the window's end, broken where windows are missing; stretches with nobody visible are
    shaded; and the health of both modalities.

    Args:
        path: recording as written by `emostream record` or `emostream infer`.
        out: file to write; its suffix chooses the format.
        source: draw this source alone.
        reasons: at most so many explanations a block, those at label changes first; 0 for none.
        dpi: resolution of a PNG.

    Raises:
        RecordingError: the recording cannot be read, or has no label to draw, or `out` cannot be
            written.
        ConfigError: the format is unknown, or matplotlib is not installed.
    """
    out = Path(out)
    if out.suffix.lower() not in FORMATS:
        raise ConfigError(f"plot writes {', '.join(FORMATS)}; got {out.name!r}")
    try:
        import matplotlib
    except ModuleNotFoundError as error:
        raise ConfigError("plot needs matplotlib: pip install matplotlib") from error
    tracks = load_tracks(path, source)
    with matplotlib.rc_context(STYLE):
        figure = draw([(track, choose_reasons(track, reasons)) for track in tracks])
        # No date in the file: the same recording gives the same bytes.
        undated = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
        try:
            figure.savefig(out, dpi=dpi, metadata=undated.get(out.suffix.lower()))
        except OSError as error:
            raise RecordingError(f"cannot write {out}: {error.strerror}") from error


def load_tracks(path: str | os.PathLike[str], source: str | None = None) -> list[Track]:
    """Tracks of a recording in order of appearance.

    Raises:
        RecordingError: the recording cannot be read, or has no label (of `source`).
    """
    found: dict[tuple[str, str], tuple[list[Label], list[Reasoning]]] = {}
    seen: dict[tuple[str, str], list[tuple[float, bool]]] = {}
    for event in read(path):
        if source in (None, event.source):
            labels, reasonings = found.setdefault((event.source, event.session), ([], []))
            if not isinstance(event, Reasoning) and event.people is not None:
                empty = event.people == 0
                seen.setdefault((event.source, event.session), []).append(
                    (event.timestamp_s, empty)
                )
            if isinstance(event, Label):
                labels.append(event)
            elif isinstance(event, Reasoning) and event.done and event.think.strip():
                reasonings.append(event)
    tracks = [
        Track(
            name,
            session,
            sorted(labels, key=lambda label: label.timestamp_s),
            sorted(reasonings, key=lambda reasoning: reasoning.timestamp_s),
            _nobody(sorted(seen.get((name, session), []))),
        )
        for (name, session), (labels, reasonings) in found.items()
        if labels
    ]
    if not tracks:
        raise RecordingError(
            f"{path} holds no label messages" + (f" of source {source!r}" if source else "")
        )
    return tracks


def _nobody(seen: list[tuple[float, bool]]) -> list[tuple[float, float]]:
    """Stretches with nobody visible; a message speaks of the time since the one before it."""
    out: list[tuple[float, float]] = []
    for (before_s, before), (time_s, empty) in pairwise([*seen[:1], *seen]):
        if empty and before and out:
            out[-1] = (out[-1][0], time_s)
        elif empty:
            out.append((before_s, time_s))
    return out


def choose_reasons(track: Track, limit: int) -> list[Reasoning]:
    """At most `limit` explanations, in order of time.

    Those that follow a change of the smoothed label come first, then those that fill the widest
    gaps between the ones chosen.
    """
    changes_s = [
        b.timestamp_s for a, b in pairwise(track.labels) if a.smoothed.label != b.smoothed.label
    ]
    chosen: list[Reasoning] = []
    for change_s in changes_s:
        after = [r for r in track.reasonings if r.timestamp_s >= change_s]
        if after and after[0] not in chosen:
            chosen.append(after[0])
    chosen = _spread(chosen, limit)
    left = [reasoning for reasoning in track.reasonings if reasoning not in chosen]
    while left and len(chosen) < limit:
        next_one = max(left, key=lambda r: min((_apart(r, c) for c in chosen), default=0.0))
        left.remove(next_one)
        chosen.append(next_one)
    return sorted(chosen, key=lambda reasoning: reasoning.timestamp_s)


def _spread(items: list[Reasoning], limit: int) -> list[Reasoning]:
    """`limit` of `items`, evenly by rank."""
    if len(items) <= limit:
        return items
    return [items[round(k * (len(items) - 1) / max(1, limit - 1))] for k in range(limit)]


def _apart(a: Reasoning, b: Reasoning) -> float:
    return abs(a.timestamp_s - b.timestamp_s)
