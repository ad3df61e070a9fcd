"""Events of a file as stretches of its media clock, which annotation programs draw on tiers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from msgspec import structs

from stream.annotate.results import Run
from stream.pubsub.messages import Event, Label, Reasoning, in_words

if TYPE_CHECKING:
    from emostream.people.presence import Scene

#: As the tiers are called in ELAN and Praat.
LABELS, REASONS, PEOPLE, SPEECH = "emotion", "reasons", "people", "speech"
#: Said of grid frames in which nobody is visible, and of stretches with speech.
NOBODY, SPOKEN = "nobody", "speech"
#: Pauses that are part of speech, and the shortest speech, in seconds.
PAUSE_S, WORD_S = 0.3, 0.1


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
        # Windows of the beginning may have no label, if nobody was there.
        first = not out and label.window.start_s < hop_s
        start_s = max(0.0, label.window.start_s if first else label.window.end_s - hop_s)
        before = out[-1] if out else None
        if before is not None and start_s - before.end_s < hop_s / 2:
            start_s = before.end_s  # no window is missing in between
            if before.label == label.smoothed.label:
                start_s = out.pop().start_s
        if start_s < end_s:
            out.append(Run(start_s, end_s, label.smoothed.label))
    return out


def people(scenes: Iterable[Scene], step_s: float, duration_s: float) -> list[Run]:
    """Stretches over which as many are visible. A grid frame speaks of the step up to it.

    Args:
        scenes: Of grid frames, in order.
        step_s: Their usual distance in seconds.
        duration_s: Where the file ends.
    """
    out: list[Run] = []
    for scene in scenes:
        count = scene.people
        said = NOBODY if not count else "1 person" if count == 1 else f"{count} people"
        if any(person is not None and person.too_small for person in scene.shown):
            said += ", face too small"
        before = out[-1] if out else None
        start_s, end_s = max(0.0, scene.time_s - step_s), min(scene.time_s, duration_s)
        if before is not None and start_s - before.end_s < step_s:
            start_s = before.end_s
            if before.label == said:
                start_s = out.pop().start_s
        elif before is None and start_s < step_s:
            start_s = 0.0
        if start_s < end_s:
            out.append(Run(start_s, end_s, said))
    if out and duration_s - out[-1].end_s < step_s:
        out[-1] = structs.replace(out[-1], end_s=duration_s)
    return out


def speech(spoken_s: Iterable[tuple[float, float]]) -> list[Run]:
    """Stretches of speech, short pauses included.

    Args:
        spoken_s: In order, as they were found; they may overlap.
    """
    out: list[Run] = []
    for start_s, end_s in spoken_s:
        if out and start_s - out[-1].end_s < PAUSE_S:
            start_s, end_s = out[-1].start_s, max(end_s, out.pop().end_s)
        out.append(Run(start_s, end_s, SPOKEN))
    return [run for run in out if run.end_s - run.start_s >= WORD_S]


def seconds(stretches: Iterable[Run]) -> float:
    """How long they are together."""
    return sum(run.end_s - run.start_s for run in stretches)


def reasons(events: Iterable[Event], duration_s: float) -> list[Run]:
    """Explanations over the windows that they explain, less what the one before covers: tiers allow no overlap."""
    out: list[Run] = []
    for reasoning in (event for event in events if isinstance(event, Reasoning)):
        start_s = max(0.0, reasoning.window.start_s, out[-1].end_s if out else 0.0)
        end_s = min(reasoning.window.end_s, duration_s)
        if start_s < end_s:
            out.append(Run(start_s, end_s, in_words(reasoning)))
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
