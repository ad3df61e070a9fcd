"""The windows of a file without the windower: read once, as far as the window at hand needs it."""

import math
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from emostream.errors import MediaError
from emostream.media import (
    Clip,
    MediaReader,
    MediaStats,
    PcmChunk,
    TimedFrame,
    load_clip,
    probe,
)
from emostream.media.pcm import sample_index
from emostream.sampling import EDGE_S, grid_frames, grid_index, grid_time, nearest_index
from stream.capture.file import present_modalities
from stream.pubsub.messages import Dropped
from stream.windows.audio_timeline import AudioTimeline, gap_of
from stream.windows.config import InferenceConfig
from stream.windows.window import GridFrame, Window, make_window, presence, short_video

NOTHING_LOST = Dropped(frames=0, audio_ms=0.0, windows=0)


def file_windows(
    path: str | Path,
    config: InferenceConfig,
    *,
    source: str,
    audio_track: int | None,
    most_samples: int,
    stats: MediaStats,
) -> Iterator[Window]:
    """The windows of a file, one at a time; those with nothing in them too.

    A file that ends before the first window is over has one window of all that there is, sampled as training samples a
    clip, and a note in `stats`.

    Args:
        path: Video, audio or both.
        config: Windows.
        source: Name of the source.
        audio_track: Which of several sound tracks, from 1; None takes the best one with sound in it.
        most_samples: Sound that the model hears at a time: of a longer window, the newest.
        stats: Where to count what reading meets.

    Raises:
        MediaError: The file cannot be read, or nothing in it decodes.
    """
    info, count, step_s = probe(path, audio_track), config.num_frames, config.step_s
    modalities = present_modalities(info)
    with ExitStack() as stack:
        pictures, sound = _Pictures(), _Sound()
        if "video" in modalities:
            pictures.events = stack.enter_context(
                MediaReader(path, need={"video"}, grid_step_s=step_s, stats=stats)
            )
        if "audio" in modalities:
            sound.events = stack.enter_context(
                MediaReader(path, need={"audio"}, audio_track=audio_track, stats=stats)
            )

        def window(id: int, start_s: float, end_s: float, **rest: Any) -> Window:
            return make_window(
                source=source,
                id=id,
                start_s=start_s,
                end_s=end_s,
                timeline=sound.timeline,
                most_samples=most_samples,
                dropped=NOTHING_LOST,
                **rest,
            )

        index = count
        while True:
            end_s = grid_time(index, step_s)
            pictures.read_behind(end_s)
            sound.read_behind(end_s)
            reached_s = max(pictures.reached_s, sound.reached_s)
            if reached_s == -math.inf or nearest_index(reached_s, step_s) < index:
                break
            frames, repeated = pictures.at(index, config)
            start_s = end_s - config.window_s
            yield window(index, start_s, end_s, frames=frames, video=presence(repeated, count))
            index += config.hop_steps
            pictures.forget(grid_time(index - count, step_s))
            sound.forget(grid_time(index - count, step_s))
    if reached_s == -math.inf:
        raise MediaError(f"{path}: nothing in it can be decoded")
    stats.check_length(info, reached_s)
    if index == count:
        end_s = reached_s if reached_s > 0 else step_s
        stats.note(
            f"is {end_s:.2f} s long, shorter than the window of {config.window_s:g} s: one label over all of it"
        )
        frames = (
            _frames_of_clip(load_clip(path, count, need={"video"})) if "video" in modalities else ()
        )
        yield window(
            grid_index(end_s, step_s),
            0.0,
            end_s,
            frames=frames,
            video=short_video([frame.time_s for frame in frames], 0.0, end_s, step_s),
            whole=True,
        )


def _frames_of_clip(clip: Clip) -> tuple[GridFrame, ...]:
    if clip.frames is None:
        return ()
    times_s = clip.frame_times_s.tolist()
    return tuple(
        GridFrame(key=times_s.index(time_s), time_s=time_s, rgb=rgb, repeated=time_s in times_s[:n])
        for n, (time_s, rgb) in enumerate(zip(times_s, clip.frames, strict=True))
    )


class _Pictures:
    """A file's frames, the newest of each grid cell, as far as they were read and are still needed."""

    def __init__(self) -> None:
        self.events: Iterator[TimedFrame | PcmChunk] = iter(())
        self.reached_s = -math.inf
        self._held: deque[TimedFrame] = deque()

    def read_behind(self, time_s: float) -> None:
        """Read up to a frame that is behind a time."""
        while self.reached_s <= time_s + EDGE_S and (frame := next(self.events, None)) is not None:
            assert isinstance(frame, TimedFrame)
            self._held.append(frame)
            self.reached_s = frame.time_s

    def at(self, index: int, config: InferenceConfig) -> tuple[tuple[GridFrame, ...], int]:
        """Frames of the window that ends at a grid point, and how many of its points have none of their own."""
        count, step_s = config.num_frames, config.step_s
        times_s = [frame.time_s for frame in self._held]
        choice = grid_frames(times_s, index - count + 1, count, step_s)
        if choice.indices[-1] < 0:
            return (), count
        chosen = zip((self._held[i] for i in choice.indices), choice.repeated, strict=True)
        frames = tuple(
            GridFrame(
                key=grid_index(frame.time_s, step_s),
                time_s=frame.time_s,
                rgb=frame.rgb,
                repeated=bool(repeated),
            )
            for frame, repeated in chosen
        )
        return frames, int(choice.repeated.sum())

    def forget(self, time_s: float) -> None:
        """Drop what is before a time, but for one frame: it may have to stand in."""
        while len(self._held) > 1 and self._held[1].time_s <= time_s + EDGE_S:
            self._held.popleft()


class _Sound:
    """A file's sound, as far as it was read and is still needed."""

    def __init__(self) -> None:
        self.events: Iterator[TimedFrame | PcmChunk] = iter(())
        self.reached_s = -math.inf
        self.timeline = AudioTimeline()

    def read_behind(self, time_s: float) -> None:
        """Read up to a time."""
        while self.reached_s < time_s and (chunk := next(self.events, None)) is not None:
            assert isinstance(chunk, PcmChunk)
            self.timeline.write(
                sample_index(chunk.start_s), chunk.pcm, gap_of(chunk.pcm, chunk.gap_samples)
            )
            self.reached_s = chunk.end_s

    def forget(self, time_s: float) -> None:
        """Drop what is before a time."""
        self.timeline.forget(sample_index(time_s))
