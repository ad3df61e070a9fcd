"""Think texts from recorded cues: short, true, and each time in other words.

A learner has to foresee what is said from what it perceives, so that only the wording varies. What is said, and in
which order, follows from the cues: the strongest of each modality, face from the brows down, voice from pitch to
tremor. Whether the face or the voice comes first is one choice, made by the first words. How it is said is
`training.sft.phrasing`'s.
"""

from collections.abc import Collection, Iterator
from typing import Final

import numpy as np

from training.claims.claim import EXPRESSION, HIDDEN, PROSODY
from training.claims.wordings import SURFACE
from training.data.cues import (
    ENTAILS,
    FACE_ACTIONS,
    FACE_PRESENT,
    FACE_SALIENT,
    VOICE_DIMENSIONS,
    VOICE_PRESENT,
    VOICE_SALIENT,
    Cues,
    Informative,
    Modality,
)
from training.sft.phrasing import Claimed, sentence, together

MOST_CLAIMS: Final = 6
"""In a text; one modality gets more than half of them where the other has less to say."""
LEAST_CLAIMS: Final = 3
"""Up to so many, slight cues are mentioned too."""
_SLIGHT_P: Final = 0.6
"""How often they are."""

_ORDER: Final = {name: place for place, name in enumerate((*FACE_ACTIONS, *VOICE_DIMENSIONS))}


def compose(
    cues: Cues,
    rng: np.random.Generator,
    *,
    video: bool = True,
    audio: bool = True,
    clear: Collection[Claimed] | None = None,
) -> str:
    """Describe what the cues hold; the emotion is never named.

    Args:
        cues: Of the clip.
        rng: Chooses words.
        video: Whether the face is spoken of; not where the reader is given no pictures.
        audio: Likewise for the voice.
        clear: The cues that can be told, marked and slight, and faces and voices that are at rest: all of them are
            mentioned, and no others. If None, the strongest are.

    Returns:
        A sentence for the face, one for the voice, and one on how they go together; the cues bear out each claim.
        Empty where nothing was recorded.
    """
    given: list[Modality] = []
    if video:
        given.append("face")
    if audio:
        given.append("voice")
    slight = clear is not None
    plan = {m: claimed for m in given if (claimed := sayable(cues, m, slight=slight))}
    if clear is not None:
        plan = _only(clear, plan)
    else:
        plan = _shorten(cues, plan)
        if sum(map(len, plan.values())) < LEAST_CLAIMS and rng.random() < _SLIGHT_P:
            plan = _fill(cues, plan)
    spoken = [sentence(modality, claimed, rng) for modality, claimed in plan.items()]
    if len(spoken) == 2 and rng.random() < 0.5:
        spoken.reverse()
    return " ".join(filter(None, (*spoken, together(cues, list(plan), rng))))


def corpus_texts(count: int = 2000, seed: int = 0) -> Iterator[str]:
    """Texts of random cues, in which every wording is as common as any: for training a tokenizer."""
    rng = np.random.default_rng(seed)
    said = [key for key in SURFACE if key[1] in _ORDER]
    for number in range(count):
        shown = [said[i] for i in rng.choice(len(said), 6, replace=False)]
        face = {unit: 0.8 for m, cue, _ in shown if m == "face" for unit in FACE_ACTIONS[cue]}
        voice = {cue: 1.5 * sign for m, cue, sign in shown if m == "voice"}
        if number % 8 == 0:  # now and then at rest, or hidden
            face, voice = ({}, voice) if number % 16 else ({"AU12": 0.0}, voice)
        elif number % 8 == 1:
            face, voice = (face, {}) if number % 16 == 1 else (face, {"pitch": 0.0})
        yield compose(Cues(face, voice, Informative(bool(face), bool(voice))), rng)


def sayable(cues: Cues, modality: Modality, *, slight: bool = False) -> list[Claimed]:
    """What there is to say of a modality, in order: what is marked and, beside that, what is `slight` if asked for."""
    if cues.hidden(modality):
        return [(modality, HIDDEN, 1)]
    if cues.at_rest(modality):
        return [(modality, EXPRESSION if modality == "face" else PROSODY, 0)]
    marked = [claimed for claimed in cues.salient() if claimed[0] == modality]
    return _in_order([*marked, *_slight(cues, modality)]) if slight and marked else marked


def _slight(cues: Cues, modality: Modality) -> list[Claimed]:
    """What is there without being marked; of raised brows and raised inner brows only the first is news."""
    if modality == "voice":
        of_voice: list[Claimed] = [
            ("voice", dimension, 1 if value > 0 else -1)
            for dimension, value in cues.voice.items()
            if VOICE_PRESENT <= abs(value) < VOICE_SALIENT
        ]
        return [claimed for claimed in of_voice if claimed in SURFACE]
    there = {a: value for a in FACE_ACTIONS if (value := cues.face_value(a) or 0.0) >= FACE_PRESENT}
    implied = {ENTAILS[action] for action in there if action in ENTAILS}
    return [
        ("face", action, 1)
        for action, value in there.items()
        if value < FACE_SALIENT and action not in implied
    ]


def _only(
    clear: Collection[Claimed], plan: dict[Modality, list[Claimed]]
) -> dict[Modality, list[Claimed]]:
    """What is clear, and that a face or voice is hidden."""
    return {
        modality: kept
        for modality, claimed in plan.items()
        if (kept := [c for c in claimed if c in clear or c[1] == HIDDEN])
    }


def _shorten(cues: Cues, plan: dict[Modality, list[Claimed]]) -> dict[Modality, list[Claimed]]:
    """At most `MOST_CLAIMS`: the strongest of each modality, half of them each where both have that many."""
    half = MOST_CLAIMS // 2
    room = {
        modality: MOST_CLAIMS - min(half, sum(len(c) for m, c in plan.items() if m != modality))
        for modality in plan
    }
    return {
        modality: _in_order(sorted(claimed, key=lambda c: -_strength(cues, c))[: room[modality]])
        for modality, claimed in plan.items()
    }


def _fill(cues: Cues, plan: dict[Modality, list[Claimed]]) -> dict[Modality, list[Claimed]]:
    """Add the strongest of what is there but slight, beside something salient of the same modality."""
    said = [claimed for several in plan.values() for claimed in several]
    # Neither at rest nor hidden.
    spoken_of = [m for m, several in plan.items() if several[0][1] in _ORDER]
    news = [claimed for modality in spoken_of for claimed in _slight(cues, modality)]
    news.sort(key=lambda claimed: -_strength(cues, claimed))
    for claimed in news[: LEAST_CLAIMS - len(said)]:
        plan = {**plan, claimed[0]: _in_order([*plan[claimed[0]], claimed])}
    return plan


def _in_order(claimed: list[Claimed]) -> list[Claimed]:
    return sorted(claimed, key=lambda c: _ORDER.get(c[1], 0))


def _strength(cues: Cues, claimed: Claimed) -> float:
    """How far a cue is above what makes it salient, on one scale for face and voice."""
    modality, cue, _ = claimed
    if cue not in _ORDER:
        return 0.0
    if modality == "face":
        return (cues.face_value(cue) or 0.0) / FACE_SALIENT
    return abs(cues.voice[cue]) / VOICE_SALIENT
