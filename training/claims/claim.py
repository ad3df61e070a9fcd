"""A claim: one statement of a text that a clip can bear out or not."""

from dataclasses import dataclass
from typing import Final

from training.data.cues import FACE_ACTIONS, VOICE_DIMENSIONS, Modality

EXPRESSION: Final = "expression"
"""The face as a whole; direction 0: it is at rest."""
PROSODY: Final = "prosody"
"""The voice as a whole; direction 0: it is the speaker's ordinary one."""
HIDDEN: Final = "hidden"
"""There is no face to see, or no voice to hear."""
UNMEASURED: Final = {
    "face": ("tears", "laughter"),
    "voice": ("laughter", "crying", "sighing"),
}
"""What texts say that no cue records: a claim of it can never be verified."""

CLAIMABLE: Final[dict[Modality, tuple[str, ...]]] = {
    "face": (*FACE_ACTIONS, EXPRESSION, HIDDEN, *UNMEASURED["face"]),
    "voice": (*VOICE_DIMENSIONS, PROSODY, HIDDEN, *UNMEASURED["voice"]),
}


@dataclass(frozen=True, slots=True)
class Claim:
    """One statement about the face or the voice.

    Attributes:
        modality: What it is about.
        cue: A member of `CLAIMABLE[modality]`.
        direction: +1 there, or higher than usual; -1 lower than usual; 0 as usual.
        negated: The text denies it.
        span: Where it stands in the text: characters [start, end).
    """

    modality: Modality
    cue: str
    direction: int
    negated: bool = False
    span: tuple[int, int] = (0, 0)

    @property
    def key(self) -> tuple[Modality, str, int, bool]:
        """What is claimed, wherever it stands: claims with the same key are one."""
        return (self.modality, self.cue, self.direction, self.negated)


def deduplicate(claims: list[Claim]) -> list[Claim]:
    """Keep the first claim of each meaning, in text order."""
    first: dict[tuple[Modality, str, int, bool], Claim] = {}
    for claim in sorted(claims, key=lambda claim: claim.span):
        first.setdefault(claim.key, claim)
    return list(first.values())
