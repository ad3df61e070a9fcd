"""Verdicts on claims: what a clip's cues say of what a text says."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from training.claims.claim import EXPRESSION, HIDDEN, PROSODY, UNMEASURED, Claim
from training.data.cues import (
    FACE_ABSENT,
    FACE_PRESENT,
    VOICE_ABSENT,
    VOICE_PRESENT,
    VOICE_SALIENT,
    Cues,
)


class Verdict(Enum):
    """What the cues say of a claim."""

    SUPPORTED = "supported"
    CONTRADICTED = "contradicted"
    UNVERIFIABLE = "unverifiable"


@dataclass(frozen=True, slots=True)
class Verification:
    """Claims by verdict, each in the order given."""

    supported: tuple[Claim, ...]
    contradicted: tuple[Claim, ...]
    unverifiable: tuple[Claim, ...]

    @property
    def claims(self) -> int:
        """How many claims there were."""
        return len(self.supported) + len(self.contradicted) + len(self.unverifiable)


def verify(claims: Iterable[Claim], cues: Cues) -> Verification:
    """Sort claims by their verdict; the caller deduplicates."""
    found: dict[Verdict, list[Claim]] = {verdict: [] for verdict in Verdict}
    for claim in claims:
        found[judge(claim, cues)].append(claim)
    return Verification(*(tuple(found[verdict]) for verdict in Verdict))


def judge(claim: Claim, cues: Cues) -> Verdict:
    """Hold one claim against the cues, with the thresholds of `training.data.cues`.

    - An action is there from `FACE_PRESENT` on, not there below `FACE_ABSENT`.
    - A voice is high (or low) from `VOICE_PRESENT` standard deviations on, not so below
      `VOICE_ABSENT`; it is as usual within `VOICE_PRESENT`, not so from `VOICE_SALIENT` on.
    - Face or voice as a whole is at rest where nothing of it is salient.
    - In between, and where nothing was recorded, a claim cannot be verified.
    - Of a hidden face or a silent voice only that it is hidden is true; to deny something of it is
      not a claim that it could bear out either.
    """
    if claim.cue == HIDDEN:
        if cues.hidden(claim.modality):
            holds: bool | None = True
        else:
            holds = False if cues.recorded(claim.modality) else None
    elif cues.hidden(claim.modality):
        return Verdict.CONTRADICTED
    elif claim.cue in UNMEASURED[claim.modality]:
        holds = None
    elif claim.cue in (EXPRESSION, PROSODY):
        recorded = cues.recorded(claim.modality)
        holds = cues.at_rest(claim.modality) if recorded else None
    elif claim.modality == "face":
        value = cues.face_value(claim.cue)
        holds = None if value is None else _between(value, FACE_PRESENT, FACE_ABSENT)
    else:
        holds = _voice(cues.voice.get(claim.cue), claim.direction)
    if holds is None:
        return Verdict.UNVERIFIABLE
    return Verdict.SUPPORTED if holds != claim.negated else Verdict.CONTRADICTED


def _voice(deviation: float | None, direction: int) -> bool | None:
    if deviation is None:
        return None
    if direction:
        return _between(deviation * direction, VOICE_PRESENT, VOICE_ABSENT)
    return _between(-abs(deviation), -VOICE_PRESENT, -VOICE_SALIENT)


def _between(value: float, present: float, absent: float) -> bool | None:
    """True from `present` on, False below `absent`, None between them."""
    if value >= present:
        return True
    return False if value < absent else None
