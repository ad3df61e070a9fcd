"""Windows of synchronised video and sound, cut by capture time.

Pure: it is given data and the time, and never reads a clock or a socket. All times are on the source clock.

Window k covers (t_k - window_s, t_k] with t_k = k * step_s and step_s = window_s / num_frames. It is *ready* when each
modality that is delivering has been received up to t_k, or `lateness_s` after t_k at the latest.

A source that ends before the first window is over is *short*: it has one window, of all that there is.
"""

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from emostream.errors import ConfigError
from emostream.sampling import (
    grid_frames,
    grid_index,
    grid_time,
    nearest_index,
    segment_midpoint_indices,
)
from stream.pubsub.messages import Dropped
from stream.transport.protocol import LATENESS_S, PCM_RATE_HZ, Modality
from stream.windows.audio_timeline import AudioTimeline, gap_of
from stream.windows.window import GridFrame, Window, make_window, presence, short_video


class _Progress:
    """How far one modality has come."""

    def __init__(self, lateness_s: float, *, awaited: bool) -> None:
        self.lateness_s = lateness_s
        self.watermark_s = -math.inf  # everything captured at or before it has been received
        self.awaited = awaited  # has begun to deliver, and is neither lost nor ended
        self.ended = False

    def reach(self, time_s: float) -> None:
        if time_s > self.watermark_s:
            self.watermark_s = time_s
            self.awaited = not self.ended

    def satisfied(self, end_s: float, now_s: float | None) -> bool:
        late = now_s is not None and now_s >= end_s + self.lateness_s
        return late or self.watermark_s >= end_s or not self.awaited


class Windower:
    """Collects one source's frames and sound and cuts windows from them. Not thread-safe.

    Data may come in any order and any pieces. What comes after its window was cut still serves later windows, except
    that a grid point that had a frame keeps it. Memory is bounded: live, windows that nobody takes are skipped and
    counted; lossless, the sender waits for credit.

    Args:
        source: source name.
        window_s: length of a window in seconds.
        num_frames: grid points in a window.
        hop_steps: grid steps from one window to the next.
        modalities: what the source delivers; a modality that is not named is missing throughout.
        origin_s: when the source begins: 0 for files, the time of going live for devices. The first window is the
            first that begins at or after it on the grid.
        lossless: every window is cut, in order, on watermarks alone (`--pace max`); else the newest ready one is.
        video_lateness_s: how long after its end a window waits for frames.
        audio_lateness_s: how long after its end a window waits for sound.

    Raises:
        ConfigError: a value is out of range.
    """

    def __init__(
        self,
        source: str,
        *,
        window_s: float = 4.0,
        num_frames: int = 8,
        hop_steps: int = 1,
        modalities: Iterable[Modality] = ("video", "audio"),
        origin_s: float = 0.0,
        lossless: bool = False,
        video_lateness_s: float = LATENESS_S,
        audio_lateness_s: float = LATENESS_S,
    ) -> None:
        if not window_s > 0 or num_frames < 1 or hop_steps < 1:
            raise ConfigError(
                f"windower {source}: wanted window_s > 0, num_frames >= 1 and hop_steps >= 1, "
                f"found {window_s}, {num_frames}, {hop_steps}"
            )
        lateness: dict[Modality, float] = {"video": video_lateness_s, "audio": audio_lateness_s}
        self.source = source
        self.step_s = window_s / num_frames
        self._window_s = window_s
        self._num_frames = num_frames
        self._hop = hop_steps
        self._lossless = lossless
        self._samples = round(window_s * PCM_RATE_HZ)
        self._progress = {
            # Live, a device that may never come is not waited for; a file must not lose its slower modality.
            modality: _Progress(lateness[modality], awaited=lossless)
            for modality in modalities
        }
        self._first = grid_index(origin_s, self.step_s) + num_frames
        self._next = self._first  # the window that is cut next
        self._cells: dict[int, tuple[float, NDArray[np.uint8]]] = {}
        self._opening: dict[float, NDArray[np.uint8]] = {}  # until the first window is cut, by time
        self._most_samples = self._samples
        self._audio = AudioTimeline()
        self._used = -math.inf  # grid points up to it have been part of a window
        self._data_end_s = -math.inf
        self._capture_frames = 0
        self._capture_audio_ms = 0.0
        self._late_frames = 0
        self._late_samples = 0
        self._skipped = 0

    # What arrives

    def add_frame(
        self, time_s: float, rgb: NDArray[np.uint8], watermark_s: float | None = None
    ) -> None:
        """Add a frame captured at `time_s`, uint8 (H, W, 3) RGB; `watermark_s` as in `watermark`.

        By itself a frame also says that no earlier one will follow.
        """
        if self._next == self._first:
            self._opening[time_s] = rgb
        cell = grid_index(time_s, self.step_s)
        held = self._cells.get(cell)
        if held is not None and (cell <= self._used or time_s <= held[0]):
            self._late_frames += cell <= self._used and time_s != held[0]
        elif cell <= self._next - self._num_frames and any(
            cell < other <= self._next - self._num_frames for other in self._cells
        ):
            self._late_frames += self._next > self._first  # no window to come can use it
        else:
            self._cells[cell] = (time_s, rgb)
        self._data_end_s = max(self._data_end_s, time_s)
        self._reach("video", time_s if watermark_s is None else max(time_s, watermark_s))

    def add_pcm(self, start_s: float, pcm: NDArray[np.float32], gap_samples: int = 0) -> None:
        """Add sound.

        Args:
            start_s: when its first sample was captured.
            pcm: float32 (S,) mono 16 kHz in [-1, 1].
            gap_samples: how many of the S samples stand for sound that the medium lacks, so that they count as a gap.
        """
        start = round(start_s * PCM_RATE_HZ)
        if self._next > self._first:
            self._late_samples += min(max(0, self._audio_from() - start), pcm.size)
        self._audio.write(start, pcm, gap_of(pcm, gap_samples))
        end_s = (start + pcm.size) / PCM_RATE_HZ
        self._data_end_s = max(self._data_end_s, end_s)
        self._reach("audio", end_s)

    def watermark(self, modality: Modality, time_s: float) -> None:
        """Nothing of `modality` captured at or before `time_s` will follow."""
        self._reach(modality, time_s)

    def mark_lost(self, modality: Modality) -> None:
        """The device is gone: do not wait for it until it delivers again."""
        if modality in self._progress:
            self._progress[modality].awaited = False

    def mark_end(self, modalities: Iterable[Modality] = ("video", "audio")) -> None:
        """The file is over for `modalities`: nothing more will follow."""
        for modality in modalities:
            if modality in self._progress:
                self._progress[modality].awaited = False
                self._progress[modality].ended = True

    def set_lateness(self, modality: Modality, lateness_s: float) -> None:
        """Wait so long after a window's end for what `modality` has captured until then."""
        if modality in self._progress:
            self._progress[modality].lateness_s = lateness_s

    def limit_sound(self, samples: int) -> None:
        """Of each window give the newest `samples` of sound only, as more is not for this model; the rest counts."""
        self._most_samples = min(samples, self._samples)

    def note_dropped(self, *, frames: int | None = None, audio_ms: float | None = None) -> None:
        """What capture has dropped so far, cumulative; None leaves a count as it was."""
        self._capture_frames = self._capture_frames if frames is None else frames
        self._capture_audio_ms = self._capture_audio_ms if audio_ms is None else audio_ms

    # What is cut

    def ready(self, now_s: float | None = None) -> bool:
        """Whether `advance` would return a window."""
        return self._is_ready(self._next, now_s)

    def advance(self, now_s: float | None = None) -> Window | None:
        """Cut the next window, None while none is ready.

        Live, the newest ready one; older ones are skipped and counted, never queued, so call it when the model is
        free. Lossless, the oldest; call it until it returns None.

        Args:
            now_s: the time; not used if lossless.
        """
        if not self._is_ready(self._next, now_s):
            return None
        while not self._lossless and self._is_ready(self._next + self._hop, now_s):
            self._next += self._hop
            self._skipped += 1
        window = self._cut(self._next)
        self._used = self._next
        self._next += self._hop
        self._forget()
        return window

    @property
    def deadline_s(self) -> float:
        """When the next window is ready at the latest (live)."""
        return self._deadline_s(grid_time(self._next, self.step_s))

    @property
    def finished(self) -> bool:
        """Whether every modality has ended and no window is left."""
        return self._all_ended and self._next > self._last()

    @property
    def skipped(self) -> int:
        """Windows that were ready, or could have been, and never cut."""
        return self._skipped

    def _is_ready(self, k: int, now_s: float | None) -> bool:
        if self._lossless:
            now_s = None
        progresses = self._progress.values()
        if self._all_ended:
            return k <= self._last()
        end_s = grid_time(k, self.step_s)
        if self._lossless and not self._reached(k):
            return False  # should nothing more come, this window is not one of the file's
        if not all(progress.satisfied(end_s, now_s) for progress in progresses):
            return False
        if any(progress.awaited or progress.watermark_s >= end_s for progress in progresses):
            return True
        # Nothing to wait for: the clock alone moves on, or, lossless, nothing does.
        return now_s is not None and now_s >= self._deadline_s(end_s)

    @property
    def _all_ended(self) -> bool:
        return all(progress.ended for progress in self._progress.values())

    def _deadline_s(self, end_s: float) -> float:
        return end_s + max(
            (progress.lateness_s for progress in self._progress.values()), default=0.0
        )

    def _last(self) -> int:
        """Last window of a file: the one whose end is nearest to the end of its data, and at least the first."""
        if self._data_end_s == -math.inf:
            return self._first - 1
        nearest = nearest_index(self._data_end_s, self.step_s)
        hops = max(0, (nearest - self._first) // self._hop)
        return self._first + hops * self._hop

    def _reached(self, k: int) -> bool:
        """Whether window k would be cut if the file were over now."""
        return self._data_end_s > -math.inf and nearest_index(self._data_end_s, self.step_s) >= k

    def _cut(self, k: int) -> Window:
        if k == self._first and self._all_ended and not self._reached(k):
            return self._cut_short()
        end_s = grid_time(k, self.step_s)
        frames, repeated = self._grid(k)
        return make_window(
            source=self.source,
            id=k,
            start_s=end_s - self._window_s,
            end_s=end_s,
            frames=frames,
            video=presence(repeated, self._num_frames),
            timeline=self._audio,
            most_samples=self._most_samples,
            dropped=self._dropped,
        )

    def _cut_short(self) -> Window:
        """All of a source that ended before its first window was over, with the frames that training takes of it."""
        start_s = grid_time(self._first - self._num_frames, self.step_s)
        end_s = self._data_end_s if self._data_end_s > start_s else start_s + self.step_s
        times_s = sorted(self._opening)
        chosen: list[int] = []
        if times_s:
            chosen = segment_midpoint_indices(len(times_s), self._num_frames).tolist()
        frames = tuple(
            GridFrame(
                key=i, time_s=times_s[i], rgb=self._opening[times_s[i]], repeated=i in chosen[:n]
            )
            for n, i in enumerate(chosen)
        )
        return make_window(
            source=self.source,
            id=grid_index(end_s, self.step_s),
            start_s=start_s,
            end_s=end_s,
            frames=frames,
            video=short_video([times_s[i] for i in chosen], start_s, end_s, self.step_s),
            timeline=self._audio,
            most_samples=self._most_samples,
            dropped=self._dropped,
            whole=True,
        )

    @property
    def _dropped(self) -> Dropped:
        return Dropped(
            frames=self._capture_frames + self._late_frames,
            audio_ms=self._capture_audio_ms + 1000 * self._late_samples / PCM_RATE_HZ,
            windows=self._skipped,
        )

    def _grid(self, k: int) -> tuple[tuple[GridFrame, ...], int]:
        """Frames of the grid points of window k, and how many of them are stand-ins."""
        cells = sorted(self._cells)
        times_s = [self._cells[cell][0] for cell in cells]
        choice = grid_frames(times_s, k - self._num_frames + 1, self._num_frames, self.step_s)
        if choice.indices[-1] < 0:
            return (), self._num_frames
        frames = tuple(
            GridFrame(
                key=cells[i],
                time_s=times_s[i],
                rgb=self._cells[cells[i]][1],
                repeated=bool(stand_in),
            )
            for i, stand_in in zip(choice.indices, choice.repeated, strict=True)
        )
        return frames, int(choice.repeated.sum())

    # Memory

    def _reach(self, modality: Modality, time_s: float) -> None:
        if modality in self._progress:
            self._progress[modality].reach(time_s)
        if self._lossless:
            return
        # A window that ended so long ago would not be taken any more, and its data need not be kept.
        hop_s = self._hop * self.step_s
        stale_s = (
            time_s - self._window_s - hop_s - self._deadline_s(grid_time(self._next, self.step_s))
        )
        if stale_s > 0:
            hops = math.ceil(stale_s / hop_s)
            self._next += hops * self._hop
            self._skipped += hops
        self._forget()

    def _forget(self) -> None:
        """Release what no window to come can use: all before its start but the newest frame, which may stand in."""
        before = sorted(cell for cell in self._cells if cell <= self._next - self._num_frames)
        for cell in before[:-1]:
            del self._cells[cell]
        self._audio.forget(self._audio_from())
        if self._next > self._first:
            self._opening.clear()

    def _audio_from(self) -> int:
        """Index of the first sample of the next window."""
        return round(grid_time(self._next, self.step_s) * PCM_RATE_HZ) - self._samples
