"""Events of a file as stretches of its media clock, which annotation programs draw on tiers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from stream.annotate.results import Run
from stream.pubsub.messages import Event, Label, Reasoning

#: As the tiers are called in ELAN and Praat.
LABELS, REASONS = "emotion", "reasons"


def runs(events: Iterable[Event], hop_s: float, duration_s: float) -> list[Run]:
    """Stretches of the rolling label. A label speaks of the hop up to its window's end, the first of its whole window.

    Args:
        events: Of one file, in order.
        hop_s: Seconds from one window to the next.
        duration_s: Where the file ends, and so the last stretch at the latest.
    """
    out: list[Run] = []
    for label in (event for event in events if isinstance(event, Label)):
        end_s = min(label.window.end_s, duration_s)
        start_s = max(0.0, label.window.start_s if not out else label.window.end_s - hop_s)
        before = out[-1] if out else None
        if before is not None and start_s - before.end_s < hop_s / 2:
            start_s = before.end_s  # no window is missing in between
            if before.label == label.smoothed.label:
                start_s = out.pop().start_s
        if start_s < end_s:
            out.append(Run(start_s, end_s, label.smoothed.label))
    return out


def reasons(events: Iterable[Event], duration_s: float) -> list[Run]:
    """Explanations over the windows that they explain, less what the one before covers: tiers allow no overlap."""
    out: list[Run] = []
    for reasoning in (event for event in events if isinstance(event, Reasoning)):
        start_s = max(0.0, reasoning.window.start_s, out[-1].end_s if out else 0.0)
        end_s = min(reasoning.window.end_s, duration_s)
        if start_s < end_s:
            out.append(Run(start_s, end_s, f"{reasoning.answer}: {reasoning.think}"))
    return out


def shares(stretches: Sequence[Run]) -> dict[str, float]:
    """Share of the labelled time by label, the largest first."""
    seconds: dict[str, float] = {}
    for run in stretches:
        seconds[run.label] = seconds.get(run.label, 0.0) + run.end_s - run.start_s
    total_s = sum(seconds.values())
    return {
        label: own_s / total_s
        for label, own_s in sorted(seconds.items(), key=lambda item: (-item[1], item[0]))
    }
