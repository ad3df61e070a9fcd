"""From blocks of device samples to 16 kHz mono sound on the raster of the clock; no device is touched here."""

from dataclasses import dataclass

import numpy as np
import soxr
from numpy.typing import NDArray

from stream.transport.clocks import AdcLimits, DriftFit
from stream.transport.protocol import PCM_RATE_HZ

# Where the clock moves by more at once sound is discarded or left out; less is made up for sample by sample, which no
# listener notices. The first callbacks may come in a burst, so that at first the clock may yet move.
JUMP_SAMPLES = PCM_RATE_HZ // 10
EARLY_JUMP_SAMPLES = PCM_RATE_HZ // 50
EARLY_SAMPLES = 3 * PCM_RATE_HZ
SLIP_EVERY_SAMPLES = PCM_RATE_HZ // 50
LOSS_S = 0.005  # an overflow that cost less cannot be told from jitter


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """What one callback of the sound driver delivers.

    Attributes:
        index: samples that the device delivered before this block, those we dropped ourselves included.
        pcm: float32 (N, C) in [-1, 1].
        callback_s: when the callback ran, seconds of `time.perf_counter`.
        adc_s: when the first sample was converted, by the stream's own clock; may be nonsense.
        stream_now_s: the stream's own clock at the callback.
        overflowed: the driver says that samples before this block were lost.
    """

    index: int
    pcm: NDArray[np.float32]
    callback_s: float
    adc_s: float
    stream_now_s: float
    overflowed: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class SoundChunk:
    """Continuous sound.

    Attributes:
        start_s: capture time of the first sample, seconds of `time.perf_counter`, a whole number of 1/16000 s.
        pcm: float32 (S,) mono 16 kHz.
    """

    start_s: float
    pcm: NDArray[np.float32]


class SoundTrack:
    """Counts samples, times them by `DriftFit`, resamples them and lays them on the 16 kHz raster.

    soxr's output sample k stands for input sample k * rate / 16000 of its segment, its filter delay being
    compensated, so that output times follow from input indices and not from when output appears. As the device's
    crystal drifts against the clock, by a sample every second or so, chunks are lengthened or shortened by a sample,
    where the sound is flattest, to stay on the raster. Lost samples end a segment and leave a gap between chunks;
    where the clock turns out to be behind what was already sent, the overlap is discarded.

    Args:
        rate_hz: the device's nominal sampling rate.
        limits: which ADC times are possible.

    Attributes:
        clock: the fit, with its drift and the number of ADC times that it rejected.
        overflows: losses that the driver reported.
        lost_s: sound lost in overflows and in our own queue.
        slips: samples inserted or removed to follow the crystal.
    """

    def __init__(self, rate_hz: int, limits: AdcLimits | None = None) -> None:
        self.rate_hz = rate_hz
        self.clock = DriftFit(rate_hz, limits=limits)
        self.overflows = 0
        self.lost_s = 0.0
        self.slips = 0
        self._lost_samples = 0  # by the driver; they are not in its count
        self._expected: int | None = None
        self._segment_start = 0
        self._segment_out = 0
        self._resampler = self._new_resampler()
        self._torn = False  # the next output begins a segment after a loss
        self._next: int | None = None  # raster position after the last chunk

    def add(self, block: Block) -> list[SoundChunk]:
        """Add the next block; returns the chunks that it completes, a few milliseconds behind it."""
        frames = len(block.pcm)
        index = block.index + self._lost_samples
        if block.overflowed:
            index += self._count_overflow(index, frames, block.callback_s)
        self.clock.update(index, frames, block.callback_s, block.adc_s, block.stream_now_s)
        chunks: list[SoundChunk] = []
        torn = self._expected is not None and index != self._expected
        if torn:
            assert self._expected is not None
            self.lost_s += (index - self._expected) / self.rate_hz
            chunks += self._end_segment()
            self._torn = True
        if torn or self._expected is None:
            self._segment_start, self._segment_out = index, 0
        self._expected = index + frames
        mono = np.ascontiguousarray(block.pcm.mean(axis=1, dtype=np.float32))
        chunks += self._place(self._resample(mono))
        return chunks

    def _count_overflow(self, index: int, frames: int, callback_s: float) -> int:
        """How many samples were lost before this one, by how late it is."""
        self.overflows += 1
        late_s = 0.0 if self._expected is None else self.clock.late_s(index, frames, callback_s)
        if late_s < LOSS_S:
            return 0
        lost = round(late_s * self.rate_hz)
        self._lost_samples += lost
        return lost

    def _new_resampler(self) -> soxr.ResampleStream | None:
        if self.rate_hz == PCM_RATE_HZ:
            return None
        return soxr.ResampleStream(self.rate_hz, PCM_RATE_HZ, 1, dtype="float32", quality="HQ")

    def _resample(self, mono: NDArray[np.float32], last: bool = False) -> NDArray[np.float32]:
        if self._resampler is None:
            return mono
        pcm: NDArray[np.float32] = self._resampler.resample_chunk(mono, last=last)
        return pcm

    def _end_segment(self) -> list[SoundChunk]:
        tail = self._resample(np.zeros(0, np.float32), last=True)
        chunks = self._place(tail)
        self._resampler = self._new_resampler()
        return chunks

    def _place(self, pcm: NDArray[np.float32]) -> list[SoundChunk]:
        """Lay the segment's next output samples on the raster."""
        if not len(pcm):
            return []
        at = self._segment_start + self._segment_out * self.rate_hz / PCM_RATE_HZ
        target = self.clock.time_of(at) * PCM_RATE_HZ
        self._segment_out += len(pcm)
        if self._next is None:
            self._next = round(target)
        off = target - self._next
        early = self._segment_out < EARLY_SAMPLES
        jumped = abs(off) > (EARLY_JUMP_SAMPLES if early else JUMP_SAMPLES)
        jumped |= self._torn and abs(off) >= 1
        self._torn = False
        if jumped:
            pcm = pcm[max(0, round(-off)) :]
            self._next += max(0, round(off))
        elif abs(off) >= 1:
            for _ in range(min(int(abs(off)), 1 + len(pcm) // SLIP_EVERY_SAMPLES)):
                pcm = slip(pcm, 1 if off > 0 else -1)
                self.slips += 1
        if not len(pcm):
            return []
        chunk = SoundChunk(start_s=self._next / PCM_RATE_HZ, pcm=np.clip(pcm, -1.0, 1.0))
        self._next += len(pcm)
        return [chunk]


def slip(pcm: NDArray[np.float32], by: int) -> NDArray[np.float32]:
    """Sound (S,) with one sample inserted (`by` 1) or removed (`by` -1) where it is flattest."""
    if len(pcm) < 2:
        return pcm
    at = int(np.argmin(np.abs(np.diff(pcm))))
    if by > 0:
        return np.insert(pcm, at + 1, (pcm[at] + pcm[at + 1]) / 2)
    return np.delete(pcm, at + 1)
