"""What the language model is shown of people: faces and speech.

What a face does is told by the head that learned it of actors, of units alone that are shown to hold on people
(`people_faces.transferred`); where none of them is marked, nothing is said.

Half of the speech is stretches, cut at random from an utterance, a little silence with it, so that neither its length
nor the silence around it tells its label; half is utterances as they were recorded, with all their silence. What a
voice does is measured by Praat against the speaker's mean over all that was heard of him; of dimensions that say
nothing in a corpus, nothing is said.
"""

import csv
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from emostream.labels import DEFAULT_LABELS
from training.claims.measure import Baseline, VoiceMeasures
from training.data.cues import Cues, Informative
from training.data.manifest import Row
from training.recipe.people_faces import FaceProbe, Faces
from training.recipe.voice_data import Voices, corpus_of
from training.synth.acting import ACTION_UNITS

#: Dimensions whose sign on acted voices is that of the literature (`benchmarks/results/voices.json`).
TOLD: Final = ("pitch", "pitch_range", "loudness", "tension")
#: A corpus in which clips of a speaker differ in level by less, in dB, was brought to one level (ASED 4.3, RAVDESS 8.2;
#: nEMO, which was, 2.9).
LEAST_LEVEL_SPREAD_DB: Final = 3.5
#: Fewest clips of a speaker that give a mean to measure against.
LEAST_CLIPS: Final = 8
#: Seconds of a speaker's other utterances that have been heard before.
HEARD_S: Final = (0.0, 5.0, 30.0, 120.0)
SHORTEST_S, LONGEST_S = 1.0, 4.0
SILENCE_S: Final = 0.4


def drawn_faces(rows: Sequence[Row], count: int, rng: np.random.Generator) -> list[Row]:
    """Some faces whose label is one of ours, rare labels more often than they are.

    Args:
        rows: Stills.
        count: How many; all if there are fewer.
        rng: Draws them, each at most once.
    """
    known = [row for row in rows if row.label in DEFAULT_LABELS]
    of = [DEFAULT_LABELS.index(str(row.label)) for row in known]
    weight = 1 / np.sqrt(np.bincount(of, minlength=len(DEFAULT_LABELS))[of])
    chosen = rng.choice(len(known), min(count, len(known)), replace=False, p=weight / weight.sum())
    return [known[place] for place in chosen]


def neutral_talkers(table: Path) -> list[Row]:
    """People who say a sentence as it is, seen and heard (GRID), of a table with path, source and label.

    Whatever a model calls them but neutral is a false alarm.
    """
    if not table.is_file():
        return []
    with table.open(encoding="utf-8", newline="") as file:
        return [
            Row(path=table.parent / line["path"], label="neutral", split="test")
            for line in csv.DictReader(file)
            if line["source"] == "grid" and line["label"] == "neutral"
        ]


def face_cues(probe: FaceProbe, faces: Faces, told: Collection[str]) -> list[Cues | None]:
    """What each face does, of the units that can be told; None where none of them is marked."""
    values = probe.acts(faces.pixels).clamp(0, 1).numpy()
    out: list[Cues | None] = []
    for found in values:
        face = {unit: round(float(found[ACTION_UNITS.index(unit)]), 3) for unit in told}
        cues = Cues(face, {}, Informative(True, False))
        out.append(cues if cues.salient() else None)
    return out


def stretches(
    voices: Voices, chosen: Sequence[int], cues: Mapping[int, Cues], rng: np.random.Generator
) -> list[Row]:
    """A stretch of each of some utterances, what its voice does, and how much of the speaker was heard before it."""
    rows = []
    for index in chosen:
        row, (begin_s, end_s) = voices.rows[index], voices.bounds_s[index]
        length_s = min(LONGEST_S, (end_s - begin_s) * rng.uniform(0.7, 1.0))
        length_s = max(length_s, min(SHORTEST_S, end_s - begin_s))
        start_s = begin_s + rng.uniform(0, end_s - begin_s - length_s)
        before_s, behind_s = rng.uniform(0, SILENCE_S, 2)
        rows.append(
            replace(
                row,
                start_s=round(max(0.0, start_s - before_s), 3),
                end_s=round(min(voices.lengths_s[index], start_s + length_s + behind_s), 3),
                cues=cues.get(index),
                heard_s=float(rng.choice(HEARD_S)),
            )
        )
    return rows


def recorded(
    voices: Voices, chosen: Sequence[int], cues: Mapping[int, Cues], rng: np.random.Generator
) -> list[Row]:
    """Likewise, each as it was recorded."""
    return [
        replace(voices.rows[index], cues=cues.get(index), heard_s=float(rng.choice(HEARD_S)))
        for index in chosen
    ]


def voice_cues(voices: Voices) -> dict[int, Cues]:
    """What the voice of each utterance does, against the speaker's mean over all of them."""
    people: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index, row in enumerate(voices.rows):
        if voices.measures[index] is not None:
            people[corpus_of(row), str(row.actor)].append(index)
    spread: dict[str, list[float]] = defaultdict(list)
    for (corpus, _), own in people.items():
        spread[corpus].append(float(np.std([_of(voices, index).loudness for index in own])))
    cues = {}
    for (corpus, _), own in people.items():
        if len(own) < LEAST_CLIPS:
            continue
        levelled = np.mean(spread[corpus]) < LEAST_LEVEL_SPREAD_DB
        told = [name for name in TOLD if not (levelled and name == "loudness")]
        baseline = Baseline.of([_of(voices, index) for index in own])
        for index in own:
            found = baseline.cues(_of(voices, index))
            voice = {name: round(found[name], 3) for name in told}
            cues[index] = Cues({}, voice, Informative(False, True))
    return cues


def _of(voices: Voices, index: int) -> VoiceMeasures:
    measures = voices.measures[index]
    assert measures is not None
    return measures
