"""Cues: what can be seen and heard in a clip, as numbers that a sentence can be checked against.

A manifest row carries them as JSON:

    {"face": {"AU1": 0.0, "AU12": 0.8}, "voice": {"pitch": 1.2, "rate": -0.4},
     "informative": {"video": true, "audio": true}}

- `face`: FACS action unit -> intensity at the apex in [0, 1]; the FACS grades A to E (trace,
  slight, marked, severe, maximum) are its fifths. Expression only: lips that move to speak are not
  in it.
- `voice`: dimension -> signed deviation from the speaker's own neutral speech, in units of the
  speaker's own standard deviation.
- `informative`: whether a modality tells anything about the emotion.

What is evident is recorded, not what was intended. An action unit that is known to be at rest is
recorded as 0.0; an absent key was not recorded, and a claim about it cannot be verified. A modality
with nothing to see or hear (a hidden face, silence, noise alone) has an empty mapping and is not
informative: then every claim about it is false, except that it is hidden or silent.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Literal, get_args

from emostream.errors import ConfigError

Modality = Literal["face", "voice"]
"""Where a sign of emotion shows. `informative` and the rest of the project say `video` and `audio`, the streams."""

FACE_UNITS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "AU1": "inner brow raiser",
        "AU2": "outer brow raiser",
        "AU4": "brow lowerer",
        "AU5": "upper lid raiser",
        "AU6": "cheek raiser",
        "AU7": "lid tightener",
        "AU9": "nose wrinkler",
        "AU10": "upper lip raiser",
        "AU12": "lip corner puller",
        "AU14": "dimpler",
        "AU15": "lip corner depressor",
        "AU17": "chin raiser",
        "AU20": "lip stretcher",
        "AU23": "lip tightener",
        "AU24": "lip pressor",
        "AU25": "lips part",
        "AU26": "jaw drop",
        "AU27": "mouth stretch",
        "AU43": "eyes closed",
        "AU54": "head down",
        "AU64": "eyes down",
    }
)
"""FACS action units (Ekman, Friesen and Hager 2002) that cues may record."""

VOICE_DIMENSIONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "pitch": "mean fundamental frequency, in semitones before standardising",
        "pitch_range": "spread of the fundamental frequency: + varied, - flat",
        "loudness": "mean level of the voiced parts, dB",
        "rate": "syllables a second of speech, pauses left out",
        "pauses": "share of the utterance that is silent: + halting, - fluent",
        "breathiness": "noise in the voice: + breathy, - clear",
        "tension": "flatness of the spectral tilt: + tense, bright, pressed; - lax, mellow",
        "tremor": "cycle-to-cycle and slow wobble of pitch: + trembling, - steady",
    }
)
"""Dimensions of prosody and voice quality (Banse and Scherer 1996; Juslin and Laukka 2003)."""

FACE_ACTIONS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "brows_raised": ("AU1", "AU2"),
        "inner_brows_raised": ("AU1",),
        "brows_lowered": ("AU4",),
        "eyes_widened": ("AU5",),
        "cheeks_raised": ("AU6",),
        "eyes_narrowed": ("AU7",),
        "nose_wrinkled": ("AU9",),
        "upper_lip_raised": ("AU10",),
        "lip_corners_up": ("AU12",),
        "lip_corner_dimpled": ("AU14",),
        "lip_corners_down": ("AU15",),
        "chin_raised": ("AU17",),
        "lips_stretched": ("AU20",),
        "lips_pressed": ("AU23", "AU24"),
        "lips_parted": ("AU25",),
        "jaw_dropped": ("AU26", "AU27"),
        "eyes_closed": ("AU43",),
        "head_down": ("AU54",),
        "gaze_down": ("AU64",),
    }
)
"""What a sentence can say of a face -> the action units that make it so."""

_NEEDS_ALL: Final = frozenset({"brows_raised"})  # a lone AU1 is the oblique brow of sadness
_ONE_SIDED: Final = frozenset({"tremor"})  # nobody remarks that a voice trembles less than usual
ENTAILS: Final[Mapping[str, str]] = MappingProxyType(
    {"brows_raised": "inner_brows_raised", "jaw_dropped": "lips_parted"}
)
"""Action -> the action that it cannot be without: to say both is to say one thing twice."""

FACE_PRESENT: Final = 0.25
"""From this intensity on (FACS B, slight) an action is there: a claim of it is supported."""
FACE_ABSENT: Final = 0.15
"""Below it (FACS A, a trace) an action is not there; between the two nobody can say."""
FACE_SALIENT: Final = 0.4
"""From this intensity on (FACS C, marked) a description of the face should mention the action."""
VOICE_PRESENT: Final = 0.5
"""From this many standard deviations on the voice is high (loud, fast, …) for this speaker."""
VOICE_ABSENT: Final = 0.25
"""Below it it is not; between the two nobody can say."""
VOICE_SALIENT: Final = 0.8
"""From this many standard deviations on a description of the voice should mention it."""


@dataclass(frozen=True, slots=True)
class Informative:
    """Whether each modality tells anything about the emotion."""

    video: bool
    audio: bool


@dataclass(frozen=True, slots=True)
class Cues:
    """The cues of one clip.

    Attributes:
        face: Action unit of `FACE_UNITS` -> intensity in [0, 1].
        voice: Dimension of `VOICE_DIMENSIONS` -> deviation in the speaker's standard deviations.
        informative: Which modalities tell anything.

    Raises:
        ConfigError: A name is unknown, or a value is not a number in range.
    """

    face: Mapping[str, float] = field(default_factory=dict)
    voice: Mapping[str, float] = field(default_factory=dict)
    informative: Informative = field(default_factory=lambda: Informative(True, True))

    def __post_init__(self) -> None:
        _check("face", self.face, FACE_UNITS, 0.0, 1.0)
        _check("voice", self.voice, VOICE_DIMENSIONS, -math.inf, math.inf)
        # Copies, and plain ones: cues travel between processes, and a mapping proxy does not.
        object.__setattr__(self, "face", dict(self.face))
        object.__setattr__(self, "voice", dict(self.voice))

    def face_value(self, action: str) -> float | None:
        """Intensity in [0, 1] of an action of `FACE_ACTIONS`; None where it was not recorded."""
        values = [self.face[unit] for unit in FACE_ACTIONS[action] if unit in self.face]
        if not values:
            return None
        return min(values) if action in _NEEDS_ALL else max(values)

    def recorded(self, modality: Modality) -> bool:
        """Whether anything of a modality was recorded."""
        return bool(self.face if modality == "face" else self.voice)

    def hidden(self, modality: Modality) -> bool:
        """Whether the modality is known to show nothing: a hidden face, silence, noise alone."""
        informative = self.informative.video if modality == "face" else self.informative.audio
        return not informative and not self.recorded(modality)

    def salient(self) -> tuple[tuple[Modality, str, int], ...]:
        """What a good description mentions: (modality, action or dimension, direction +1 or -1).

        An action that another salient one entails is left out: raised brows have raised inner
        brows, a dropped jaw parts the lips.
        """
        actions = [a for a in FACE_ACTIONS if (self.face_value(a) or 0.0) >= FACE_SALIENT]
        entailed = {ENTAILS[action] for action in actions if action in ENTAILS}
        return (
            *(("face", action, 1) for action in actions if action not in entailed),
            *(
                ("voice", dimension, 1 if self.voice[dimension] > 0 else -1)
                for dimension in VOICE_DIMENSIONS
                if abs(self.voice.get(dimension, 0.0)) >= VOICE_SALIENT
                and not (dimension in _ONE_SIDED and self.voice[dimension] < 0)
            ),
        )

    def at_rest(self, modality: Modality) -> bool:
        """Whether the modality was recorded and nothing of it is salient."""
        return self.recorded(modality) and not any(m == modality for m, _, _ in self.salient())

    def offered(self) -> int:
        """How many things there are to say: what is salient, and each modality at rest or hidden."""
        plain = (self.at_rest(m) or self.hidden(m) for m in get_args(Modality))
        return len(self.salient()) + sum(plain)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object of a manifest row."""
        return {
            "face": dict(self.face),
            "voice": dict(self.voice),
            "informative": {
                "video": self.informative.video,
                "audio": self.informative.audio,
            },
        }

    @classmethod
    def from_json(cls, value: object) -> "Cues":
        """Read the JSON object of a manifest row; the inverse of `to_json`.

        Raises:
            ConfigError: It is not such an object.
        """
        if not isinstance(value, Mapping):
            raise ConfigError(f"cues: wanted an object, found {type(value).__name__}")
        if unknown := set(value) - {"face", "voice", "informative"}:
            raise ConfigError(
                f"cues: unknown key {sorted(unknown)[0]!r}; wanted face, voice, informative"
            )
        informative = value.get("informative", {"video": True, "audio": True})
        if (
            not isinstance(informative, Mapping)
            or set(informative) != {"video", "audio"}
            or not all(isinstance(flag, bool) for flag in informative.values())
        ):
            raise ConfigError(
                'cues: wanted informative as {"video": true|false, "audio": true|false}, '
                f"found {informative!r}"
            )
        parts = []
        for name in ("face", "voice"):
            part = value.get(name, {})
            if not isinstance(part, Mapping):
                raise ConfigError(
                    f"cues: wanted {name} as an object of numbers, found {type(part).__name__}"
                )
            parts.append(part)
        return cls(parts[0], parts[1], Informative(informative["video"], informative["audio"]))


def _check(
    part: str, values: Mapping[str, float], known: Mapping[str, str], low: float, high: float
) -> None:
    for name, value in values.items():
        if name not in known:
            raise ConfigError(
                f"cues: unknown {part} cue {name!r}; wanted one of {', '.join(known)}"
            )
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not math.isfinite(value)
            or not low <= value <= high
        ):
            raise ConfigError(
                f"cues: {part} cue {name} is {value!r}; wanted a number"
                + (f" in [{low:g}, {high:g}]" if math.isfinite(low) else "")
            )
