"""Frames and PCM of files by time range."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import av.error
import numpy as np
from numpy.typing import NDArray

from emostream.media.container import open_container
from emostream.media.frames import TimedFrame, rotation_deg
from emostream.media.info import MediaInfo, MediaStats
from emostream.media.pcm import SAMPLE_RATE_HZ, PcmChunk, sample_index
from emostream.media.reader import MediaReader
from emostream.media.streams import describe, pick_stream


def probe(path: str | Path, audio_track: int | None = None) -> MediaInfo:
    """What a file holds. One video frame is decoded, to learn its rotation.

    Args:
        path: The file.
        audio_track: Which of several sound tracks, from 1; None takes the best one with sound in it.

    Raises:
        MediaError: The file is missing, not media, has neither video nor audio, or no such sound track.
    """
    with open_container(path) as container:
        info = describe(container, path, audio_track)
        if info.video is None or not info.video.decodable:
            return info
        try:
            frame = next(container.decode(pick_stream(container, "video")), None)
        except av.error.FFmpegError:
            return info  # damaged at its start; reading will count it
        rotation = None if frame is None else rotation_deg(frame)
        return replace(info, video=replace(info.video, rotation_deg=rotation))


def iter_frames(
    path: str | Path,
    start_s: float = 0.0,
    end_s: float | None = None,
    *,
    stats: MediaStats | None = None,
) -> Iterator[TimedFrame]:
    """Frames with start_s ≤ time < end_s, in order of presentation, at their own (perhaps uneven) times.

    Args:
        path: The file.
        start_s: Start of the range; reached by seeking, and gives the frames that decoding from the start would give.
        end_s: End of the range, exclusive; None for all.
        stats: Where to count what reading meets.

    Raises:
        MediaError: The file cannot be opened, or has no video that can be decoded.
    """
    with MediaReader(path, need={"video"}, start_s=start_s, end_s=end_s, stats=stats) as reader:
        for event in reader:
            assert isinstance(event, TimedFrame)
            yield event


def iter_pcm(
    path: str | Path,
    start_s: float = 0.0,
    end_s: float | None = None,
    *,
    chunk_s: float = 0.1,
    stats: MediaStats | None = None,
) -> Iterator[PcmChunk]:
    """The audio from start_s to end_s as consecutive chunks on the grid of 1/16000 s of the media clock.

    Channels are mixed as FFmpeg mixes them to mono, then resampled (soxr HQ, streaming). Chunks follow one another
    without holes: audio that is missing within the stream is zeros, counted. Nothing is given before the stream's
    start or after its end. Reading from the middle gives the samples that reading from the start gives, where the
    container stores times to the sample; Matroska and FLV round them to 1 ms, which can shift a range by as much.

    Args:
        path: The file.
        start_s: Start of the range; its first sample is number `round(start_s·16000)`.
        end_s: End of the range, exclusive, likewise; None for all.
        chunk_s: Length of each chunk but the last, seconds.
        stats: Where to count what reading meets.

    Raises:
        MediaError: The file cannot be opened, or has no audio that can be decoded.
    """
    with MediaReader(
        path, need={"audio"}, start_s=start_s, end_s=end_s, chunk_s=chunk_s, stats=stats
    ) as reader:
        for event in reader:
            assert isinstance(event, PcmChunk)
            yield event


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioRange:
    """Audio of a stretch of the media clock.

    Attributes:
        start_s: Time of the first sample, a whole number of 1/16000 s.
        pcm: (S,) float32 mono 16 kHz in [-1, 1].
        missing_samples: How many of the S are zeros because there was no audio: before the stream's start, after its
            end, or in a gap.
        stats: What reading met.
    """

    start_s: float
    pcm: NDArray[np.float32]
    missing_samples: int
    stats: MediaStats


def read_audio(
    path: str | Path,
    start_s: float = 0.0,
    end_s: float | None = None,
    *,
    stats: MediaStats | None = None,
) -> AudioRange:
    """Audio from start_s to end_s: exactly `round(end_s·16000) − round(start_s·16000)` samples.

    Args:
        path: The file.
        start_s: Start of the range; may lie outside the stream, where there are zeros.
        end_s: End of the range, likewise; None ends with the stream.
        stats: Where to count what reading meets.

    Raises:
        MediaError: The file cannot be opened, or has no audio that can be decoded.
        ValueError: end_s < start_s.
    """
    if end_s is not None and end_s < start_s:
        raise ValueError(f"read_audio: end_s={end_s} is before start_s={start_s}")
    stats = MediaStats() if stats is None else stats
    chunks = list(iter_pcm(path, start_s, end_s, chunk_s=1.0, stats=stats))
    first = sample_index(start_s)
    stop = sample_index(end_s) if end_s is not None else first
    if chunks and end_s is None:
        stop = sample_index(chunks[-1].end_s)
    pcm = np.zeros(stop - first, dtype=np.float32)
    missing = len(pcm)
    for chunk in chunks:
        offset = sample_index(chunk.start_s) - first
        pcm[offset : offset + len(chunk.pcm)] = chunk.pcm
        missing -= len(chunk.pcm) - chunk.gap_samples
    return AudioRange(start_s=first / SAMPLE_RATE_HZ, pcm=pcm, missing_samples=missing, stats=stats)
