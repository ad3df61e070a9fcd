import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.transport.clocks import NO_ADC, AdcLimits, DriftFit, MinimumDelayMap, OffsetEstimator

RATE_HZ = 48000
BLOCK = 960


def feed(
    fit: DriftFit,
    *,
    seconds: float,
    ppm: float = 0.0,
    start_s: float = 1000.0,
    first: int = 0,
    noise=None,
    adc_s=None,
) -> int:
    """Callbacks of a device that samples `ppm` too fast; returns the number of samples so far."""
    true_rate = RATE_HZ * (1 + ppm * 1e-6)
    index = first
    while (index - first) / RATE_HZ < seconds:
        begin_s = start_s + index / true_rate
        end_s = begin_s + BLOCK / true_rate
        late_s = noise() if noise else 0.0
        now_s = end_s + late_s
        fit.update(index, BLOCK, now_s, begin_s if adc_s is None else adc_s(begin_s, now_s), now_s)
        index += BLOCK
    return index


@given(
    ppm=st.floats(-400, 400),
    start_s=st.floats(1.0, 1e6),
    seed=st.integers(0, 2**31),
    late_ms=st.floats(0.0, 8.0),
)
def test_drift_is_recovered_under_late_callbacks(
    ppm: float, start_s: float, seed: int, late_ms: float
) -> None:
    rng = np.random.default_rng(seed)
    fit = DriftFit(RATE_HZ, bin_s=1.0)

    def noise() -> float:
        spike = rng.random() < 0.05
        return float(rng.exponential(late_ms * 1e-3) + (0.08 if spike else 0.0))

    # No ADC time at all: the callback time alone, whose delays must not bend the line.
    end = feed(fit, seconds=40, ppm=ppm, start_s=start_s, noise=noise, adc_s=lambda *_: 0.0)
    true_s = start_s + end / (RATE_HZ * (1 + ppm * 1e-6))
    assert fit.time_of(end) == pytest.approx(true_s, abs=0.002 + late_ms * 1e-3)
    assert fit.drift_ppm == pytest.approx(ppm, abs=30 + 20 * late_ms)
    assert fit.rejected == end // BLOCK
    assert fit.steps == 0


def test_good_adc_times_give_the_line_to_microseconds() -> None:
    fit = DriftFit(RATE_HZ)
    end = feed(fit, seconds=30, ppm=87.0)
    assert fit.rejected == 0
    assert fit.drift_ppm == pytest.approx(87.0, abs=0.01)
    assert fit.time_of(end) == pytest.approx(1000.0 + end / (RATE_HZ * (1 + 87e-6)), abs=1e-6)
    assert fit.time_of(end + 0.5) - fit.time_of(end) == pytest.approx(0.5 / RATE_HZ, rel=1e-3)


@pytest.mark.parametrize(
    "adc_s",
    [
        lambda begin_s, now_s: 0.0,
        lambda begin_s, now_s: now_s,  # younger than the block is long
        lambda begin_s, now_s: now_s + 3.0,
        lambda begin_s, now_s: 1.7e9 + begin_s,  # another epoch
        lambda begin_s, now_s: begin_s - 0.6,  # a level that has not settled
        lambda begin_s, now_s: math.nan,
        lambda begin_s, now_s: -math.inf,
    ],
    ids=["zero", "too young", "future", "epoch", "unsettled", "nan", "inf"],
)
def test_impossible_adc_times_fall_back_to_the_callback(adc_s) -> None:
    fit = DriftFit(RATE_HZ, limits=AdcLimits(latency_s=0.06))
    end = feed(fit, seconds=3, adc_s=adc_s)
    assert fit.rejected == end // BLOCK
    assert fit.time_of(0) == pytest.approx(1000.0, abs=1e-6)


def test_a_host_without_adc_times_has_even_good_ones_rejected() -> None:
    fit = DriftFit(RATE_HZ, limits=NO_ADC)
    end = feed(fit, seconds=3)
    assert fit.rejected == end // BLOCK


def test_adc_times_that_settle_late_leave_no_trace() -> None:
    """PulseAudio through ALSA reports hundreds of milliseconds too much for the first second."""
    fit = DriftFit(RATE_HZ, limits=AdcLimits(latency_s=0.06))
    early = feed(fit, seconds=1.5, adc_s=lambda begin_s, now_s: begin_s - 0.34)
    assert fit.time_of(early) == pytest.approx(1000.0 + early / RATE_HZ, abs=1e-6)
    end = feed(fit, seconds=20, first=early)
    assert fit.time_of(end) == pytest.approx(1000.0 + end / RATE_HZ, abs=1e-6)
    assert fit.steps == 0


def test_mostly_nonsense_adc_times_in_bursts_of_callbacks_leave_the_earliest_callbacks() -> None:
    """PulseAudio through ALSA with a deep buffer: ages of -40 to 700 ms, blocks three at a time."""
    rng = np.random.default_rng(5)
    lateness = iter(np.tile([0.04, 0.02, 0.0003], 1000))
    fit = DriftFit(RATE_HZ, limits=AdcLimits(latency_s=0.18))
    end = feed(
        fit,
        seconds=20,
        noise=lambda: float(next(lateness)),
        adc_s=lambda begin_s, now_s: now_s - rng.uniform(-0.04, 0.7),
    )
    assert fit.time_of(end) == pytest.approx(1000.0003 + end / RATE_HZ, abs=0.001)
    assert fit.drift_ppm == pytest.approx(0.0, abs=1.0)


def test_hardware_latency_in_the_adc_time_is_believed() -> None:
    fit = DriftFit(RATE_HZ, limits=AdcLimits(latency_s=0.03))
    feed(fit, seconds=3, adc_s=lambda begin_s, now_s: begin_s - 0.05)
    assert fit.rejected == 0
    assert fit.time_of(0) == pytest.approx(999.95, abs=1e-6)


@pytest.mark.parametrize("before_s", [3.0, 15.0])
def test_unreported_loss_is_a_step_and_the_new_line_holds(before_s: float) -> None:
    fit = DriftFit(RATE_HZ)
    end = feed(fit, seconds=before_s, ppm=50.0)
    end = feed(fit, seconds=16, ppm=50.0, first=end, start_s=1000.2)
    assert fit.steps == 1
    assert fit.time_of(end) == pytest.approx(1000.2 + end / (RATE_HZ * (1 + 50e-6)), abs=1e-4)


def test_time_before_any_callback_is_an_error() -> None:
    with pytest.raises(ValueError, match="no callback"):
        DriftFit(RATE_HZ).time_of(0)
    with pytest.raises(ValueError, match="above 0 Hz"):
        DriftFit(0)


@given(
    origin_s=st.floats(-1e5, 1e5),
    floor_s=st.floats(0.0, 0.5),
    jitters_s=st.lists(st.floats(0.0, 0.8), min_size=30, max_size=150),
    interval_s=st.floats(0.01, 0.1),
)
def test_minimum_delay_is_never_late_and_never_reanchors_on_jitter(
    origin_s: float, floor_s: float, jitters_s: list[float], interval_s: float
) -> None:
    delays = MinimumDelayMap()
    arrival_s = 0.0
    best_s = math.inf
    for k, jitter_s in enumerate(jitters_s):
        capture_s = 100.0 + k * interval_s
        arrival_s = max(arrival_s, capture_s + floor_s + jitter_s)  # in order, as TCP delivers
        best_s = min(best_s, arrival_s - capture_s)
        mapped_s = delays.update(capture_s + origin_s, arrival_s)
        assert mapped_s <= arrival_s + 1e-9
        assert mapped_s == pytest.approx(capture_s + best_s, abs=1e-6)
    assert delays.reanchors == 0


def test_a_stall_made_up_for_in_a_burst_keeps_capture_times() -> None:
    delays = MinimumDelayMap()
    for k in range(50):
        delays.update(k * 0.04, 500.0 + k * 0.04)
    mapped = [delays.update(k * 0.04, 504.0 + k * 1e-4) for k in range(50, 100)]
    assert mapped == pytest.approx([500.0 + k * 0.04 for k in range(50, 100)])
    assert delays.reanchors == 0


@pytest.mark.parametrize("jump_s", [-3600.0, -5.0, 7.0, 90000.0])
def test_discontinuity_reanchors(jump_s: float) -> None:
    delays = MinimumDelayMap()
    for k in range(50):
        delays.update(k * 0.04, 500.0 + k * 0.04)
    for k in range(50, 100):
        assert delays.update(k * 0.04 + jump_s, 500.0 + k * 0.04) == pytest.approx(500.0 + k * 0.04)
    assert delays.reanchors == 1


def test_minimum_delay_follows_a_sender_that_drifts() -> None:
    """A sender 300 ppm slow is late by 36 ms after two minutes, of which the window leaves 6."""
    delays = MinimumDelayMap(window_s=20.0)
    mapped_s = capture_s = 0.0
    for k in range(3000):
        capture_s = k * 0.04
        mapped_s = delays.update(capture_s * (1 - 300e-6), capture_s + 0.01)
    assert capture_s + 0.01 - mapped_s < 0.0065
    assert delays.reanchors == 0


def test_a_delay_that_stays_is_adopted_after_the_window() -> None:
    delays = MinimumDelayMap(window_s=5.0)
    for k in range(100):
        delays.update(k * 0.1, 500.0 + k * 0.1)
    for k in range(100, 200):
        mapped_s = delays.update(k * 0.1, 500.4 + k * 0.1)
    assert mapped_s == pytest.approx(500.4 + 199 * 0.1)


delay_s = st.floats(1e-6, 2.0)


@given(
    offset_s=st.floats(-1e5, 1e5),
    trips=st.lists(st.tuples(delay_s, delay_s, st.floats(0.0, 0.5)), min_size=1, max_size=50),
)
def test_offset_lies_within_its_uncertainty(
    offset_s: float, trips: list[tuple[float, float, float]]
) -> None:
    estimator = OffsetEstimator(drift_ppm=0.0)
    now_s = 10.0
    shortest_s = math.inf
    for there_s, back_s, held_s in trips[:32]:
        sent_s = now_s
        remote_s = sent_s + there_s + offset_s
        now_s = sent_s + there_s + held_s + back_s
        best = estimator.update(sent_s, remote_s, remote_s + held_s, now_s)
        assert best is not None
        shortest_s = min(shortest_s, there_s + back_s)
        assert abs(best.offset_s - offset_s) <= best.uncertainty_s + 1e-9
        assert best.uncertainty_s <= shortest_s / 2 + 1e-9
        now_s += 0.1


def test_old_round_trips_lose_to_fresh_ones() -> None:
    estimator = OffsetEstimator(drift_ppm=100.0)
    first = estimator.update(0.0, 5.0005, 5.0005, 0.001)  # offset 5 s, half trip 0.5 ms
    assert first is not None
    assert first.offset_s == pytest.approx(5.0)
    assert first.uncertainty_s == pytest.approx(0.0005)
    later = estimator.update(60.0, 65.003, 65.003, 60.002)  # 60 s on: drifted by 2 ms
    assert later is not None
    assert later.offset_s == pytest.approx(5.002)
    assert later.uncertainty_s == pytest.approx(0.001)
    aged = estimator.best(160.0)
    assert aged is not None
    assert aged.uncertainty_s == pytest.approx(0.001 + 100e-6 * 99.998)


def test_impossible_round_trips_are_ignored() -> None:
    estimator = OffsetEstimator()
    assert estimator.update(10.0, 1.0, 1.0, 9.0) is None  # answered before it was asked
    assert estimator.update(0.0, 1.0, 0.5, 0.1) is None  # answered before it was received
    assert estimator.update(0.0, 1.0, 9.0, 0.1) is None  # held for longer than the trip took
