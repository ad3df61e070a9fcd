"""CREMA-D (Cao et al. 2014): 91 actors, twelve sentences, six emotions.

    VideoFlash/1019_DFA_ANG_XX.flv (AudioWAV/….wav, AudioMP3/….mp3)    here or in any folder below

Of a clip in several formats the video is taken. CREMA-D publishes no split; here every fifth actor
in order of number is in the test set of a fold, so that no speaker is in both.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from emostream.labels import CORPUS_LABELS
from training.corpora.candidates import Candidate, Options, Skipped, corpus_label
from training.corpora.clips import ClipFinder
from training.data.manifest import Row

_NAME: Final = re.compile(r"(\d{4})_([A-Z]{3})_([A-Z]{3})_([A-Z]{2})")
_INTENSITIES: Final = {"LO": "low", "MD": "medium", "HI": "high", "XX": "unspecified"}
FIRST_ACTOR: Final = 1001


def read(folder: Path, options: Options) -> Iterator[Candidate]:
    """Yield the clips; every fifth actor, from `options.fold` on, is in the test set.

    Raises:
        ConfigError: A file's emotion code is unknown.
    """
    clips = ClipFinder(folder, options)
    for path in clips:
        match = _NAME.fullmatch(path.stem)
        if match is None:
            yield Skipped(path.name, "not named as CREMA-D names its files")
            continue
        actor, sentence, emotion, intensity = match.groups()
        test = (int(actor) - FIRST_ACTOR) % 5 == options.fold - 1
        yield Row(
            path=path,
            label=corpus_label(emotion, CORPUS_LABELS["crema-d"], str(path)),
            split="test" if test else "train",
            actor=actor,
            meta={"sentence": sentence, "intensity": _INTENSITIES.get(intensity, intensity)},
        )
    yield from clips.left_out
