"""What the model is given: one window of synchronised video and sound."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stream.pubsub.messages import Dropped, Modalities


@dataclass(frozen=True, kw_only=True, slots=True)
class GridFrame:
    """The frame of one grid point.

    Attributes:
        key: grid index of the frame itself; the same key is the same picture, so that what was computed for it holds.
        time_s: when it was captured.
        rgb: uint8 (H, W, 3) RGB, read-only by convention.
        repeated: the grid point had no frame of its own and this one stands in.
    """

    key: int
    time_s: float
    rgb: NDArray[np.uint8]
    repeated: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """Synchronised video and sound of (start_s, end_s].

    Attributes:
        source: source name.
        id: grid index of `end_s`; a gap between consecutive windows is what was skipped.
        start_s: end_s - window_s.
        end_s: id * step_s.
        frames: num_frames frames, oldest first; empty when video is missing.
        pcm: float32 (window_s * 16000,) mono 16 kHz in [-1, 1], gaps zero; None when audio is missing.
        modalities: `ok`; `degraded`, with repeats or gaps; `missing`, more than half of it, so that it takes no part.
        frames_used: distinct frames in `frames`.
        audio_gap_ms: milliseconds of sound that were not captured (all of them without a microphone).
        av_skew_ms: capture time of the newest audio sample in the window less that of its newest frame; None unless
            both take part. At 30 fps it lies within 0 … 33 ms by nature.
        newest_capture_s: capture time of the newest frame or sample that takes part; None when both are missing.
        dropped: what was lost before the model saw it, cumulative.
    """

    source: str
    id: int
    start_s: float
    end_s: float
    frames: tuple[GridFrame, ...]
    pcm: NDArray[np.float32] | None
    modalities: Modalities
    frames_used: int
    audio_gap_ms: float
    av_skew_ms: float | None
    newest_capture_s: float | None
    dropped: Dropped

    @property
    def lost(self) -> bool:
        """Neither video nor audio takes part: no label can be given."""
        return not self.frames and self.pcm is None
