"""Clips for offline inference and training: a few frames chosen from a file, and its audio."""

import itertools
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from emostream.errors import MediaError
from emostream.media.container import open_container
from emostream.media.files import AudioRange, read_audio
from emostream.media.frames import TimedFrame, upright_rgb
from emostream.media.info import BOTH, MediaInfo, MediaStats, Modality
from emostream.media.pcm import SAMPLE_RATE_HZ
from emostream.media.reader import MediaReader
from emostream.media.source import PacketSource
from emostream.media.streams import describe
from emostream.sampling import EDGE_S, segment_midpoint_indices

#: Frames shown before a keyframe may be stored after it, though not by as much as this.
REORDER_S = 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """Frames and audio of a stretch of a file, as the model takes them.

    Attributes:
        frames: (T, H, W, 3) uint8 RGB, upright, oldest first; None if there is no video or it was not asked for.
        frame_times_s: (T,) float64 presentation times of `frames`, media clock; empty without video.
        audio: (S,) float32 mono 16 kHz in [-1, 1], from `start_s` on; None if there is none or it was not asked for.
        start_s: Start of the stretch, media clock.
        missing: Why a modality that was asked for is None: `{"audio": "clip.mp4: has no audio"}`.
        missing_samples: Zeros in `audio` that stand for no audio.
        info: What the container says.
        stats: What reading met, both streams together.
    """

    frames: NDArray[np.uint8] | None
    frame_times_s: NDArray[np.float64]
    audio: NDArray[np.float32] | None
    start_s: float
    missing: dict[str, str]
    missing_samples: int
    info: MediaInfo
    stats: MediaStats


def load_clip(
    path: str | Path,
    num_frames: int = 8,
    start_s: float = 0.0,
    end_s: float | None = None,
    *,
    need: Collection[Modality] = BOTH,
) -> Clip:
    """A clip as the published checkpoints are given it: `num_frames` frames at segment midpoints, and all the audio.

    The N frames with start_s ≤ time < end_s are found by reading timestamps alone; of these,
    `segment_midpoint_indices(N, num_frames)` are decoded, each from the keyframe before it. One frame at a time is
    converted to RGB. A frame that does not decode is replaced by the one before it (failing that, after it), counted in
    `stats.frames_replaced`.

    Args:
        path: The file; a single image is a clip of one frame.
        num_frames: T; if the range has fewer frames, some are repeated.
        start_s: Start of the range, media clock.
        end_s: End of the range, exclusive; None for the end of the file. If given, `audio` has exactly the length of
            the range; otherwise it ends with the audio stream.
        need: Modalities to decode. One that is absent is None in the clip, with the reason in `missing`.

    Raises:
        MediaError: The file cannot be opened, or none of `need` gives anything in the range.
    """
    if not need or not BOTH.issuperset(need):
        raise ValueError(f"load_clip: need must be of {set(BOTH)}, found {need!r}")
    with open_container(path) as container:
        info = describe(container, path)
    stats = MediaStats()
    missing: dict[str, str] = {}
    picked: _Picked | None = None
    audio: AudioRange | None = None
    if "video" in need:
        try:
            picked = _pick_frames(path, num_frames, start_s, end_s, stats)
        except MediaError as error:
            missing["video"] = str(error)
    if "audio" in need:
        try:
            audio = read_audio(path, start_s, end_s, stats=stats)
            if audio.missing_samples == len(audio.pcm):
                raise MediaError(f"{path}: no audio {_between(start_s, end_s)}")
        except MediaError as error:
            missing["audio"] = str(error)
            audio = None
    if picked is None and audio is None:
        raise MediaError("; ".join(missing.values()))
    if end_s is None and BOTH.issubset(need):
        heard_s = 0.0 if audio is None else audio.start_s + len(audio.pcm) / SAMPLE_RATE_HZ
        stats.check_length(info, max(heard_s, picked.last_s if picked else 0.0))
    return Clip(
        frames=None if picked is None else picked.frames,
        frame_times_s=np.zeros(0) if picked is None else picked.times_s,
        audio=None if audio is None else audio.pcm,
        start_s=start_s,
        missing=missing,
        missing_samples=0 if audio is None else audio.missing_samples,
        info=info,
        stats=stats,
    )


def short_clip_times(path: str | Path, num_frames: int, below_s: float) -> list[float] | None:
    """Times of the frames that `load_clip` takes of a file that is over before `below_s`, without decoding any.

    Args:
        path: The file.
        num_frames: T.
        below_s: Seconds of the media clock.

    Returns:
        None if the file is longer, or its video packets carry no times.

    Raises:
        MediaError: The file cannot be opened.
    """
    with PacketSource(path, BOTH, 0.0, MediaStats()) as source:
        for packet in source:
            end_s = source.end_s(packet)
            if end_s is not None and end_s >= below_s:
                return None
        if "video" not in source.streams:
            return None
    entries = _index(path, 0.0, None)
    if not entries:
        return None
    return [entries[i].time_s for i in segment_midpoint_indices(len(entries), num_frames)]


def _between(start_s: float, end_s: float | None) -> str:
    return f"from {start_s} s on" if end_s is None else f"from {start_s} s to {end_s} s"


@dataclass(frozen=True, slots=True)
class _Picked:
    frames: NDArray[np.uint8]
    times_s: NDArray[np.float64]
    last_s: float  # time of the last frame of the range, chosen or not


@dataclass(frozen=True, slots=True)
class _Entry:
    """A packet of the range: a frame to be."""

    time_s: float
    order: int  # place in decoding order
    start: int  # place of the keyframe to decode from


def _pick_frames(
    path: str | Path, num_frames: int, start_s: float, end_s: float | None, stats: MediaStats
) -> _Picked:
    entries = _index(path, start_s, end_s)
    if entries is None:
        return _pick_by_counting(path, num_frames, start_s, end_s, stats)
    if not entries:
        raise MediaError(f"{path}: no video frame {_between(start_s, end_s)}")
    stats.frames += len(entries)
    chosen = [entries[i] for i in segment_midpoint_indices(len(entries), num_frames)]
    found = _decode_chosen(path, start_s, sorted(set(chosen), key=lambda e: e.order), stats)
    if not found:
        raise MediaError(f"{path}: no video frame decodes {_between(start_s, end_s)}")
    earliest = min(found)
    got = [found[max((t for t in found if t <= e.time_s), default=earliest)] for e in chosen]
    stats.frames_replaced += sum(
        abs(frame.time_s - entry.time_s) > EDGE_S for frame, entry in zip(got, chosen, strict=True)
    )
    return _Picked(
        np.stack([frame.rgb for frame in got]),
        np.array([frame.time_s for frame in got]),
        entries[-1].time_s,
    )


def _index(path: str | Path, start_s: float, end_s: float | None) -> list[_Entry] | None:
    """The frames of the range by their packets, in order of presentation; None if packets carry no times."""
    entries: list[_Entry] = []
    keys: list[tuple[int, float]] = []
    with PacketSource(path, {"video"}, start_s, MediaStats()) as source:
        for order, packet in enumerate(source):
            if packet.size == 0:
                continue
            time_s = source.shown_s(packet)
            if time_s is None:
                return None
            if packet.is_keyframe or not keys:
                keys.append((order, time_s))
            if end_s is not None and packet.is_keyframe and time_s >= end_s + REORDER_S:
                break
            if packet.is_discard or time_s < start_s - EDGE_S:
                continue
            if end_s is None or time_s < end_s - EDGE_S:
                # A frame shown before its keyframe (open groups) refers to the group before as well.
                start = next((k for k, key_s in reversed(keys) if key_s <= time_s), keys[0][0])
                entries.append(_Entry(time_s, order, start))
    return sorted(entries, key=lambda entry: entry.time_s)


def _decode_chosen(
    path: str | Path, start_s: float, wanted: list[_Entry], stats: MediaStats
) -> dict[float, TimedFrame]:
    """The frames wanted, by their times; where one does not decode, the newest before it in its segment, if any."""
    found: dict[float, TimedFrame] = {}
    segments = _segments(wanted)
    targets: list[float] = []
    newest: tuple[float, Any] | None = None
    size: tuple[int, int] | None = None  # all frames of a clip get the first one's
    with PacketSource(path, {"video"}, start_s, stats) as source:
        for (first, last), frame in _decode_segments(source, segments):
            if newest is None and not targets:
                targets = sorted(e.time_s for e in wanted if first <= e.order <= last)
            time_s = float("inf") if frame is None else source.time_s(frame)
            if time_s is None:
                continue
            while targets and time_s > targets[0] + EDGE_S:
                if newest is not None:
                    size = size or (newest[1].width, newest[1].height)
                    found[targets[0]] = TimedFrame(newest[0], upright_rgb(newest[1], size))
                targets.pop(0)
            newest = None if frame is None else (time_s, frame)
    return found


def _decode_segments(
    source: PacketSource, segments: list[tuple[int, int]]
) -> Iterator[tuple[tuple[int, int], Any]]:
    """Each segment with each of its `av` frames in order of presentation, then with None."""
    left = list(segments)
    for order, packet in enumerate(source):
        if not left:
            return
        first, last = left[0]
        if packet.size and order < first:
            continue
        for frame in source.decode(packet):
            yield left[0], frame
        if packet.size and order < last:
            continue
        for frame in source.drain("video"):
            yield left[0], frame
        yield left[0], None
        left.pop(0)


def _segments(wanted: list[_Entry]) -> list[tuple[int, int]]:
    """Stretches [first, last] of decoding order that hold the wanted frames and what they refer to."""
    segments: list[tuple[int, int]] = []
    for first, last in sorted((entry.start, entry.order) for entry in wanted):
        if segments and first <= segments[-1][1]:
            segments[-1] = (segments[-1][0], max(last, segments[-1][1]))
        else:
            segments.append((first, last))
    return segments


def _pick_by_counting(
    path: str | Path, num_frames: int, start_s: float, end_s: float | None, stats: MediaStats
) -> _Picked:
    """For streams without timestamps: decode once to count the frames, and once more to convert those chosen."""
    need: tuple[Modality] = ("video",)
    with MediaReader(
        path, need=need, start_s=start_s, end_s=end_s, want=lambda time_s: False, stats=stats
    ) as counter:
        for _ in counter:
            raise AssertionError("no frame was wanted")
    if not stats.frames:
        raise MediaError(f"{path}: no video frame {_between(start_s, end_s)}")
    indices = segment_midpoint_indices(stats.frames, num_frames)
    ordinals = itertools.count()
    with MediaReader(
        path,
        need=need,
        start_s=start_s,
        end_s=end_s,
        want=lambda time_s: next(ordinals) in indices,
    ) as reader:
        frames = [event for event in reader if isinstance(event, TimedFrame)]
    got = [frames[i] for i in np.searchsorted(np.unique(indices), indices)]
    height, width = got[0].rgb.shape[:2]
    return _Picked(
        # A stream may change its size; all frames of a clip get the first one's.
        np.stack(
            [
                upright_rgb(av.VideoFrame.from_ndarray(frame.rgb, "rgb24"), (width, height))
                for frame in got
            ]
        ),
        np.array([frame.time_s for frame in got]),
        got[-1].time_s,
    )
