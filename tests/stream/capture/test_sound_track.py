"""Time and continuity of microphone sound, with devices made of arithmetic."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from stream.capture.sound_track import Block, SoundChunk, SoundTrack, slip
from stream.transport.clocks import NO_ADC, AdcLimits
from stream.transport.protocol import PCM_RATE_HZ

START_S = 1234.5


class Crystal:
    """A device that samples `sound(t)` at its own true rate and calls back 20 ms blocks."""

    def __init__(self, rate_hz: int, sound, *, ppm: float = 0.0, channels: int = 1) -> None:
        self.rate_hz = rate_hz
        self._true_hz = rate_hz * (1 + ppm * 1e-6)
        self._sound = sound
        self._channels = channels
        self._captured = 0  # by the converter
        self._delivered = 0  # by the driver, in its own count

    def block(
        self, frames: int | None = None, *, late_s: float = 0.0, overflowed: bool = False
    ) -> Block:
        frames = frames or self.rate_hz // 50
        times = START_S + (self._captured + np.arange(frames)) / self._true_hz
        mono = self._sound(times).astype(np.float32)
        end_s = START_S + (self._captured + frames) / self._true_hz
        block = Block(
            index=self._delivered,
            pcm=np.repeat(mono[:, None], self._channels, axis=1),
            callback_s=end_s + late_s,
            adc_s=float(times[0]),
            stream_now_s=end_s + late_s,
            overflowed=overflowed,
        )
        self._captured += frames
        self._delivered += frames
        return block

    def lose(self, frames: int, *, counted: bool) -> None:
        self._captured += frames
        self._delivered += frames if counted else 0


def tone(times: NDArray[np.float64]) -> NDArray[np.float64]:
    """Slow enough that a sample's error in time is a small error in value."""
    return 0.5 * np.sin(2 * np.pi * 100.0 * times)


def positions(chunks: list[SoundChunk]) -> list[tuple[int, int]]:
    """Raster positions (first, end) of each chunk; each start must be a whole sample."""
    ranges = []
    for chunk in chunks:
        first = chunk.start_s * PCM_RATE_HZ
        assert first == pytest.approx(round(first), abs=1e-4)
        ranges.append((round(first), round(first) + len(chunk.pcm)))
    return ranges


def worst_error(chunks: list[SoundChunk], skip: int = 0) -> float:
    """Greatest difference from the tone at the times that the chunks claim."""
    errors = [
        np.abs(c.pcm - tone(c.start_s + np.arange(len(c.pcm)) / PCM_RATE_HZ)).max()
        for c in chunks[skip:]
    ]
    return float(max(errors))


ONE_SAMPLE = 0.5 * 2 * np.pi * 100.0 / PCM_RATE_HZ  # the tone's change within one 16 kHz sample


@settings(max_examples=25)
@given(
    rate_hz=st.sampled_from([8000, 16000, 22050, 44100, 48000, 96000]),
    ppm=st.floats(-300, 300),
    longest_ms=st.integers(6, 100),
    seed=st.integers(0, 2**31),
)
def test_sound_lies_where_it_was_captured_for_any_rate_drift_and_block_size(
    rate_hz: int, ppm: float, longest_ms: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    sizes = [rate_hz * int(ms) // 1000 for ms in rng.integers(5, longest_ms, 150)]
    device = Crystal(rate_hz, tone, ppm=ppm, channels=2)
    track = SoundTrack(rate_hz)
    chunks = [chunk for size in sizes for chunk in track.add(device.block(size))]
    ranges = positions(chunks)
    assert all(end == first for (_, end), (first, _) in pairwise(ranges))
    # Until the drift is known it adds up for two bins, to under a millisecond.
    assert worst_error(chunks, skip=1) < 10 * ONE_SAMPLE
    assert track.lost_s == 0.0
    # All but what the resampler holds back has come out.
    held_s = sum(sizes) / rate_hz / (1 + ppm * 1e-6) - (ranges[-1][1] - ranges[0][0]) / PCM_RATE_HZ
    assert -0.002 < held_s < 0.2


def test_drift_is_followed_by_single_samples_without_gaps() -> None:
    device = Crystal(48000, tone, ppm=200.0)
    track = SoundTrack(48000)
    chunks = [chunk for _ in range(60 * 50) for chunk in track.add(device.block())]
    ranges = positions(chunks)
    assert all(end == first for (_, end), (first, _) in pairwise(ranges))
    assert track.clock.drift_ppm == pytest.approx(200.0, abs=1.0)
    assert track.slips == pytest.approx(60 * PCM_RATE_HZ * 200e-6, abs=5)
    assert worst_error(chunks, skip=11 * 50) < 2.0 * ONE_SAMPLE


@pytest.mark.parametrize("lost", [480, 2400, 96000])
def test_overflow_leaves_a_gap_of_what_was_lost(lost: int) -> None:
    device = Crystal(48000, tone)
    track = SoundTrack(48000)
    before = [chunk for _ in range(100) for chunk in track.add(device.block())]
    device.lose(lost, counted=False)
    after = track.add(device.block(overflowed=True))
    after += [chunk for _ in range(100) for chunk in track.add(device.block())]
    ranges = positions(before + after)
    gaps = [first - end for (_, end), (first, _) in pairwise(ranges)]
    assert max(gaps) == pytest.approx(lost / 3, abs=1)
    assert sum(gap != 0 for gap in gaps) == 1
    assert track.overflows == 1
    assert track.lost_s == pytest.approx(lost / 48000, abs=1e-4)
    assert worst_error(after, skip=2) < 2.0 * ONE_SAMPLE
    assert track.clock.steps == 0


def test_blocks_that_we_dropped_leave_a_gap_by_their_index() -> None:
    device = Crystal(44100, tone)
    track = SoundTrack(44100)
    chunks = [chunk for _ in range(50) for chunk in track.add(device.block())]
    device.lose(4410, counted=True)
    chunks += [chunk for _ in range(50) for chunk in track.add(device.block())]
    ranges = positions(chunks)
    gaps = [first - end for (_, end), (first, _) in pairwise(ranges)]
    assert sum(gaps) == pytest.approx(1600, abs=1)
    assert track.lost_s == pytest.approx(0.1)
    assert track.overflows == 0


def test_overflow_flag_without_loss_changes_nothing() -> None:
    device = Crystal(48000, tone)
    track = SoundTrack(48000)
    chunks = track.add(device.block(overflowed=True))
    for k in range(100):
        chunks += track.add(device.block(overflowed=k % 10 == 0))
    ranges = positions(chunks)
    assert all(end == first for (_, end), (first, _) in pairwise(ranges))
    assert track.overflows == 11
    assert track.lost_s == 0.0


def test_unreported_loss_becomes_a_gap_once_the_clock_shows_it() -> None:
    device = Crystal(48000, tone)
    track = SoundTrack(48000)
    chunks = [chunk for _ in range(500) for chunk in track.add(device.block())]
    device.lose(9600, counted=False)
    chunks += [chunk for _ in range(300) for chunk in track.add(device.block())]
    ranges = positions(chunks)
    gaps = [first - end for (_, end), (first, _) in pairwise(ranges)]
    assert sum(gaps) == pytest.approx(3200, abs=2)
    assert track.clock.steps == 1
    assert worst_error(chunks[-50:]) < 2.0 * ONE_SAMPLE


def test_a_clock_that_turns_out_earlier_never_overlaps_what_was_sent() -> None:
    """The first callbacks ran late by 60 ms and had no ADC time: the first chunks were stamped late."""
    device = Crystal(48000, tone)
    track = SoundTrack(48000, AdcLimits())
    chunks: list[SoundChunk] = []
    for k in range(300):
        block = device.block(late_s=0.06 if k < 10 else 0.0)
        chunks += track.add(
            Block(
                index=block.index,
                pcm=block.pcm,
                callback_s=block.callback_s,
                adc_s=0.0,
                stream_now_s=0.0,
            )
        )
    ranges = positions(chunks)
    assert all(end <= first for (_, end), (first, _) in pairwise(ranges))
    assert track.slips < 20  # 60 ms are not made up for by slips
    assert worst_error(chunks[-50:]) < 2.0 * ONE_SAMPLE


def test_a_clock_that_moves_later_on_is_followed_without_a_gap() -> None:
    device = Crystal(48000, tone)
    track = SoundTrack(48000, NO_ADC)
    chunks = [chunk for _ in range(300) for chunk in track.add(device.block())]
    chunks += [chunk for _ in range(400) for chunk in track.add(device.block(late_s=0.06))]
    ranges = positions(chunks)
    assert all(end == first for (_, end), (first, _) in pairwise(ranges))
    assert track.slips > 100
    assert track.lost_s == 0.0


def test_channels_are_averaged() -> None:
    track = SoundTrack(16000)
    pcm = np.stack([np.full(320, 0.4), np.full(320, -0.2)], axis=1).astype(np.float32)
    (chunk,) = track.add(
        Block(index=0, pcm=pcm, callback_s=100.02, adc_s=100.0, stream_now_s=100.02)
    )
    assert chunk.pcm == pytest.approx(np.full(320, 0.1))
    assert chunk.pcm.dtype == np.float32
    assert chunk.start_s == pytest.approx(100.0)


@given(st.lists(st.floats(-1, 1, width=32), min_size=2, max_size=50))
def test_slip_changes_the_length_by_one_and_invents_no_peak(values: list[float]) -> None:
    pcm = np.array(values, np.float32)
    longer, shorter = slip(pcm, 1), slip(pcm, -1)
    assert (len(longer), len(shorter)) == (len(pcm) + 1, len(pcm) - 1)
    assert longer.dtype == shorter.dtype == np.float32
    assert longer.max() <= pcm.max()
    assert longer.min() >= pcm.min()
    assert np.isin(shorter, pcm).all()
