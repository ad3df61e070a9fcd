import itertools

import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from emostream.media.pcm import (
    SAMPLE_RATE_HZ,
    TIMESTAMP_TOLERANCE_S,
    PcmChunk,
    PcmTrack,
    sample_index,
    to_mono,
)

RATES_HZ = [8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 96_000]


def noise(count: int, seed: int = 0) -> NDArray[np.float32]:
    return (0.1 * np.random.default_rng(seed).standard_normal(count)).astype(np.float32)


def joined(chunks: list[PcmChunk]) -> NDArray[np.float32]:
    """The samples of chunks that follow one another without a hole."""
    for before, after in itertools.pairwise(chunks):
        assert after.start_s == before.end_s
    return np.concatenate([chunk.pcm for chunk in chunks] or [np.zeros(0, np.float32)])


def run(track: PcmTrack, pieces: list[tuple[float | None, NDArray[np.float32], int]]):
    chunks = [chunk for piece in pieces for chunk in track.push(*piece)]
    return chunks + list(track.pause())


@pytest.mark.parametrize(
    ("dtype", "low", "high", "expected"),
    [
        (np.int16, -32768, 16384, [-1.0, 0.5]),
        (np.int32, -(2**31), 2**30, [-1.0, 0.5]),
        (np.uint8, 0, 192, [-1.0, 0.5]),
        (np.float32, -1, 0.5, [-1.0, 0.5]),
        (np.float64, -1, 0.5, [-1.0, 0.5]),
    ],
)
def test_every_sample_format_spans_minus_one_to_one(dtype, low, high, expected) -> None:
    mono = to_mono(np.array([[low, high]], dtype=dtype))
    assert mono.dtype == np.float32
    assert mono.tolist() == expected


def test_channels_are_averaged_packed_or_planar() -> None:
    planar = np.array([[0.9, 0.0], [0.3, 0.6], [0.0, 0.0]], dtype=np.float32)
    packed = np.ascontiguousarray(planar.T).reshape(1, -1)
    assert to_mono(planar) == pytest.approx([0.4, 0.2])
    assert (to_mono(packed, packed_channels=3) == to_mono(planar)).all()


@settings(max_examples=40)
@given(
    rate_hz=st.sampled_from(RATES_HZ),
    sizes=st.lists(st.integers(0, 5000), min_size=1, max_size=8),
    chunk_samples=st.integers(1, 4000),
)
def test_pieces_of_any_size_give_the_one_shot_resampling(rate_hz, sizes, chunk_samples) -> None:
    signal = noise(sum(sizes))
    track = PcmTrack(0.0, chunk_samples=chunk_samples)
    at, pieces = 0, []
    for size in sizes:
        pieces.append((at / rate_hz, signal[at : at + size], rate_hz))
        at += size
    chunks = run(track, pieces)
    assert all(len(chunk.pcm) == chunk_samples for chunk in chunks[:-1])
    expected = soxr.resample(signal, rate_hz, SAMPLE_RATE_HZ) if len(signal) else signal
    assert np.array_equal(joined(chunks), expected)
    assert track.gap_samples == track.overlap_samples == 0


@settings(max_examples=30)
@given(
    rate_hz=st.sampled_from(RATES_HZ),
    origin_s=st.floats(0, 2),
    from_sample=st.integers(0, 100_000),
)
def test_starting_in_the_middle_gives_the_same_samples(rate_hz, origin_s, from_sample) -> None:
    """The phase of resampling hangs on the stream's start alone, wherever reading begins."""
    signal = noise(3 * rate_hz)
    whole = joined(run(PcmTrack(origin_s), [(origin_s, signal, rate_hz)]))
    first = from_sample * rate_hz // 100_000
    start_s = origin_s + 1.5
    part = run(PcmTrack(origin_s, start_s), [(origin_s + first / rate_hz, signal[first:], rate_hz)])
    offset = sample_index(start_s) - sample_index(origin_s)
    assert sample_index(part[0].start_s) == sample_index(start_s)
    assert np.abs(joined(part) - whole[offset:]).max() < 1e-6


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_a_range_has_exactly_its_samples(rate_hz: int) -> None:
    signal = noise(2 * rate_hz)
    whole = joined(run(PcmTrack(0.0), [(0.0, signal, rate_hz)]))
    track = PcmTrack(0.0, 0.50001, 1.2345, chunk_samples=333)
    part = run(track, [(0.0, signal, rate_hz)])
    assert track.done
    assert np.array_equal(joined(part), whole[8000:19752])


def test_the_first_sample_is_on_the_grid_nearest_to_the_stream_start() -> None:
    chunks = run(PcmTrack(0.123456), [(0.123456, noise(16_000), 16_000)])
    assert chunks[0].start_s == round(0.123456 * 16_000) / 16_000


def test_gaps_become_counted_zeros_where_they_are() -> None:
    signal = noise(32_000)
    pieces = [(0.0, signal[:8000], 16_000), (0.75, signal[12_000:], 16_000)]
    track = PcmTrack(0.0, chunk_samples=1000)
    chunks = run(track, pieces)
    pcm = joined(chunks)
    assert np.array_equal(pcm[:8000], signal[:8000])
    assert not pcm[8000:12_000].any()
    assert np.array_equal(pcm[12_000:], signal[12_000:])
    assert track.gap_samples == 4000
    assert [chunk.gap_samples for chunk in chunks] == [0] * 8 + [1000] * 4 + [0] * 20


def test_a_gap_across_a_chunk_is_counted_by_its_part() -> None:
    signal = noise(16_000)
    track = PcmTrack(0.0, chunk_samples=1000)
    chunks = run(track, [(0.0, signal[:1500], 16_000), (0.2, signal[3200:], 16_000)])
    assert [chunk.gap_samples for chunk in chunks[:5]] == [0, 500, 1000, 200, 0]


def test_overlaps_are_dropped_and_counted() -> None:
    signal = noise(32_000)
    track = PcmTrack(0.0)
    pieces = [
        (0.0, signal[:16_000], 16_000),
        (0.5, signal[8000:20_000], 16_000),  # half of it had come
        (0.1, signal[1600:3200], 16_000),  # all of it had come
        (1.25, signal[20_000:], 16_000),
    ]
    assert np.array_equal(joined(run(track, pieces)), signal)
    assert track.overlap_samples == 8000 + 1600
    assert track.gap_samples == 0


@given(st.lists(st.floats(-0.9, 0.9), min_size=1, max_size=30))
def test_timestamps_that_stray_within_tolerance_change_nothing(strays: list[float]) -> None:
    signal = noise(441 * len(strays))
    pieces = [
        (
            max(0.0, n * 0.01 + stray * TIMESTAMP_TOLERANCE_S),
            signal[n * 441 : (n + 1) * 441],
            44_100,
        )
        for n, stray in enumerate(strays)
    ]
    pieces[0] = (0.0, *pieces[0][1:])
    track = PcmTrack(0.0)
    assert np.array_equal(joined(run(track, pieces)), soxr.resample(signal, 44_100, SAMPLE_RATE_HZ))
    assert track.gap_samples == track.overlap_samples == 0


def test_pieces_without_a_time_follow_on() -> None:
    signal = noise(4000)
    chunks = run(PcmTrack(1.0), [(None, signal[:1000], 16_000), (None, signal[1000:], 16_000)])
    assert chunks[0].start_s == 1.0
    assert np.array_equal(joined(chunks), signal)


def test_a_changing_rate_keeps_time() -> None:
    """48 kHz, then 44.1 kHz, then 8 kHz: one second each, a click in the middle of each."""
    track = PcmTrack(0.0)
    pieces = []
    for second, rate_hz in enumerate((48_000, 44_100, 8_000)):
        click = np.zeros(rate_hz, np.float32)
        click[rate_hz // 2 : rate_hz // 2 + rate_hz // 100] = 0.5
        pieces.append((float(second), click, rate_hz))
    pcm = joined(run(track, pieces))
    assert len(pcm) == pytest.approx(48_000, abs=2)
    for second in range(3):
        onset = second * 16_000 + int(
            np.argmax(pcm[second * 16_000 : (second + 1) * 16_000] > 0.25)
        )
        assert onset == pytest.approx(second * 16_000 + 8000, abs=3)
    assert track.gap_samples == track.overlap_samples == 0


def test_pausing_gives_all_and_goes_on_in_place() -> None:
    signal = 0.3 * np.sin(2 * np.pi * 300 * np.arange(96_000) / 48_000).astype(np.float32)
    track = PcmTrack(0.0)
    chunks = list(track.push(0.0, signal[:50_000], 48_000)) + list(track.pause())
    assert joined(chunks).shape == (16_667,)
    chunks += list(track.push(50_000 / 48_000, signal[50_000:], 48_000)) + list(track.pause())
    whole = soxr.resample(signal, 48_000, SAMPLE_RATE_HZ)
    pcm = joined(chunks)
    assert pcm.shape == whole.shape
    away = np.r_[0:16_500, 16_850:32_000]  # the filter starts afresh at 16 667
    assert np.abs(pcm - whole)[away].max() < 1e-3


def test_samples_are_within_one_after_resampling() -> None:
    square = np.sign(np.sin(2 * np.pi * 500 * np.arange(48_000) / 48_000)).astype(np.float32)
    pcm = joined(run(PcmTrack(0.0), [(0.0, square, 48_000)]))
    assert np.abs(pcm).max() == 1.0
