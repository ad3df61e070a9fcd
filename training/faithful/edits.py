"""Changes to any clip that need no renderer: what it shows and sounds like, less or other than it was.

Shape suffixes as elsewhere: frames (T, H, W, 3) uint8 RGB, pcm (S,) float32 mono 16 kHz.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import parselmouth
from numpy.typing import NDArray

from emostream.errors import MediaError
from emostream.media import load_clip
from emostream.sampling import SAMPLE_RATE_HZ
from training.claims.claim import HIDDEN, Claim
from training.claims.measure import measure_voice
from training.data.clip_encoding import Edit
from training.data.manifest import Row, clip_key

Frames = NDArray[np.uint8]
Pcm = NDArray[np.float32]
Key = tuple[str, str, int, bool]

#: How far the voice is moved: semitones, decibels.
PITCH_ST: Final = 4.0
LEVEL_DB: Final = 9.0
_SEEN, _HEARD = frozenset({"video"}), frozenset({"audio"})
_BLUR: Final = 0.12  # standard deviation over the picture's width: no feature of a face is left


@dataclass(frozen=True, slots=True)
class Expected:
    """What should come of an edit.

    Attributes:
        needs: Of `video` and `audio`, what a clip must have; others are left out.
        goes: Whether a claim should go.
        stays: Whether it should stay; some claims may do either.
        comes: The claim that should come, if it was not made.
        same_label: The answer should not change.
    """

    needs: frozenset[str]
    goes: Callable[[Claim], bool]
    stays: Callable[[Claim], bool]
    comes: Key | None = None
    same_label: bool = False


def edits(rows: Sequence[Row]) -> dict[str, tuple[Edit, Expected]]:
    """Every edit by its name; the other clip's sound is that of the next row whose label is another."""
    return {
        "mute": (lambda _, frames, pcm: (frames, None), _without("voice")),
        "other_sound": (_other_sound(rows), Expected(_HEARD, _never, _of("face"))),
        "hidden": (lambda _, frames, pcm: (None, pcm), _without("face")),
        "blurred": (lambda _, frames, pcm: (_each(frames, blurred), pcm), _without("face", _SEEN)),
        "mirrored": (
            lambda _, frames, pcm: (_each(frames, mirrored), pcm),
            Expected(_SEEN, _never, _always, same_label=True),
        ),
        "pitch_up": _voice(lambda pcm: pitched(pcm, PITCH_ST), "pitch", 1),
        "pitch_down": _voice(lambda pcm: pitched(pcm, -PITCH_ST), "pitch", -1),
        "louder": _voice(lambda pcm: levelled(pcm, LEVEL_DB), "loudness", 1),
        "softer": _voice(lambda pcm: levelled(pcm, -LEVEL_DB), "loudness", -1),
    }


EDITS: Final[Mapping[str, str]] = {
    "mute": "no sound",
    "other_sound": "the sound of a clip of another label",
    "hidden": "no pictures",
    "blurred": "pictures so blurred that no feature of a face is left",
    "mirrored": "pictures mirrored",
    "pitch_up": "the voice 4 semitones higher, by Praat",
    "pitch_down": "4 semitones lower",
    "louder": "the sound 9 dB louder, limited",
    "softer": "9 dB softer",
}


def blurred(frames: Frames) -> Frames:
    """(T, H, W, 3) likewise."""
    sigma = _BLUR * frames.shape[2]
    return np.stack([cv2.GaussianBlur(frame, (0, 0), sigma) for frame in frames])


def mirrored(frames: Frames) -> Frames:
    """(T, H, W, 3) likewise, left and right exchanged."""
    return np.ascontiguousarray(frames[:, :, ::-1])


def pitched(pcm: Pcm, semitones: float) -> Pcm:
    """The same speech at another pitch; formants, pace and level are kept. Sound without a voice is left as it is."""
    found = measure_voice(pcm)
    if found is None:
        return pcm
    median_hz = 100.0 * 2 ** ((found.pitch + semitones) / 12)
    sound = parselmouth.Sound(pcm.astype(np.float64), sampling_frequency=SAMPLE_RATE_HZ)
    # Floor, ceiling, formant shift, new median, range, duration.
    settings = (60.0, 700.0, 1.0, median_hz, 1.0, 1.0)
    moved = parselmouth.praat.call(sound, "Change gender", *settings).values[0]
    out = np.zeros_like(pcm)
    size = min(len(moved), len(pcm))
    out[:size] = moved[:size]
    out *= np.sqrt(np.mean(pcm**2)) / max(float(np.sqrt(np.mean(out**2))), 1e-9)
    return np.clip(out, -1.0, 1.0)


def levelled(pcm: Pcm, decibel: float) -> Pcm:
    """Louder or softer; what would clip is limited."""
    return np.asarray(np.clip(pcm * np.float32(10 ** (decibel / 20)), -1.0, 1.0), np.float32)


def _each(frames: Frames | None, change: Callable[[Frames], Frames]) -> Frames | None:
    return None if frames is None else change(frames)


def _voice(change: Callable[[Pcm], Pcm], dimension: str, direction: int) -> tuple[Edit, Expected]:
    gone = ("voice", dimension, -direction, False)
    comes = ("voice", dimension, direction, False)
    expected = Expected(_HEARD, lambda claim: claim.key == gone, _of("face"), comes)
    return lambda _, frames, pcm: (frames, None if pcm is None else change(pcm)), expected


def _without(modality: str, needs: frozenset[str] = _SEEN | _HEARD) -> Expected:
    other = "voice" if modality == "face" else "face"
    return Expected(needs, _of(modality), _of(other))


def _of(modality: str) -> Callable[[Claim], bool]:
    return lambda claim: claim.modality == modality and claim.cue != HIDDEN


def _always(_: Claim) -> bool:
    return True


def _never(_: Claim) -> bool:
    return False


def _other_sound(rows: Sequence[Row]) -> Edit:
    partners = {}
    for at, row in enumerate(rows):
        order = [*rows[at + 1 :], *rows[:at]]
        partners[clip_key(row)] = next((other for other in order if other.label != row.label), None)

    def swapped(
        row: Row, frames: Frames | None, pcm: Pcm | None
    ) -> tuple[Frames | None, Pcm | None]:
        other = partners.get(clip_key(row))
        if other is None or pcm is None:
            return frames, None
        try:
            sound = load_clip(other.path, 1, other.start_s, other.end_s, need={"audio"}).audio
        except MediaError:
            return frames, None
        return frames, sound

    return swapped
