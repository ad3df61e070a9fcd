"""What happens in a clip, decided before anything is drawn or said.

`write_script(seed, split, index)` is a pure function: workers, order and which modalities are rendered do not matter.
"""

from dataclasses import dataclass
from typing import Literal, cast

import numpy as np

from emostream.labels import DEFAULT_LABELS
from training.synth.acting import (
    ACTION_UNITS,
    PROSODY,
    WHOLE_FACE,
    Acting,
    FaceActing,
    FaceState,
    VoiceActing,
    VoiceState,
)
from training.synth.actors import CAST_SIZE, SPLITS, Actor, Split, cast_actor
from training.synth.emotions import action_units, prosody

STYLES = ("shaded", "cartoon", "line", "dim")
_STYLE_P = (0.4, 0.25, 0.15, 0.2)
VOICE_TYPES = ("close", "room", "telephone", "far")
_VOICE_TYPE_P = (0.5, 0.25, 0.12, 0.13)

#: Shares of clips in which one modality is uninformative (never both) or mildly contradicts.
FACE_OUT_P = 0.16
VOICE_OUT_P = 0.21
CONFLICT_P = 0.06

_FACE_OUT: tuple[FaceState, ...] = ("neutral", "occluded", "turned", "absent")
_FACE_OUT_P = (0.5, 0.2, 0.2, 0.1)
_VOICE_OUT: tuple[VoiceState, ...] = ("neutral", "silent", "muted", "noise")
_VOICE_OUT_P = (0.4, 0.2, 0.15, 0.25)
#: Objects that hide a part of an expressive face: a medical mask, sunglasses, a low cap.
_PARTLY_COVERED = {"mouth": 0.04, "eyes": 0.035, "brows": 0.035}


@dataclass(frozen=True, kw_only=True, slots=True)
class Script:
    """All that the renderers need to know, noise aside.

    Attributes:
        seed: The corpus seed; with `split` and `index` it names the clip.
        split: Which cast, styles and voice model.
        index: The clip's number in the corpus.
        label: The emotion that the clip is of.
        actor: Who plays.
        duration_s: Length of the clip.
        acting: What the two channels do.
        take: Which take of it: another one has other words, movements and noise.
    """

    seed: int
    split: Split
    index: int
    label: str
    actor: Actor
    duration_s: float
    acting: Acting
    take: int = 0

    def rng(self, stream: str) -> np.random.Generator:
        """An independent generator for one purpose: skipping the face leaves the voice as it is."""
        key = [self.seed, SPLITS.index(self.split), self.index, *stream.encode()]
        if self.take:
            key += [0, self.take]
        return np.random.default_rng(key)


def label_of(seed: int, split: Split, index: int) -> str:
    """Labels are balanced: each run of seven clips holds every label once, in random order."""
    block, place = divmod(index, len(DEFAULT_LABELS))
    rng = np.random.default_rng([seed, SPLITS.index(split), block, 0x1ABE1])
    return DEFAULT_LABELS[int(rng.permutation(len(DEFAULT_LABELS))[place])]


def _other_emotion(label: str, rng: np.random.Generator) -> str:
    return str(rng.choice([e for e in DEFAULT_LABELS if e not in (label, "neutral")]))


def _covered(state: FaceState, rng: np.random.Generator) -> tuple[str, ...]:
    if state in ("occluded", "turned", "absent"):
        return WHOLE_FACE
    draw = rng.random()
    for region, share in _PARTLY_COVERED.items():
        if draw < share:
            return (region,)
        draw -= share
    return ()


def _face(
    state: FaceState,
    emotion: str,
    intensity: float,
    actor: Actor,
    duration_s: float,
    rng: np.random.Generator,
) -> FaceActing:
    habits = actor.habits
    shown = action_units(emotion, intensity, habits.variants[emotion], habits.au_gains, rng)
    covered = _covered(state, rng)
    # Surprise is quick and sadness slow; the apex fills most of the clip: any 4 s window holds it.
    pace = {"surprise": 0.6, "fear": 0.8, "sad": 1.7}.get(emotion, 1.0)
    onset_s = float(rng.uniform(0.0, 0.45))
    apex_s = onset_s + float(rng.uniform(0.2, 0.5)) * pace
    fades = rng.random() < 0.6
    offset_s = duration_s - float(rng.uniform(0.3, 0.9)) if fades else duration_s
    end_s = min(duration_s, offset_s + float(rng.uniform(0.3, 0.8)))
    blinks_hz = {"fear": 0.55, "sad": 0.45, "angry": 0.15, "surprise": 0.2}.get(emotion, 0.3)
    blinks = rng.uniform(0.1, duration_s - 0.1, rng.poisson(blinks_hz * duration_s))
    return FaceActing(
        state=state,
        emotion=emotion,
        action_units={n: float(v) for n, v in zip(ACTION_UNITS, shown, strict=True) if v >= 0.05},
        covered=covered,
        onset_s=onset_s,
        apex_s=apex_s,
        offset_s=offset_s,
        end_s=end_s,
        blinks_s=tuple(float(t) for t in np.sort(blinks)),
    )


def _voice(
    state: VoiceState, emotion: str, intensity: float, actor: Actor, rng: np.random.Generator
) -> VoiceActing:
    habits = actor.habits
    z = prosody(emotion, intensity * habits.voice_gain, habits.prosody[emotion], rng)
    return VoiceActing(
        state=state,
        emotion=emotion,
        prosody={n: float(v) for n, v in zip(PROSODY, z, strict=True)},
    )


def write_script(seed: int, split: Split, index: int) -> Script:
    """The script of clip `index` of a corpus.

    Args:
        seed: The corpus seed, 0 or more.
        split: Which cast, styles and voice model.
        index: The clip's number, 0 or more.

    Raises:
        ValueError: The split is unknown or a number is negative.
    """
    if split not in SPLITS or seed < 0 or index < 0:
        raise ValueError(f"write_script: no clip {seed=}, {split=}, {index=}; splits are {SPLITS}")
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    label = label_of(seed, split, index)
    actor = cast_actor(split, int(rng.integers(CAST_SIZE[split])))
    duration_s = round(float(rng.uniform(4.2, 4.9)), 2)
    intensity = float(0.35 + 0.65 * rng.beta(1.6, 1.1))
    face_strength, voice_strength = np.clip(intensity + 0.1 * rng.standard_normal(2), 0.3, 1.0)

    face_state: FaceState = "expressive"
    voice_state: VoiceState = "expressive"
    face_emotion = voice_emotion = label
    conflict: Literal["face", "voice"] | None = None
    # A deadpan face or voice tells nothing, unless the label is neutral: then it is the truth.
    first = 1 if label == "neutral" else 0
    draw = float(rng.random())
    if draw < FACE_OUT_P:
        p = np.asarray(_FACE_OUT_P[first:])
        face_state = cast(FaceState, str(rng.choice(_FACE_OUT[first:], p=p / p.sum())))
        face_emotion = "neutral" if face_state == "neutral" else label
    elif draw < FACE_OUT_P + VOICE_OUT_P:
        p = np.asarray(_VOICE_OUT_P[first:])
        voice_state = cast(VoiceState, str(rng.choice(_VOICE_OUT[first:], p=p / p.sum())))
        voice_emotion = "neutral" if voice_state == "neutral" else label
    elif draw < FACE_OUT_P + VOICE_OUT_P + CONFLICT_P and label != "neutral":
        # Mild: the contradicting modality is weak and the other strong; strength settles it.
        conflict = "face" if rng.random() < 0.5 else "voice"
        weak, strong = float(rng.uniform(0.2, 0.4)), max(0.75, intensity)
        if conflict == "face":
            face_emotion, face_strength, voice_strength = _other_emotion(label, rng), weak, strong
        else:
            voice_emotion, voice_strength, face_strength = _other_emotion(label, rng), weak, strong
    ood = split == "ood"
    acting = Acting(
        intensity=intensity,
        conflict=conflict,
        style="clay" if ood else str(rng.choice(STYLES, p=_STYLE_P)),
        voice_type="reverberant" if ood else str(rng.choice(VOICE_TYPES, p=_VOICE_TYPE_P)),
        face=_face(face_state, face_emotion, float(face_strength), actor, duration_s, rng),
        voice=_voice(voice_state, voice_emotion, float(voice_strength), actor, rng),
    )
    return Script(
        seed=seed,
        split=split,
        index=index,
        label=label,
        actor=actor,
        duration_s=duration_s,
        acting=acting,
    )
