"""Counterfactual twins: a clip once more with one cause changed, and every other random draw as it was.

What a model says of the twin is held against what it said of the clip: a claim whose cause is gone should go, the
others should stay. A change has a name, `face.lip_corners_up`, `voice.pitch`, `face`, `voice`, `both`, `actor` or
`take`, and belongs to one of `KINDS`.

Draws are equal one by one. Where a change asks for fewer or more of them (a faster voice has more syllables, a higher
one more cycles), those that both have are equal. Pictures and sound then differ by what the cause touches: lips and
head move with the voice, so its loudness, pace, pauses and tremor show a little; nothing of the face is heard.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from emostream.errors import ConfigError
from training.data.cues import FACE_ACTIONS, Cues, Modality
from training.data.manifest import Row
from training.synth.acting import PROSODY, Acting, evident_cues
from training.synth.actors import CAST_SIZE, cast_actor
from training.synth.clip import SIZE_PX, Frames, Pcm, clip_name, clip_row, film, frame_times, speak
from training.synth.draws import Kept, recording, repeating
from training.synth.script import Script
from training.synth.speech import plan_speech

KINDS: Final[Mapping[str, str]] = {
    "face_cue": "one marked action of the face is at rest",
    "voice_cue": "one marked dimension of the voice is as usual",
    "face": "the face is neutral",
    "voice": "the voice is neutral",
    "both": "face and voice are neutral",
    "actor": "somebody else does the same",
    "take": "the same again with other words, movements and noise: nothing should change",
}
MANIFEST: Final = "twins.jsonl"
TWIN_OF: Final = "twin_of"
CHANGE: Final = "change"
KIND: Final = "kind"
"""File of the twins beside a corpus's manifest, and what their `meta` says: the clip's path in the corpus, the change,
its kind."""


def check_kinds(kinds: Sequence[str]) -> None:
    """Refuse unknown kinds.

    Raises:
        ConfigError: One is not of `KINDS`.
    """
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise ConfigError(f"twins: unknown kind {unknown[0]!r}; wanted some of {', '.join(KINDS)}")


def changes(script: Script) -> dict[str, tuple[str, ...]]:
    """The changes that a clip offers, by kind: only what can be seen or heard can be taken away."""
    cues = evident_cues(script.acting, script.label)
    marked: dict[str, list[str]] = {"face": [], "voice": []}
    for modality, cue, _ in cues.salient():
        marked[modality].append(f"{modality}.{cue}")
    return {
        "face_cue": tuple(marked["face"]),
        "voice_cue": tuple(marked["voice"]),
        "face": ("face",) if marked["face"] else (),
        "voice": ("voice",) if marked["voice"] else (),
        "both": ("both",) if marked["face"] and marked["voice"] else (),
        "actor": ("actor",),
        "take": ("take",),
    }


def chosen_change(script: Script, kind: str) -> str | None:
    """One change of a kind, by the clip's own numbers; None if it offers none."""
    offered = changes(script)[kind]
    if not offered:
        return None
    return offered[int(script.rng(f"twin {kind}").integers(len(offered)))]


def counterfactual(script: Script, change: str) -> Script:
    """The script with one cause changed.

    Args:
        script: The clip's.
        change: One of `changes(script)`.

    Returns:
        Its label is what the rest of the acting says: without any expression, `neutral`.
    """
    if change == "take":
        return replace(script, take=script.take + 1)
    if change == "actor":
        rng = script.rng("twin cast")
        number = int(script.actor.id.rpartition("-")[2])
        other = (number + 1 + int(rng.integers(CAST_SIZE[script.split] - 1))) % CAST_SIZE[
            script.split
        ]
        return replace(script, actor=cast_actor(script.split, other))
    acting = script.acting
    modality, _, cue = change.partition(".")
    if modality in ("face", "both"):
        units = dict(acting.face.action_units)
        # At rest, not left out: an empty face would not lean either.
        units |= dict.fromkeys(FACE_ACTIONS[cue] if cue else units, 0.0)
        emotion = acting.face.emotion if cue else "neutral"
        acting = replace(acting, face=replace(acting.face, action_units=units, emotion=emotion))
    if modality in ("voice", "both"):
        prosody = {**acting.voice.prosody, **dict.fromkeys([cue] if cue else PROSODY, 0.0)}
        emotion = acting.voice.emotion if cue else "neutral"
        acting = replace(acting, voice=replace(acting.voice, prosody=prosody, emotion=emotion))
    return replace(
        script, acting=acting, label=script.label if cue else _told(acting, script.label)
    )


def _told(acting: Acting, label: str) -> str:
    """The emotion that what is left tells: the clip's own if anything does."""
    cues = evident_cues(acting, label)
    told = [
        emotion
        for emotion, there in ((acting.face.emotion, cues.face), (acting.voice.emotion, cues.voice))
        if there and emotion != "neutral"
    ]
    return label if label in told else next(iter(told), "neutral")


def twin_name(index: int, kind: str) -> str:
    """Path of a twin's file inside the corpus folder."""
    return f"twins/{index:06d}-{kind}.mp4"


def twin_row(script: Script, kind: str, change: str) -> Row:
    """The manifest row of a twin; its path is relative to the corpus folder."""
    row = clip_row(counterfactual(script, change))
    links = {TWIN_OF: clip_name(script.index), CHANGE: change, KIND: kind}
    return replace(row, path=Path(twin_name(script.index, kind)), meta={**row.meta, **links})


def clip_of(twin: Row) -> Path:
    """The path of the clip that a twin read from its manifest is of."""
    return Path(twin.path.parent.parent, twin.meta[TWIN_OF])


def gone(clip: Cues, twin: Cues) -> set[tuple[Modality, str, int]]:
    """What was marked in the clip and is not in the twin: (modality, cue, direction)."""
    return set(clip.salient()) - set(twin.salient())


def render_twin(
    script: Script,
    change: str,
    *,
    times_s: NDArray[np.float64] | None = None,
    size_px: int = SIZE_PX,
) -> tuple[Frames, Pcm]:
    """The pictures and sound of a twin.

    Args:
        script: The clip's script.
        change: One of `changes(script)`.
        times_s: (F,) instants to show; None for every frame of the file.
        size_px: Width and height.

    Returns:
        frames (F, size_px, size_px, 3) uint8 RGB and pcm (S,) float32 mono 16 kHz.
    """
    twin = counterfactual(script, change)
    times = frame_times(twin) if times_s is None else times_s
    if twin.take != script.take:
        speech = plan_speech(twin)
        return film(twin, speech, times, size_px), speak(twin, speech)
    words: Kept = {}
    sound: Kept = {}
    spoken = plan_speech(script, recording(script.rng("speech"), words))
    speak(script, spoken, recording(script.rng("voice"), sound))
    speech = plan_speech(twin, repeating(words, script.rng("speech, more")))
    pcm = speak(twin, speech, repeating(sound, script.rng("voice, more")))
    return film(twin, speech, times, size_px), pcm
