"""What is known of an actor's voice before a clip: statistics of as much of his other clips as the row says.

A row's `heard_s` asks for it; the other clips are drawn at random, the same for the same row, until they hold as many
seconds of speech or there are no more.
"""

import logging
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from emostream.errors import ConfigError
from emostream.model.configuration import EmostreamConfig
from emostream.people.voice_baseline import VoiceBaseline
from training.data.manifest import Key, Row, clip_key

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Voice:
    """What a clip tells of its actor's voice.

    Attributes:
        moments: (2, E) float32, mean and variance over speech of features that are standardised over everybody.
        spoken_s: Seconds of speech.
    """

    moments: Tensor
    spoken_s: float


class HeardBefore:
    """The baseline of each row's actor; each is worked out once.

    Args:
        rows: All clips; those of one actor tell of each other.
        voice_of: What a row's clip tells; None if it has no sound.
    """

    def __init__(self, rows: Iterable[Row], voice_of: Callable[[Row], Voice | None]):
        self._voice_of = voice_of
        self._voices: dict[Key, Voice | None] = {}
        self._clips: dict[str, dict[Key, Row]] = {}
        self._said = False
        self._found: dict[tuple[Key, float], VoiceBaseline] = {}
        for row in rows:
            if row.actor is not None and not row.is_still:
                self._clips.setdefault(row.actor, {}).setdefault(clip_key(row), row)

    def baseline(self, row: Row) -> VoiceBaseline:
        """Of the row's actor before this clip; empty if nothing is to have been heard, or nothing else is there."""
        key = clip_key(row), row.heard_s
        if key not in self._found:
            self._found[key] = self._baseline(row)
        return self._found[key]

    def _baseline(self, row: Row) -> VoiceBaseline:
        person, own = VoiceBaseline(), clip_key(row)
        if not row.heard_s or row.actor is None:
            return person
        others = [other for key, other in self._clips.get(row.actor, {}).items() if key != own]
        seed = zlib.crc32(f"{row.path.name} {row.start_s}".encode(errors="backslashreplace"))
        voices: list[Voice] = []
        for place in np.random.default_rng(seed).permutation(len(others)):
            if sum(voice.spoken_s for voice in voices) >= row.heard_s:
                break
            voice = self._voice(others[place])
            if voice is not None and voice.spoken_s:
                voices.append(voice)
        if voices:
            spoken_N = torch.tensor([voice.spoken_s for voice in voices])
            share_N1 = (spoken_N / spoken_N.sum())[:, None]
            means_NE, variances_NE = torch.stack([voice.moments for voice in voices], 1)
            mean_E = (share_N1 * means_NE).sum(0)
            variance_E = (share_N1 * (variances_NE + (means_NE - mean_E) ** 2)).sum(0)
            person.add(mean_E, variance_E, float(spoken_N.sum()))
        if person.heard_s < row.heard_s and not self._said:
            self._said = True
            logger.warning(
                "%s: other clips of its actor hold %.1f s of speech, %g s are to have been heard; such clips make do",
                row.name,
                person.heard_s,
                row.heard_s,
            )
        return person

    def _voice(self, row: Row) -> Voice | None:
        key = clip_key(row)
        if key not in self._voices:
            self._voices[key] = self._voice_of(row)
        return self._voices[key]


def check_heard(config: EmostreamConfig, rows: Sequence[Row]) -> None:
    """Refuse rows that want an actor to be known to a model that knows nobody; say where too little is there.

    Args:
        config: The model's.
        rows: All clips.

    Raises:
        ConfigError: Its audio tower is not standardised, or no row names its actor.
    """
    asking = [row for row in rows if row.heard_s and not row.is_still]
    if not asking:
        return
    if not config.standardises_voices:
        raise ConfigError(
            f"heard_s: {asking[0].name} wants its actor to have been heard for {asking[0].heard_s:g} s, of which this "
            "model's audio tower makes nothing: it is not standardised. Leave heard_s out."
        )
    if all(row.actor is None for row in asking):
        raise ConfigError(
            f"heard_s: none of {len(asking)} rows says who its actor is, so nobody can have been heard before. Name "
            "actors in the manifest, or leave heard_s out."
        )
