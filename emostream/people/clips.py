"""What a checkpoint is shown of a clip: what live use shows it of a window.

T frames, H and W their height and width, S samples of 16 kHz.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emostream.people.crop import crop_faces
from emostream.people.presence import Absent, People, Scene, attendance, several
from emostream.people.speech import CHUNK

#: Seconds between the frames of a live window. Of a longer clip they are looked at as if they came as fast, or who is
#: missed in one of them would have left.
STEP_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownClip:
    """A clip without what nobody is in.

    Attributes:
        frames: (T, size, size, 3) uint8 RGB, the face in each; None without pictures, or without a person in them.
        audio: (S,) float32; None without sound, or without speech in it.
        absent: Why a modality was left out.
        spoken: Where in the sound somebody speaks: sample numbers, the second one behind the stretch.
    """

    frames: NDArray[np.uint8] | None
    audio: NDArray[np.float32] | None
    absent: Absent
    spoken: tuple[tuple[int, int], ...] = ()


def shown_clip(
    frames: NDArray[np.uint8] | None,
    times_s: Sequence[float],
    audio: NDArray[np.float32] | None,
    *,
    size_px: int,
    margin: float,
) -> ShownClip:
    """What a checkpoint with `frame_crop: face` is shown of a clip: what `infer` shows it of a window as short.

    Args:
        frames: (T, H, W, 3) uint8 RGB, oldest first; None without pictures.
        times_s: T, when each was shown; one that is repeated has the same time again.
        audio: (S,) float32, mono, 16 kHz, in [-1, 1]; None without sound.
        size_px: Side of the pictures that the checkpoint takes.
        margin: Its `crop_margin`.

    Raises:
        CheckpointError: The weights that ship with this package are damaged.
    """
    people = People()
    scenes: list[Scene] = []
    if frames is not None:
        length_s = times_s[-1] - times_s[0]
        slower = min(1.0, STEP_S * (len(times_s) - 1) / length_s) if length_s else 1.0
        for place, (time_s, rgb) in enumerate(zip(times_s, frames, strict=True)):
            if place and time_s == times_s[place - 1]:
                scenes.append(scenes[-1])
            else:
                scenes.append(people.see(slower * time_s, rgb))
    ratio = None if audio is None or audio.size < CHUNK else people.hear(0, audio)
    found = attendance(scenes[-1] if scenes else None, ratio, crowd=several(scenes))
    if found.absent.video is not None:
        frames = None
    elif frames is not None and found.face is not None:
        frames = crop_faces(
            frames,
            [
                who.box if who and who.seen and who.track == found.face.track else None
                for who in (scene.shown[0] for scene in scenes)
            ],
            size_px=size_px,
            margin=margin,
        )
    if found.absent.audio is not None:
        audio = None
    spoken = () if audio is None else tuple(people.spoken)
    return ShownClip(frames=frames, audio=audio, absent=found.absent, spoken=spoken)
