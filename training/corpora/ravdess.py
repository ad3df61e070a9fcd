"""RAVDESS (Livingstone and Russo 2018): 24 actors, speech and song, eight emotions.

    Actor_XX/MM-VC-EM-IN-ST-RE-AC.mp4      here or in any folder below

Taken are audio-visual speech clips (MM = 01, VC = 01). RAVDESS publishes no split; the folds are
the speaker-disjoint ones of Luna-Jiménez et al. (2021).
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from emostream.labels import CORPUS_LABELS
from training.corpora.candidates import Candidate, ClipFinder, Options, Skipped, corpus_label
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
    """Yield the audio-visual speech clips; the actors of `options.fold` are the test set.

    Raises:
        ConfigError: A file's emotion code is unknown.
    """
    for path in ClipFinder(folder, options):
        match = _NAME.fullmatch(path.stem)
        if match is None:
            yield Skipped(path.name, "not named as RAVDESS names its files")
            continue
        modality, channel, emotion, intensity, statement, repetition, actor = match.groups()
        if modality != "01":
            yield Skipped(path.name, _MODALITIES.get(modality, f"modality {modality}"))
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
