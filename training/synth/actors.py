"""The cast: who an actor is (face, voice, habits), a pure function of the split and a number.

The cast of each split is fixed and disjoint from the others'. The corpus seed chooses what the actors do, not who they
are, so `train-0007` is the same person in every corpus.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from emostream.labels import DEFAULT_LABELS
from training.synth.acting import ACTION_UNITS, PROSODY
from training.synth.emotions import EMFACS

Split = Literal["train", "test", "ood"]
SPLITS: tuple[Split, ...] = ("train", "test", "ood")
CAST_SIZE: dict[str, int] = {"train": 1200, "test": 300, "ood": 300}
_CAST_SEED = 20_030_615

Colour = tuple[float, float, float]  # RGB, 0-255

HAIR_STYLES = ("bald", "cropped", "side", "fringe", "bob", "long", "bun", "curly", "receding")
GLASSES = ("none", "round", "square")
BEARDS = ("none", "stubble", "moustache", "goatee", "full")

# Deep to fair, after the spread of the Monk skin tone scale.
_SKIN = np.array(
    [
        (58, 38, 30),
        (82, 54, 40),
        (110, 74, 54),
        (142, 98, 70),
        (170, 122, 90),
        (196, 150, 116),
        (215, 174, 142),
        (232, 196, 168),
        (242, 212, 190),
        (246, 222, 206),
    ],
    dtype=float,
)
_HAIR = np.array(
    [(28, 22, 20), (44, 32, 26), (72, 48, 32), (104, 70, 42), (150, 104, 56), (198, 160, 98)],
    dtype=float,
)
_IRIS = np.array([(62, 40, 24), (90, 60, 34), (86, 96, 60), (70, 100, 130), (100, 120, 128)], float)


@dataclass(frozen=True, kw_only=True, slots=True)
class FaceIdentity:
    """Shape, colour and wear of a face. Lengths are in face units: 1 is from eye line to chin, roughly.

    Factors (`*_scale`) are around 1; `rest_*` are the resting face's own departures in face units, which make a neutral
    face look a little like an expression.
    """

    width_scale: float
    jaw: float
    chin_width: float
    chin_y: float
    eye_scale: float
    eye_spacing: float
    eye_tilt: float
    eye_open: float
    brow_thickness: float
    brow_arch: float
    nose_width: float
    nose_length: float
    mouth_width: float
    upper_lip: float
    lower_lip: float
    mouth_y: float
    ear_scale: float
    rest_brow: float
    rest_brow_inner: float
    rest_corner: float
    skin: Colour
    hair: Colour
    brow: Colour
    iris: Colour
    lips: Colour
    clothes: Colour
    hair_style: str
    beard: str
    glasses: str
    age: float
    freckles: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class VoiceIdentity:
    """A speaker.

    Attributes:
        f0_hz: mean F0 of the neutral voice.
        tract_scale: formant frequencies relative to an adult male's (0.95 to 1.3).
        rd: LF voice-source shape parameter Rd of the neutral voice (Fant 1995); 0.5 pressed to 2.5 lax.
        breath_db: level of aspiration against voicing.
        rate_hz: syllables per second while speaking.
        range_st: standard deviation of F0 within an utterance, semitones.
        pause_share: share of a neutral utterance that is silent.
        jitter: relative cycle-to-cycle variation of F0.
        tilt_db: the voice's own spectral tilt, dB per octave above 1 kHz.
        vowel_shift: (5, 2) accent, offsets of F1 and F2 of the five corner vowels as factors.
    """

    f0_hz: float
    tract_scale: float
    rd: float
    breath_db: float
    rate_hz: float
    range_st: float
    pause_share: float
    jitter: float
    tilt_db: float
    vowel_shift: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Habits:
    """How a person expresses: which variants they prefer, how strongly, how lopsidedly.

    Attributes:
        variants: label to probabilities of its `EMFACS` variants.
        au_gains: (len(ACTION_UNITS),) strength of each unit.
        side_gains: (2,) left and right half of the face (viewer's), around 1.
        voice_gain: expressivity of the voice.
        prosody: label to (len(PROSODY),) the person's own departure from the profile, z.
    """

    variants: dict[str, NDArray[np.float64]]
    au_gains: NDArray[np.float64]
    side_gains: tuple[float, float]
    voice_gain: float
    prosody: dict[str, NDArray[np.float64]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Actor:
    """One person: an id that names the split, and everything that stays the same between their clips."""

    id: str
    face: FaceIdentity
    voice: VoiceIdentity
    habits: Habits


def _colour(rgb: NDArray[np.float64]) -> Colour:
    r, g, b = np.clip(rgb, 0, 255)
    return float(r), float(g), float(b)


def _blend(table: NDArray[np.float64], position: float) -> NDArray[np.float64]:
    """Linear interpolation in a colour table, position in [0, 1]."""
    x = position * (len(table) - 1)
    i = min(int(x), len(table) - 2)
    return np.asarray(table[i] + (x - i) * (table[i + 1] - table[i]))


def _face(rng: np.random.Generator, male: float, age: float) -> FaceIdentity:
    def near(mean: float, sd: float) -> float:
        return float(mean + sd * np.clip(rng.standard_normal(), -2.2, 2.2))

    tone = float(rng.beta(1.6, 1.1))
    skin = _blend(_SKIN, tone) + rng.normal(0, 4, 3)
    hair = _blend(_HAIR, float(rng.beta(0.8, 1.6)) * (0.25 + 0.75 * tone))
    grey = float(np.clip((age - 0.55) * 2.2 + 0.3 * rng.standard_normal(), 0, 1))
    hair = hair + grey * (np.array([176.0, 174, 172]) - hair)
    if rng.random() < 0.03:
        hair = rng.uniform(40, 220, 3)  # dyed
    redness = np.array([1.0, 0.62, 0.62]) if rng.random() < 0.5 else np.array([0.86, 0.62, 0.60])
    lips = skin * redness + np.array([18.0, 0, 4])
    if male < 0.5 and rng.random() < 0.3:
        lips = lips * 0.5 + np.array([90.0, 14, 24])  # lipstick
    if male > 0.5:
        style = rng.choice(
            HAIR_STYLES, p=[0.12, 0.28, 0.2, 0.1, 0.02, 0.04, 0.02, 0.08, 0.04 + 0.1]
        )
    else:
        style = rng.choice(HAIR_STYLES, p=[0.01, 0.07, 0.1, 0.2, 0.2, 0.22, 0.1, 0.1, 0.0])
    beard = rng.choice(BEARDS, p=[0.5, 0.2, 0.08, 0.08, 0.14]) if male > 0.5 else "none"
    return FaceIdentity(
        width_scale=near(1.0, 0.055),
        jaw=near(0.50 + 0.40 * male, 0.2),
        chin_width=near(0.22 + 0.06 * male, 0.035),
        chin_y=near(1.0, 0.045),
        eye_scale=near(1.08 - 0.1 * male, 0.08),
        eye_spacing=near(0.33, 0.018),
        eye_tilt=near(0.02, 0.03),
        eye_open=near(1.0, 0.11),
        brow_thickness=near(0.055 + 0.025 * male, 0.012),
        brow_arch=near(0.06 - 0.03 * male, 0.02),
        nose_width=near(0.135 + 0.015 * male, 0.02),
        nose_length=near(0.21, 0.03),
        mouth_width=near(0.27, 0.025),
        upper_lip=near(0.055, 0.013),
        lower_lip=near(0.075, 0.015),
        mouth_y=near(0.51, 0.025),
        ear_scale=near(1.0, 0.12),
        rest_brow=near(0.0, 0.022),
        rest_brow_inner=near(0.0, 0.014),
        rest_corner=near(0.0, 0.014),
        skin=_colour(skin),
        hair=_colour(hair),
        brow=_colour(hair * 0.75 + np.array([10.0, 6, 4]) * (1 - grey)),
        iris=_colour(_blend(_IRIS, float(rng.beta(0.7, 1.6)) * (0.2 + 0.8 * tone))),
        lips=_colour(lips),
        clothes=_colour(rng.uniform(25, 225, 3)),
        hair_style=str(style),
        beard=str(beard),
        glasses=str(rng.choice(GLASSES, p=[0.75, 0.13, 0.12])),
        age=age,
        freckles=bool(tone > 0.6 and rng.random() < 0.12),
    )


def _voice(rng: np.random.Generator, male: float, age: float) -> VoiceIdentity:
    octave = 0.85 * (1 - male) + 0.14 * float(np.clip(rng.standard_normal(), -2, 2))
    return VoiceIdentity(
        f0_hz=112.0 * 2.0**octave,
        tract_scale=1.0 + 0.17 * (1 - male) + 0.03 * float(rng.standard_normal()),
        rd=float(np.clip(1.05 + 0.25 * (1 - male) + 0.15 * rng.standard_normal(), 0.7, 1.7)),
        breath_db=float(-26 + 3 * (1 - male) + 2.5 * rng.standard_normal()),
        rate_hz=float(
            np.clip(4.6 - 0.7 * max(0.0, age - 0.5) + 0.35 * rng.standard_normal(), 3.7, 5.6)
        ),
        range_st=float(np.clip(1.9 + 0.3 * rng.standard_normal(), 1.2, 2.7)),
        pause_share=float(np.clip(0.13 + 0.03 * rng.standard_normal(), 0.05, 0.2)),
        jitter=float(0.004 + 0.008 * max(0.0, age - 0.5) + 0.003 * rng.random()),
        tilt_db=float(0.8 * rng.standard_normal()),
        vowel_shift=1.0 + 0.05 * rng.standard_normal((5, 2)),
    )


def _habits(rng: np.random.Generator) -> Habits:
    expressivity = float(np.clip(1.0 + 0.12 * rng.standard_normal(), 0.75, 1.25))
    lopsided = 0.08 * float(rng.standard_normal())
    return Habits(
        variants={k: rng.dirichlet(np.full(len(EMFACS[k]), 1.5)) for k in DEFAULT_LABELS},
        au_gains=expressivity
        * np.clip(1 + 0.12 * rng.standard_normal(len(ACTION_UNITS)), 0.7, 1.3),
        side_gains=(1 + lopsided, 1 - lopsided),
        voice_gain=float(np.clip(1.0 + 0.12 * rng.standard_normal(), 0.75, 1.25)),
        prosody={k: 0.22 * rng.standard_normal(len(PROSODY)) for k in DEFAULT_LABELS},
    )


@lru_cache(maxsize=2048)
def cast_actor(split: Split, number: int) -> Actor:
    """The `number`-th actor of a split's cast, `0 <= number < CAST_SIZE[split]`."""
    if not 0 <= number < CAST_SIZE[split]:
        raise ValueError(
            f"cast_actor: {split} has actors 0 to {CAST_SIZE[split] - 1}, not {number}"
        )
    rng = np.random.default_rng([_CAST_SEED, SPLITS.index(split), number])
    male = float(rng.random() < 0.5) * 0.8 + 0.2 * float(rng.random())
    age = float(rng.beta(1.3, 1.6))
    return Actor(
        id=f"{split}-{number:04d}",
        face=_face(rng, male, age),
        voice=_voice(rng, male, age),
        habits=_habits(rng),
    )
