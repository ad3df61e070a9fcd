"""Wordings of cues for texts to be composed from.

They name no emotion, and every one of them is read back as exactly its cue, by the training lexicon
and by the evaluation's.
"""

from dataclasses import dataclass
from typing import Final

from training.claims.claim import EXPRESSION, HIDDEN, PROSODY
from training.data.cues import Modality


@dataclass(frozen=True, slots=True)
class Surface:
    """Wordings of one cue: `clauses` stand as a sentence, `nouns` after "there is" or "with"."""

    clauses: tuple[str, ...]
    nouns: tuple[str, ...]


SURFACE: Final[dict[tuple[Modality, str, int], Surface]] = {
    ("face", "brows_raised", 1): Surface(
        ("the brows are raised", "the eyebrows lift", "the brows go up"),
        ("raised brows", "lifted eyebrows"),
    ),
    ("face", "inner_brows_raised", 1): Surface(
        ("the inner brows are raised", "the inner brows are pulled up"),
        ("raised inner brows", "lifted inner brows"),
    ),
    ("face", "brows_lowered", 1): Surface(
        ("the brows are lowered", "the brows are drawn together", "the brows are furrowed"),
        ("lowered brows", "furrowed brows"),
    ),
    ("face", "eyes_widened", 1): Surface(
        ("the eyes are wide open", "the eyes are wide", "the upper lids are raised"),
        ("wide eyes", "raised upper lids"),
    ),
    ("face", "cheeks_raised", 1): Surface(
        ("the cheeks are raised", "the cheeks are lifted"), ("raised cheeks", "lifted cheeks")
    ),
    ("face", "eyes_narrowed", 1): Surface(
        ("the eyes are narrowed", "the lids are tight"), ("narrowed eyes", "tight lids")
    ),
    ("face", "nose_wrinkled", 1): Surface(
        ("the nose is wrinkled", "the nose wrinkles"), ("a wrinkled nose",)
    ),
    ("face", "upper_lip_raised", 1): Surface(
        ("the upper lip is raised", "the upper lip is pulled up"),
        ("a raised upper lip", "a lifted upper lip"),
    ),
    ("face", "lip_corners_up", 1): Surface(
        ("the lip corners are pulled up", "the lip corners go up", "the mouth corners are raised"),
        ("raised lip corners", "a smile"),
    ),
    ("face", "lip_corner_dimpled", 1): Surface(
        ("the lip corners are tight", "the lip corners are tucked in"), ("tight lip corners",)
    ),
    ("face", "lip_corners_down", 1): Surface(
        ("the lip corners are pulled down", "the lip corners go down", "the mouth corners droop"),
        ("lowered lip corners", "drooping mouth corners"),
    ),
    ("face", "chin_raised", 1): Surface(
        ("the chin is raised", "the chin is pushed up"), ("a raised chin",)
    ),
    ("face", "lips_stretched", 1): Surface(
        ("the lips are stretched", "the lips are pulled back"), ("stretched lips",)
    ),
    ("face", "lips_pressed", 1): Surface(
        ("the lips are pressed together", "the lips are tight"), ("pressed lips", "tight lips")
    ),
    ("face", "lips_parted", 1): Surface(
        ("the lips are parted", "the mouth is open"), ("parted lips", "an open mouth")
    ),
    ("face", "jaw_dropped", 1): Surface(
        ("the jaw is dropped", "the jaw drops", "the mouth is wide open"), ("a dropped jaw",)
    ),
    ("face", "eyes_closed", 1): Surface(("the eyes are closed",), ("closed eyes",)),
    ("face", "head_down", 1): Surface(
        ("the head is lowered", "the head is bowed"), ("a lowered head", "a bowed head")
    ),
    ("face", "gaze_down", 1): Surface(
        ("the gaze is lowered", "the gaze is cast down"), ("a lowered gaze", "a downcast gaze")
    ),
    ("face", EXPRESSION, 0): Surface(
        ("the face is relaxed", "the face is at rest", "the face is still"),
        ("a relaxed face", "a still face"),
    ),
    ("face", HIDDEN, 1): Surface(
        ("the face is hidden", "the face is not visible"), ("a hidden face",)
    ),
    ("voice", "pitch", 1): Surface(
        ("the pitch is high", "the voice is high", "the pitch is raised"),
        ("a high pitch", "a high voice"),
    ),
    ("voice", "pitch", -1): Surface(
        ("the pitch is low", "the voice is low", "the voice is deep"),
        ("a low pitch", "a low voice"),
    ),
    ("voice", "pitch_range", 1): Surface(
        ("the pitch is varied", "the pitch swings", "the intonation is lively"),
        ("varied pitch", "lively intonation"),
    ),
    ("voice", "pitch_range", -1): Surface(
        ("the pitch is flat", "the intonation is flat", "the pitch hardly moves"),
        ("a flat pitch", "flat intonation"),
    ),
    ("voice", "loudness", 1): Surface(
        ("the voice is loud", "the speech is loud"), ("a loud voice", "loud speech")
    ),
    ("voice", "loudness", -1): Surface(
        ("the voice is soft", "the voice is quiet", "the speech is soft"),
        ("a soft voice", "quiet speech"),
    ),
    ("voice", "rate", 1): Surface(
        ("the speech is fast", "the pace is fast", "the speech is quick"),
        ("fast speech", "a fast pace"),
    ),
    ("voice", "rate", -1): Surface(
        ("the speech is slow", "the pace is slow", "the speech is drawn out"),
        ("slow speech", "a slow pace"),
    ),
    ("voice", "pauses", 1): Surface(
        ("the pauses are long", "the speech is halting"), ("long pauses", "halting speech")
    ),
    ("voice", "pauses", -1): Surface(
        ("the pauses are short", "the speech is fluent"), ("short pauses", "fluent speech")
    ),
    ("voice", "breathiness", 1): Surface(
        ("the voice is breathy", "the voice is airy"), ("a breathy voice", "an airy voice")
    ),
    ("voice", "breathiness", -1): Surface(("the voice is clear",), ("a clear voice",)),
    ("voice", "tension", 1): Surface(
        ("the voice is tense", "the voice is sharp"), ("a tense voice", "a sharp voice")
    ),
    ("voice", "tension", -1): Surface(
        ("the voice is lax", "the voice is dull"), ("a lax voice", "a dull voice")
    ),
    ("voice", "tremor", 1): Surface(
        ("the voice trembles", "the voice is shaky"), ("a trembling voice", "a shaky voice")
    ),
    ("voice", PROSODY, 0): Surface(
        ("the voice is even", "the voice is ordinary"), ("an even voice", "an ordinary voice")
    ),
    ("voice", HIDDEN, 1): Surface(
        ("the voice is silent", "no voice is heard", "the voice is not heard"),
        ("only noise", "only silence"),
    ),
}
"""(modality, cue, direction) -> wordings for a composer; small in vocabulary on purpose."""
