"""What the model is given: one window of synchronised video and sound."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stream.pubsub.messages import Dropped, Modalities, Presence
from stream.transport.protocol import PCM_RATE_HZ
from stream.windows.audio_timeline import AudioTimeline

GAP_TOLERATED = 16  # samples, 1 ms: the rounding of joints between chunks, inaudible


@dataclass(frozen=True, kw_only=True, slots=True)
class GridFrame:
    """The frame of one grid point.

    Attributes:
        key: grid index of the frame itself.
        time_s: when it was captured.
        rgb: uint8 (H, W, 3) RGB, read-only by convention.
        repeated: the grid point had no frame of its own and this one stands in.
        whose: number of the person whose face was cut out of it; None if it is whole. The same key and `whose` are the
            same picture, so that what was computed for it holds.
    """

    key: int
    time_s: float
    rgb: NDArray[np.uint8]
    repeated: bool
    whose: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """Synchronised video and sound of (start_s, end_s].

    Attributes:
        source: source name.
        id: grid index of `end_s`; a gap between consecutive windows is what was skipped.
        start_s: end_s - window_s; of a short source, where it begins.
        end_s: id * step_s; of a short source, where it ends.
        frames: num_frames frames, oldest first; empty when video is missing.
        pcm: float32 (S,) mono 16 kHz in [-1, 1], gaps zero; None when audio is missing. S is window_s * 16000, less if
            the source is short or the model hears less at a time.
        modalities: `ok`; `degraded`, with repeats or gaps; `missing`, more than half of it, so that it takes no part.
            Of a short source all that there is takes part.
        frames_used: distinct frames in `frames`.
        audio_gap_ms: milliseconds of sound that the model does not hear: not captured (all of them without a
            microphone), or more than it takes at a time.
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


def presence(missing: int, of: int, *, tolerated: int = 0, whole: bool = False) -> Presence:
    """What is said of a modality of which so much is missing.

    Args:
        missing: Grid points or samples without anything of their own.
        of: How many there are.
        tolerated: So many missing are still `ok`.
        whole: The window is all of a short source: any of it takes part.
    """
    if missing >= of or (2 * missing > of and not whole):
        return "missing"
    return "degraded" if missing > tolerated else "ok"


def short_video(times_s: Sequence[float], start_s: float, end_s: float, step_s: float) -> Presence:
    """What is said of a short source's video: `degraded` if a frame repeats, or it covers a part only.

    Args:
        times_s: Times of the window's frames, oldest first.
        start_s: Start of the source.
        end_s: Its end.
        step_s: Grid step: how far from either end frames may begin and stop.
    """
    if not times_s:
        return "missing"
    covers = times_s[0] - start_s < step_s and end_s - times_s[-1] < step_s
    return "ok" if covers and len(set(times_s)) == len(times_s) else "degraded"


def make_window(
    *,
    source: str,
    id: int,
    start_s: float,
    end_s: float,
    frames: tuple[GridFrame, ...],
    video: Presence,
    timeline: AudioTimeline,
    most_samples: int,
    dropped: Dropped,
    whole: bool = False,
) -> Window:
    """A window of frames that were chosen and of the sound between its ends.

    Args:
        source: Source name.
        id: Grid index of its end.
        start_s: Start, source clock.
        end_s: End.
        frames: One for each grid point, oldest first.
        video: What is said of them; `missing` gives the model none.
        timeline: Where the sound is.
        most_samples: Sound that the model hears at a time: of more, the newest.
        dropped: What was lost before, cumulative.
        whole: The window is all of a short source: any of its sound takes part.
    """
    first, stop = (round(time_s * PCM_RATE_HZ) for time_s in (start_s, end_s))
    start = max(first, stop - most_samples)
    sound = timeline.read(start, stop)
    audio = presence(sound.gap, stop - start, tolerated=GAP_TOLERATED, whole=whole)
    if audio == "ok" and start > first:
        audio = "degraded"
    if video == "missing":
        frames = ()
    frame_s = max((frame.time_s for frame in frames), default=None)
    sample_s = None
    if audio != "missing" and sound.end is not None:
        sample_s = sound.end / PCM_RATE_HZ
    return Window(
        source=source,
        id=id,
        start_s=start_s,
        end_s=end_s,
        frames=frames,
        pcm=sound.pcm if audio != "missing" else None,
        modalities=Modalities(video=video, audio=audio),
        frames_used=len({frame.key for frame in frames}),
        audio_gap_ms=1000 * (sound.gap + start - first) / PCM_RATE_HZ,
        av_skew_ms=None if frame_s is None or sample_s is None else 1000 * (sample_s - frame_s),
        newest_capture_s=max((t for t in (frame_s, sample_s) if t is not None), default=None),
        dropped=dropped,
    )
