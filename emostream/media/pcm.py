"""Decoded audio of any rate and channel count as one 16 kHz mono track on the media clock."""

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import av
import av.error
import numpy as np
import soxr
from numpy.typing import NDArray

from emostream.sampling import SAMPLE_RATE_HZ

#: How far a timestamp may stray from the sample count before it is believed. Above the millisecond rounding of
#: Matroska and FLV, below the shortest packet that is lost in practice (Opus, 10 ms and more).
TIMESTAMP_TOLERANCE_S = 0.0099

#: PyAV 18 reads beyond the end of what FFmpeg gives of more planes than this.
MAX_PLANES = 7


def sample_index(time_s: float) -> int:
    """The sample of the 16 kHz grid nearest to `time_s`; sample n is at n / 16000 s of the media clock."""
    return round(time_s * SAMPLE_RATE_HZ)


@dataclass(frozen=True, slots=True)
class PcmChunk:
    """Consecutive samples of the 16 kHz grid.

    Attributes:
        start_s: Time of the first sample in seconds of the media clock, a whole number of 1/16000.
        pcm: (S,) float32 mono 16 kHz in [-1, 1].
        gap_samples: How many of the S samples are zeros that stand for missing audio.
    """

    start_s: float
    pcm: NDArray[np.float32]
    gap_samples: int = 0

    @property
    def end_s(self) -> float:
        """Time of the sample after the last, seconds of the media clock."""
        return (sample_index(self.start_s) + len(self.pcm)) / SAMPLE_RATE_HZ


@functools.cache
def mono_weights(layout: str) -> NDArray[np.float64] | None:
    """(C,) weight of each channel of a layout that FFmpeg names (`5.1`) in its own mix to mono; None for equal weights.

    Of surround sound the centre, where the voice is, weighs most and LFE nothing, as with `ffmpeg -ac 1`.
    """
    channels = av.AudioLayout(layout).nb_channels
    if channels <= 2:
        return None
    # One sample a channel: what comes out are the weights. Integers are mixed so that nothing clips.
    frame = av.AudioFrame.from_ndarray(np.eye(channels, dtype="<f4").reshape(1, -1), "flt", layout)
    frame.sample_rate = SAMPLE_RATE_HZ
    mixer = av.AudioResampler(format="s32p", layout="mono", rate=SAMPLE_RATE_HZ)
    try:
        mixed = [*mixer.resample(frame), *mixer.resample(None)]
    except av.error.FFmpegError:
        return None  # a layout that it cannot mix, such as ambisonics
    weights = np.concatenate([part.to_ndarray()[0] for part in mixed]) / 2.0**31
    return weights if len(weights) == channels else None


def frame_samples(frame: Any) -> tuple[NDArray, int | None]:
    """Samples of a decoded `av.AudioFrame` and their interleaved channels, as `to_mono` takes them."""
    channels = frame.layout.nb_channels
    if frame.format.is_planar and channels > MAX_PLANES:
        [frame] = av.AudioResampler(format=frame.format.packed.name).resample(frame)
    return frame.to_ndarray(), None if frame.format.is_planar else channels


def to_mono(
    samples: NDArray,
    packed_channels: int | None = None,
    weights: NDArray[np.float64] | None = None,
) -> NDArray[np.float32]:
    """Mix the channels of decoded samples of any format.

    Args:
        samples: (C, N) one row a channel, or (1, N·C) interleaved if `packed_channels` is given. Integers span their
            type's range (uint8 is centred on 128); floats span [-1, 1].
        packed_channels: C of interleaved samples.
        weights: (C,) of the channels, summing to 1; None for their average.

    Returns:
        (N,) float32; floats beyond ±1 are left alone here, since resampling can still bring them back.
    """
    if packed_channels is not None:
        samples = samples.reshape(-1, packed_channels).T
    precision = np.float32 if samples.dtype == np.float32 else np.float64
    if weights is None:
        mean = samples.mean(axis=0, dtype=precision)
    else:
        mean = weights.astype(precision) @ samples.astype(precision)
    if samples.dtype.kind == "f":
        return mean.astype(np.float32)
    bits = samples.itemsize * 8
    zero = 128 if samples.dtype.kind == "u" else 0
    return ((mean - zero) / 2 ** (bits - 1)).astype(np.float32)


class PcmTrack:
    """Places decoded mono audio on the 16 kHz grid by its timestamps, and resamples it as it comes.

    Samples are counted, not timed: timestamps only say where audio is missing (zeros take its place) or doubled (the
    second copy is dropped), each beyond `TIMESTAMP_TOLERANCE_S`. Resampling is soxr's streaming HQ filter, without
    delay on the grid; its phase depends on `origin_s` alone, so that reading from the middle gives the samples that
    reading from the start gives. Rates that change in mid-stream are followed.

    Args:
        origin_s: Start of the audio stream, seconds of the media clock; the first sample of the stream falls on the
            grid sample nearest to it (31 µs at most).
        start_s: Samples before this time are dropped.
        end_s: Samples from this time on are dropped.
        chunk_samples: Samples of each chunk but the last.

    Attributes:
        gap_samples: 16 kHz samples filled with zeros so far.
        overlap_samples: 16 kHz samples dropped so far because their time had been delivered.
    """

    def __init__(
        self,
        origin_s: float,
        start_s: float = 0.0,
        end_s: float | None = None,
        chunk_samples: int = 1600,
    ) -> None:
        self.gap_samples = 0
        self.overlap_samples = 0
        self._origin_s = origin_s
        self._origin_out = sample_index(origin_s)
        self._first_out = sample_index(start_s)
        self._end_out = None if end_s is None else sample_index(end_s)
        self._chunk_samples = chunk_samples
        self._rate_hz = 0
        self._resampler: soxr.ResampleStream | None = None
        self._next_in = 0  # input sample, counted from the origin, that continues the track
        self._out = 0  # grid sample that the resampler gives next
        self._pending: list[NDArray[np.float32]] = []
        self._pending_start = 0
        self._pending_len = 0
        self._gaps: list[tuple[int, int]] = []  # grid samples, half open, not yet delivered

    @property
    def done(self) -> bool:
        """Whether all samples before `end_s` have been delivered."""
        return self._end_out is not None and self._out >= self._end_out

    @property
    def next_s(self) -> float:
        """Time of the next sample to be delivered, seconds of the media clock."""
        return (self._pending_start if self._pending_len else self._out) / SAMPLE_RATE_HZ

    def push(
        self, time_s: float | None, mono: NDArray[np.float32], rate_hz: int
    ) -> Iterator[PcmChunk]:
        """Append decoded audio.

        Args:
            time_s: Media time of the first sample; None continues where the last push ended.
            mono: (N,) float32 at `rate_hz`.
            rate_hz: Its sample rate.

        Yields:
            Chunks as they fill up. Take them all before the next push.
        """
        if rate_hz != self._rate_hz or self._resampler is None:
            yield from self._start(time_s, rate_hz)
        if time_s is not None:
            ahead = round((time_s - self._origin_s) * rate_hz) - self._next_in
            if ahead > TIMESTAMP_TOLERANCE_S * rate_hz:
                yield from self._fill(ahead)
            elif ahead < -TIMESTAMP_TOLERANCE_S * rate_hz:
                doubled = min(-ahead, len(mono))
                self.overlap_samples += self._to_out(doubled)
                mono = mono[doubled:]
        yield from self._resample(mono)

    def pause(self) -> Iterator[PcmChunk]:
        """Give out all that is held, the resampler's part included, and a last, shorter chunk.

        More may be pushed afterwards; only the filter starts afresh.
        """
        if self._resampler is not None:
            rest = self._resampler.resample_chunk(np.zeros(0, dtype=np.float32), last=True)
            self._resampler = None
            yield from self._accept(rest)
        yield from self._chunks(1)

    def _to_out(self, count_in: int) -> int:
        return round(count_in * SAMPLE_RATE_HZ / self._rate_hz)

    def _start(self, time_s: float | None, rate_hz: int) -> Iterator[PcmChunk]:
        """Start resampling from `rate_hz`, in phase with the origin."""
        yield from self.pause()
        if self._rate_hz == 0:
            start_s = self._origin_s if time_s is None else time_s
            self._next_in = round((start_s - self._origin_s) * rate_hz)
            self._rate_hz = rate_hz
            resume_out = self._origin_out + self._to_out(self._next_in)
        else:
            resume_out = self._out
            if rate_hz != self._rate_hz:
                self._rate_hz = rate_hz
                self._next_in = (resume_out - self._origin_out) * rate_hz // SAMPLE_RATE_HZ
        # Only every `period`-th input sample meets the grid: begin at one of those, with silence before the audio.
        period = rate_hz // math.gcd(rate_hz, SAMPLE_RATE_HZ)
        lead = self._next_in % period
        self._resampler = soxr.ResampleStream(rate_hz, SAMPLE_RATE_HZ, 1, dtype="float32")
        self._out = self._origin_out + (self._next_in - lead) * SAMPLE_RATE_HZ // rate_hz
        self._first_out = max(self._first_out, resume_out)
        if lead:
            yield from self._accept(
                self._resampler.resample_chunk(np.zeros(lead, dtype=np.float32))
            )

    def _fill(self, count_in: int) -> Iterator[PcmChunk]:
        start = self._origin_out + self._to_out(self._next_in)
        stop = self._origin_out + self._to_out(self._next_in + count_in)
        start = max(start, self._first_out)
        stop = stop if self._end_out is None else min(stop, self._end_out)
        if stop > start:
            self._gaps.append((start, stop))
            self.gap_samples += stop - start
        while count_in > 0 and not self.done:
            count = min(count_in, self._rate_hz)
            yield from self._resample(np.zeros(count, dtype=np.float32))
            count_in -= count

    def _resample(self, mono: NDArray[np.float32]) -> Iterator[PcmChunk]:
        assert self._resampler is not None
        self._next_in += len(mono)
        if len(mono):
            yield from self._accept(self._resampler.resample_chunk(mono))

    def _accept(self, pcm: NDArray[np.float32]) -> Iterator[PcmChunk]:
        """Take grid samples from `self._out` on, within the range that was asked for."""
        start = self._out
        self._out += len(pcm)
        skip = max(0, self._first_out - start)
        keep = len(pcm) if self._end_out is None else max(0, self._end_out - start)
        pcm = pcm[skip:keep]
        if len(pcm):
            if not self._pending_len:
                self._pending_start = start + skip
            self._pending.append(np.clip(pcm, -1.0, 1.0))
            self._pending_len += len(pcm)
            yield from self._chunks(self._chunk_samples)

    def _chunks(self, at_least: int) -> Iterator[PcmChunk]:
        if self._pending_len < at_least:
            return
        pcm = np.concatenate(self._pending)
        while len(pcm) >= at_least and len(pcm):
            part, pcm = pcm[: self._chunk_samples], pcm[self._chunk_samples :]
            start = self._pending_start
            self._pending_start += len(part)
            yield PcmChunk(start / SAMPLE_RATE_HZ, part, self._take_gap(start, self._pending_start))
        self._pending = [pcm] if len(pcm) else []
        self._pending_len = len(pcm)

    def _take_gap(self, start: int, stop: int) -> int:
        self._gaps = [gap for gap in self._gaps if gap[1] > start]
        return sum(max(0, min(stop, b) - max(start, a)) for a, b in self._gaps)
