"""Emotions as action units and as prosody, after the literature, varied by person and intensity.

Face: the prototypes and major variants of the FACS Investigator's Guide (Ekman, Friesen & Hager 2002, the table
"Prediction of emotion from AU combinations"), which EMFACS (Friesen & Ekman 1983) scores. Intensities are ours: the
guide asks for B or C in places and leaves most open. AU11, AU16 and AU22 are folded into AU15, AU25 and AU23, their
nearest neighbours at corpus resolution.

Voice: directions after Banse & Scherer (1996), "Acoustic profiles in vocal emotion expression" (table of
emotion by acoustic parameter z-scores: hot anger, panic fear, elation, sadness, disgust), and Juslin & Laukka (2003),
"Communication of emotions in vocal expression and music performance" (summary table of cross-modal patterns: anger,
fear, happiness, sadness). Neither has surprise; it follows Pell et al. (2009), "Factors in the recognition of
vocally expressed emotions" (highest F0 and widest range of their set), with a rising end. Sizes are ours, chosen so
that classes overlap: a single utterance of a single stranger is not read off a table.
"""

import numpy as np
from numpy.typing import NDArray

from training.synth.acting import ACTION_UNITS, PROSODY

Variant = dict[str, float]

# Per emotion: variants of AU -> typical apex intensity. A person prefers some of them to others.
EMFACS: dict[str, tuple[Variant, ...]] = {
    "happy": (
        {"AU6": 0.75, "AU12": 0.85, "AU25": 0.5},
        {"AU6": 0.7, "AU12": 0.8},
        {"AU6": 0.85, "AU7": 0.4, "AU12": 0.95, "AU25": 0.7, "AU26": 0.35},
        {"AU12": 0.75, "AU25": 0.35},
    ),
    "surprise": (
        {"AU1": 0.85, "AU2": 0.85, "AU5": 0.6, "AU25": 0.6, "AU26": 0.8},
        {"AU1": 0.9, "AU2": 0.9, "AU5": 0.7, "AU25": 0.6, "AU27": 0.8},
        {"AU1": 0.85, "AU2": 0.85, "AU25": 0.5, "AU26": 0.65},
        {"AU1": 0.8, "AU2": 0.85, "AU5": 0.65},
    ),
    "angry": (
        {"AU4": 0.85, "AU5": 0.5, "AU7": 0.7, "AU23": 0.7},
        {"AU4": 0.85, "AU7": 0.7, "AU17": 0.5, "AU24": 0.8},
        {"AU4": 0.9, "AU5": 0.6, "AU7": 0.6, "AU10": 0.5, "AU23": 0.5, "AU25": 0.6, "AU26": 0.35},
        {"AU4": 0.8, "AU7": 0.5, "AU23": 0.6, "AU24": 0.5},
    ),
    "disgust": (
        {"AU9": 0.85, "AU4": 0.3, "AU7": 0.4, "AU17": 0.4},
        {"AU10": 0.85, "AU9": 0.4, "AU25": 0.4},
        {"AU9": 0.8, "AU10": 0.6, "AU15": 0.4, "AU25": 0.5, "AU26": 0.3},
        {"AU10": 0.8, "AU17": 0.6, "AU15": 0.3, "AU7": 0.3},
    ),
    "sad": (
        {"AU1": 0.75, "AU4": 0.6, "AU15": 0.75, "AU54": 0.4, "AU64": 0.5},
        {"AU1": 0.7, "AU4": 0.55, "AU15": 0.65, "AU17": 0.6},
        {"AU1": 0.7, "AU4": 0.5, "AU43": 0.35, "AU15": 0.5, "AU64": 0.6, "AU54": 0.5},
        {"AU6": 0.35, "AU15": 0.8, "AU17": 0.5, "AU1": 0.5},
    ),
    "fear": (
        {"AU1": 0.8, "AU2": 0.6, "AU4": 0.65, "AU5": 0.85, "AU20": 0.75, "AU25": 0.6},
        {"AU1": 0.75, "AU2": 0.55, "AU4": 0.6, "AU5": 0.8, "AU25": 0.6, "AU26": 0.6},
        {"AU1": 0.7, "AU2": 0.5, "AU4": 0.6, "AU5": 0.85, "AU20": 0.6},
        {"AU5": 0.85, "AU20": 0.85, "AU25": 0.6, "AU1": 0.4, "AU4": 0.35},
    ),
    "neutral": ({},),
}

# Columns as PROSODY: pitch, pitch_range, loudness, rate, pauses, breathiness, tension, tremor, contour.
PROFILES: dict[str, tuple[float, ...]] = {
    "neutral": (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    "happy": (1.1, 1.3, 0.8, 0.7, -0.6, -0.3, 0.6, -0.4, 0.4),
    "angry": (0.6, 0.8, 1.7, 0.9, -0.7, -1.0, 1.6, 0.4, -0.7),
    "sad": (-0.9, -1.2, -1.3, -1.2, 1.3, 0.8, -1.2, 0.3, -0.7),
    "fear": (1.7, -0.4, -0.2, 1.3, 0.2, 0.9, 0.0, 1.5, 0.3),
    "disgust": (-0.8, 0.3, 0.0, -1.1, 0.5, -0.5, 0.5, 0.8, -1.2),
    "surprise": (1.6, 1.8, 0.5, -0.1, 0.2, 0.3, 0.3, -0.2, 1.6),
}

_AU_INDEX = {name: i for i, name in enumerate(ACTION_UNITS)}
#: AUs that carry an expression; the rest of a variant is dropped now and then ("not all of them each time").
_DROP_P = 0.12
_STRAY_P = 0.05


def action_units(
    label: str,
    intensity: float,
    preferences: NDArray[np.float64],
    gains: NDArray[np.float64],
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """One expression of `label`: apex intensities in [0, 1], shape (len(ACTION_UNITS),).

    Args:
        label: one of `DEFAULT_LABELS`.
        intensity: 0 to 1, how strongly it is acted.
        preferences: (n_variants,) probabilities of this person's variants of the emotion.
        gains: (len(ACTION_UNITS),) this person's own strength of each unit, around 1.
        rng: draws the variant, the drops and the strays.
    """
    variant = EMFACS[label][int(rng.choice(len(preferences), p=preferences))]
    out = np.zeros(len(ACTION_UNITS))
    strongest = max(variant, key=lambda name: variant[name], default=None)
    for name, typical in variant.items():
        if name != strongest and rng.random() < _DROP_P:
            continue
        i = _AU_INDEX[name]
        out[i] = typical * (0.35 + 0.75 * intensity) * gains[i] * rng.uniform(0.8, 1.2)
    strays = rng.random(len(ACTION_UNITS)) < _STRAY_P
    out += strays * (out == 0.0) * rng.uniform(0.05, 0.3, len(ACTION_UNITS))
    return np.clip(out, 0.0, 1.0)


def prosody(
    label: str,
    intensity: float,
    habit: NDArray[np.float64],
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """One way of saying it: deviations (z) from the speaker's baseline, shape (len(PROSODY),).

    Args:
        label: one of `DEFAULT_LABELS`.
        intensity: 0 to 1.
        habit: (len(PROSODY),) how this person departs from the profile when acting this emotion, z.
        rng: draws the utterance's own variation.
    """
    profile = np.asarray(PROFILES[label])
    own = np.zeros_like(profile) if label == "neutral" else habit
    z = (profile + own) * (0.4 + 0.75 * intensity) + rng.normal(0.0, 0.38, len(PROSODY))
    return np.clip(z, -2.5, 2.8)
