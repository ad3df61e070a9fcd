"""What the two channels of a synthetic clip do, and what of it a manifest records.

`FaceActing` and `VoiceActing` are the director's view: everything acted, hidden or not. `evident_cues` is the
audience's: `training.data.cues.Cues` with only what can be seen and heard.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from training.data.cues import FACE_UNITS, VOICE_DIMENSIONS, Cues, Informative

#: Order of every array over action units. AU14 is always at rest: no emotion here is acted with it.
ACTION_UNITS: Final = tuple(FACE_UNITS)

#: Order of every array over prosody: the recorded dimensions, and the F0 movement at the ends of
#: phrases (+ rising, - falling), which is acted but not part of the recorded schema.
PROSODY: Final = (*VOICE_DIMENSIONS, "contour")

REGIONS: Final[Mapping[str, frozenset[str]]] = {
    "brows": frozenset({"AU1", "AU2", "AU4"}),
    "eyes": frozenset({"AU5", "AU6", "AU7", "AU43", "AU64"}),
    "mouth": frozenset(
        {"AU9", "AU10", "AU12", "AU14", "AU15", "AU17", "AU20", "AU23", "AU24", "AU25", "AU26", "AU27"}
    ),
}  # fmt: skip
WHOLE_FACE: Final = tuple(REGIONS)

FaceState = Literal["expressive", "neutral", "occluded", "turned", "absent"]
VoiceState = Literal["expressive", "neutral", "silent", "muted", "noise"]


@dataclass(frozen=True, kw_only=True, slots=True)
class FaceActing:
    """The acted face; times are on the clip's clock.

    Attributes:
        state: The expression is shown, the face stays neutral (deadpan) instead, or it cannot be
            seen: behind an object, turned away, out of the picture.
        emotion: What the face acts: the clip's label, `neutral`, or in conflict another one.
        action_units: Name to intensity at apex in [0, 1]; absent means at rest.
        covered: Regions behind an object; `WHOLE_FACE` where nothing can be seen.
        onset_s: The expression starts.
        apex_s: It is full.
        offset_s: It starts to fade.
        end_s: It has faded.
        blinks_s: Instants of full closure (AU45).
    """

    state: FaceState
    emotion: str
    action_units: Mapping[str, float]
    covered: tuple[str, ...]
    onset_s: float
    apex_s: float
    offset_s: float
    end_s: float
    blinks_s: tuple[float, ...]

    @property
    def hidden(self) -> bool:
        """Whether no part of the face can be seen."""
        return set(self.covered) == set(WHOLE_FACE)


@dataclass(frozen=True, kw_only=True, slots=True)
class VoiceActing:
    """The acted voice.

    Attributes:
        state: The emotion is heard, a flat neutral voice instead, nothing is said (`silent`), the
            microphone is muted while the lips move (`muted`), or noise covers the words (`noise`).
        emotion: What the voice acts.
        prosody: Name in `PROSODY` to deviation from the speaker's neutral voice, z.
    """

    state: VoiceState
    emotion: str
    prosody: Mapping[str, float]

    @property
    def audible(self) -> bool:
        """Whether prosody can be heard."""
        return self.state in ("expressive", "neutral")


@dataclass(frozen=True, kw_only=True, slots=True)
class Acting:
    """Both channels of a clip.

    Attributes:
        intensity: 0 to 1, how strongly the label is acted.
        conflict: The modality that mildly shows another emotion.
        style: The renderer's style.
        voice_type: The kind of recording.
    """

    intensity: float
    conflict: Literal["face", "voice"] | None
    style: str
    voice_type: str
    face: FaceActing
    voice: VoiceActing


def evident_cues(acting: Acting, label: str) -> Cues:
    """What a viewer and listener can find in the clip.

    An uncovered action unit at rest is recorded as 0; a covered one is left out; a hidden face and
    an inaudible voice are empty. A deadpan face or flat voice on an emotional clip, and the weak
    channel of a conflict, are recorded but not informative: they say nothing of the label.
    """
    face, voice = acting.face, acting.voice
    covered = frozenset().union(*(REGIONS[region] for region in face.covered))
    units = {
        name: round(face.action_units.get(name, 0.0), 3)
        for name in ACTION_UNITS
        if name not in covered and not face.hidden
    }
    heard = {n: round(voice.prosody[n], 3) for n in VOICE_DIMENSIONS} if voice.audible else {}
    shown = label == "neutral" or any(value >= 0.15 for value in units.values())
    return Cues(
        face=units,
        voice=heard,
        informative=Informative(
            video=bool(units) and face.emotion == label and shown,
            audio=bool(heard) and voice.emotion == label,
        ),
    )


def acting_meta(acting: Acting) -> dict[str, Any]:
    """The rest of what was decided, for analysis: the `meta` of a manifest row, JSON types only."""
    face, voice = acting.face, acting.voice
    return {
        "intensity": round(acting.intensity, 3),
        "conflict": acting.conflict,
        "style": acting.style,
        "voice_type": acting.voice_type,
        "face_state": face.state,
        "face_emotion": face.emotion,
        "face_covered": list(face.covered),
        "face_timing_s": [
            round(t, 3) for t in (face.onset_s, face.apex_s, face.offset_s, face.end_s)
        ],
        "blinks_s": [round(t, 3) for t in face.blinks_s],
        "voice_state": voice.state,
        "voice_emotion": voice.emotion,
        "contour": round(voice.prosody["contour"], 3),
    }
