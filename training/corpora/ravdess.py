"""RAVDESS (Livingstone and Russo 2018): 24 actors, speech and song, eight emotions.

    Actor_XX/MM-VC-EM-IN-ST-RE-AC.mp4 (.wav)      here or in any folder below

Taken are clips of speech (VC = 01): of what was filmed the audio-visual one (MM = 01), and sound alone (03) or
pictures alone (02) where that one is not there, as in the parts of the corpus that hold nothing else. RAVDESS publishes
no split; the folds are the speaker-disjoint ones of Luna-Jiménez et al. (2021).
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from emostream.labels import CORPUS_LABELS
from training.corpora.candidates import Candidate, Options, Skipped, corpus_label
from training.corpora.clips import ClipFinder
from training.data.manifest import Row

FOLDS: Final = (
    (2, 5, 14, 15, 16),
    (3, 6, 7, 13, 18),
    (10, 11, 12, 19, 20),
    (8, 17, 21, 23, 24),
    (1, 4, 9, 22),
)
_NAME: Final = re.compile(r"(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)")
_MODALITIES: Final = {"01": "audio-visual", "02": "video only", "03": "audio only"}
_CHANNELS: Final = {"01": "speech", "02": "song"}


def read(folder: Path, options: Options) -> Iterator[Candidate]:
    """Yield the speech clips; the actors of `options.fold` are the test set.

    Raises:
        ConfigError: A file's emotion code is unknown.
    """
    clips = ClipFinder(folder, options)
    paths = list(clips)
    names = {path.stem for path in paths}
    for path in paths:
        match = _NAME.fullmatch(path.stem)
        if match is None:
            yield Skipped(path.name, "not named as RAVDESS names its files")
            continue
        modality, channel, emotion, intensity, statement, repetition, actor = match.groups()
        if modality not in _MODALITIES:
            yield Skipped(path.name, f"modality {modality}")
        elif modality != "01" and f"01{path.stem[2:]}" in names:
            yield Skipped(path.name, f"{_MODALITIES[modality]} of a clip that is here with both")
        elif channel != "01":
            yield Skipped(path.name, _CHANNELS.get(channel, f"channel {channel}"))
        else:
            test = int(actor) in FOLDS[options.fold - 1]
            yield Row(
                path=path,
                label=corpus_label(emotion, CORPUS_LABELS["ravdess"], str(path)),
                split="test" if test else "train",
                actor=actor,
                meta={
                    "intensity": "strong" if intensity == "02" else "normal",
                    "statement": int(statement),
                    "repetition": int(repetition),
                },
            )
    yield from clips.left_out
