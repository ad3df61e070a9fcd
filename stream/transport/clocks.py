"""Clocks: when was a sample or a frame captured, in seconds of `time.perf_counter` on one host.

Three sources of time need three estimators. A microphone counts samples (`DriftFit`), a network
stream carries presentation times with an unknown origin (`MinimumDelayMap`), another host has a
clock of its own (`OffsetEstimator`). All are pure: they are given times and never read a clock.
"""

import math
from collections import deque
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

# No sound card is this far from its nominal rate; a steeper fit is noise over a short span.
MAX_DRIFT_PPM = 1000.0
# PortAudio computes the ADC time from a buffer level that it read slightly before the callback.
ADC_TOLERANCE_S = 0.002


@dataclass(frozen=True, kw_only=True, slots=True)
class AdcLimits:
    """What an ADC time must satisfy to be believed.

    The first sample of a block cannot be younger than the block is long, because its last sample
    has been captured already; nor can it be older than all the buffering that the driver reports
    plus what hardware may add. Zeros, times from another epoch and a level that has not settled all
    fail one of the two.

    Attributes:
        latency_s: input latency that the open stream reports.
        hardware_s: most that converters, wireless links and mixers may add to it.
    """

    latency_s: float = 0.0
    hardware_s: float = 0.1

    def age_s(self, adc_s: float, stream_now_s: float, block_s: float) -> float | None:
        """Age of a block's first sample at its callback, or None if the driver's is impossible.

        Args:
            adc_s: ADC time of the first sample, on the stream's own clock.
            stream_now_s: time of the callback on the same clock.
            block_s: duration of the block.
        """
        age_s = stream_now_s - adc_s
        oldest_s = max(self.latency_s, block_s) + block_s + self.hardware_s
        if not (math.isfinite(age_s) and adc_s > 0.0 and stream_now_s > 0.0):
            return None
        return age_s if block_s - ADC_TOLERANCE_S <= age_s <= oldest_s else None


NO_ADC = AdcLimits(hardware_s=-math.inf)  # no ADC time is possible


@dataclass(slots=True)
class _Bin:
    """Observations of a short while: clock time minus nominal time, in seconds, by two methods."""

    indices: list[int] = field(default_factory=list)
    by_adc: list[float] = field(default_factory=list)
    by_callback: list[float] = field(default_factory=list)

    def residual_s(self) -> float:
        if len(self.by_adc) >= len(self.by_callback):
            return float(np.median(self.by_adc))
        return min(self.by_callback)


class DriftFit:
    """Robust line from sample index to clock time, and with it the true sampling rate.

    Callbacks run late, never early, and drivers misreport their buffers. So what is observed within
    `bin_s` is reduced to one value: the median of the believable ADC times, which err both ways, or, if
    most were impossible, the earliest callback. A Theil-Sen line (Sen 1968: median of pairwise slopes,
    then median intercept) is drawn through the bins of the last `span_s`; it tolerates 29 % of bins being
    wrong. Until `settle_s` has been seen the nominal rate is used, as a slope over less says more about
    jitter than about drift. Bins that lie off the line by more than `step_s` for `STEP_BINS` in a row are a
    step: something was lost that nobody reported, and older bins are forgotten.

    Args:
        rate_hz: nominal sampling rate.
        limits: which ADC times are possible.
        bin_s: duration that is reduced to one value.
        span_s: how far back the line looks.
        settle_s: how much must be seen before the slope is fitted.
        step_s: deviation that counts as a step.

    Attributes:
        rejected: ADC times that were impossible.
        steps: how many times the line was drawn anew after a step.
    """

    STEP_BINS = 4

    def __init__(
        self,
        rate_hz: float,
        *,
        limits: AdcLimits | None = None,
        bin_s: float = 0.5,
        span_s: float = 60.0,
        settle_s: float = 10.0,
        step_s: float = 0.05,
    ) -> None:
        if not rate_hz > 0.0:
            raise ValueError(f"DriftFit wants a sampling rate above 0 Hz, not {rate_hz}")
        self.rate_hz = rate_hz
        self.limits = limits or AdcLimits()
        self.rejected = 0
        self.steps = 0
        self._bin_s = bin_s
        self._settle_s = settle_s
        self._step_s = step_s
        # Residuals against the nominal rate: perf_counter may be large, drift is microseconds.
        self._bins: deque[tuple[float, float]] = deque(maxlen=max(2, round(span_s / bin_s)))
        self._open = _Bin()
        self._slope = 0.0  # seconds of drift for each second by the sample count
        self._offset_s: float | None = None

    def update(
        self, index: int, frames: int, callback_s: float, adc_s: float, stream_now_s: float
    ) -> None:
        """Add one callback; indices ascend.

        Args:
            index: number of samples captured before this block, lost ones included.
            frames: samples in this block.
            callback_s: clock time at which the callback ran.
            adc_s: ADC time of the first sample on the stream's clock, as the driver reports it.
            stream_now_s: the stream's clock at the callback.
        """
        if self._open.indices and (index - self._open.indices[0]) / self.rate_hz >= self._bin_s:
            self._close_bin()
        block_s = frames / self.rate_hz
        nominal_s = index / self.rate_hz
        age_s = self.limits.age_s(adc_s, stream_now_s, block_s)
        if age_s is None:
            self.rejected += 1
            # The block ends at its callback or before. The reported latency is no substitute for its
            # age: ALSA reports the capacity of its buffer, which a prompt callback never fills.
            self._open.by_callback.append(callback_s - block_s - nominal_s)
        else:
            self._open.by_adc.append(callback_s - age_s - nominal_s)
        self._open.indices.append(index)
        if not self._bins:
            self._offset_s = self._open.residual_s()

    def late_s(self, index: int, frames: int, callback_s: float) -> float:
        """How much later than by the line a block came at least that ends at its callback; may be negative.

        After an overflow this is the time that was lost, up to how late the callback ran.
        """
        return callback_s - frames / self.rate_hz - self.time_of(index)

    def time_of(self, index: float) -> float:
        """Clock time in seconds at which sample `index` was captured.

        Raises:
            ValueError: nothing was observed yet.
        """
        if self._offset_s is None:
            raise ValueError("DriftFit.time_of: no callback was observed yet")
        nominal_s = index / self.rate_hz
        return nominal_s + self._offset_s + self._slope * nominal_s

    @property
    def drift_ppm(self) -> float:
        """How much faster than nominal the device samples, in parts per million."""
        return (1.0 / (1.0 + self._slope) - 1.0) * 1e6

    def _close_bin(self) -> None:
        middle_s = float(np.mean(self._open.indices)) / self.rate_hz
        self._bins.append((middle_s, self._open.residual_s()))
        self._open = _Bin()
        if self._stepped():
            recent = list(self._bins)[-self.STEP_BINS :]
            self._bins.clear()
            self._bins.extend(recent)
            self.steps += 1
        self._draw()

    def _stepped(self) -> bool:
        if len(self._bins) <= self.STEP_BINS:
            return False
        times, residuals = np.array(self._bins).T
        off_line_s = residuals - self._slope * times
        before_s = np.median(off_line_s[-3 * self.STEP_BINS : -self.STEP_BINS])
        off_s = off_line_s[-self.STEP_BINS :] - before_s
        return bool(np.all(off_s > self._step_s) or np.all(off_s < -self._step_s))

    def _draw(self) -> None:
        times, residuals = np.array(self._bins).T
        if times[-1] - times[0] >= self._settle_s:
            self._slope = _theil_sen_slope(times, residuals)
        else:
            # The slope stays: zero at first, and after a step the crystal is the same as before.
            # What it is wrong by adds up, so that the newest bins tell the offset best.
            times, residuals = times[-self.STEP_BINS :], residuals[-self.STEP_BINS :]
        self._offset_s = float(np.median(residuals - self._slope * times))


def _theil_sen_slope(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Median of the slopes between all pairs of (N,) points, limited to MAX_DRIFT_PPM."""
    first, second = np.triu_indices(len(x), k=1)
    slope = float(np.median((y[second] - y[first]) / (x[second] - x[first])))
    return float(np.clip(slope, -MAX_DRIFT_PPM * 1e-6, MAX_DRIFT_PPM * 1e-6))


class MinimumDelayMap:
    """Presentation times of a network stream, mapped to the clock by their minimum delay.

    A packet is never early, so `arrival - presentation` is an unknown constant plus a delay that
    cannot be negative; its minimum over the last `window_s` is the best estimate of the constant,
    and the window lets it follow the sender's drift. Every mapped time is at or before its arrival.

    The map is re-anchored when presentation time jumps: by more than `jump_s` backwards (a
    restarted or looping source), or forwards beyond the time that passed and the lag that a burst
    makes up for. A delay that only grows and stays is adopted when the shorter ones have left the
    window.

    Args:
        window_s: how long a minimum is remembered.
        jump_s: disagreement between presentation and arrival that counts as a discontinuity.

    Attributes:
        reanchors: discontinuities met.
    """

    def __init__(self, *, window_s: float = 20.0, jump_s: float = 1.0) -> None:
        self.reanchors = 0
        self._window_s = window_s
        self._jump_s = jump_s
        # Ascending in both: arrival, and the delay that is minimal from that arrival on.
        self._minima: deque[tuple[float, float]] = deque()
        self._last: tuple[float, float] | None = None

    def update(self, presentation_s: float, arrival_s: float) -> float:
        """Add a frame; return its capture time in clock seconds, up to the shortest delay.

        Args:
            presentation_s: the stream's own time, any origin.
            arrival_s: clock time at which the frame arrived; ascends.
        """
        delay_s = arrival_s - presentation_s
        if self._last is not None:
            passed_s = arrival_s - self._last[0]
            advanced_s = presentation_s - self._last[1]
            if advanced_s < -self._jump_s or advanced_s - passed_s > self._jump_s + self._lag_s():
                self._minima.clear()
                self.reanchors += 1
        self._last = (arrival_s, presentation_s)
        while self._minima and self._minima[-1][1] >= delay_s:
            self._minima.pop()
        self._minima.append((arrival_s, delay_s))
        while self._minima[0][0] < arrival_s - self._window_s:
            self._minima.popleft()
        return presentation_s + self._minima[0][1]

    def _lag_s(self) -> float:
        """How far behind its minimum the last frame was: a burst may make up for a stall."""
        if self._last is None or not self._minima:
            return 0.0
        return self._last[0] - self._last[1] - self._minima[0][1]


@dataclass(frozen=True, kw_only=True, slots=True)
class ClockOffset:
    """Another host's clock relative to ours.

    Attributes:
        offset_s: remote clock minus local clock.
        uncertainty_s: the true offset lies within `offset_s` plus or minus this, drift apart.
        round_trip_s: the round trip that the estimate rests on.
    """

    offset_s: float
    uncertainty_s: float
    round_trip_s: float


class OffsetEstimator:
    """Offset of another host's clock by round trips, the best of the last `keep`.

    As in NTP (RFC 5905, section 8): with the request sent at t0 and its reply received at t3 by our
    clock, received at t1 and answered at t2 by theirs, the offset is ((t1 - t0) + (t2 - t3)) / 2
    and cannot be wrong by more than half the round trip (t3 - t0) - (t2 - t1). The shortest round
    trip is therefore the best; older ones lose their worth by the drift that two crystals can
    accumulate, so that repeating the exchange keeps the estimate fresh.

    Args:
        keep: round trips remembered.
        drift_ppm: relative drift of the two clocks by which an old estimate's uncertainty grows.
    """

    def __init__(self, *, keep: int = 32, drift_ppm: float = 100.0) -> None:
        self._drift = drift_ppm * 1e-6
        self._trips: deque[tuple[float, ClockOffset]] = deque(maxlen=keep)

    def update(
        self, sent_s: float, remote_received_s: float, remote_sent_s: float, received_s: float
    ) -> ClockOffset | None:
        """Add one round trip and return the best estimate now, None while there is none.

        A trip that took negative time (a stepped or foreign clock, a stale reply) is ignored.

        Args:
            sent_s: our clock when the request left.
            remote_received_s: their clock when it arrived.
            remote_sent_s: their clock when the reply left.
            received_s: our clock when it arrived.
        """
        round_trip_s = (received_s - sent_s) - (remote_sent_s - remote_received_s)
        if round_trip_s >= 0.0 and remote_sent_s >= remote_received_s:
            offset_s = ((remote_received_s - sent_s) + (remote_sent_s - received_s)) / 2.0
            trip = ClockOffset(
                offset_s=offset_s, uncertainty_s=round_trip_s / 2.0, round_trip_s=round_trip_s
            )
            self._trips.append((received_s, trip))
        return self.best(received_s)

    def best(self, now_s: float) -> ClockOffset | None:
        """Least uncertain estimate at local time `now_s`, its age included; None without one."""
        aged = [
            ClockOffset(
                offset_s=trip.offset_s,
                uncertainty_s=trip.uncertainty_s + self._drift * max(0.0, now_s - received_s),
                round_trip_s=trip.round_trip_s,
            )
            for received_s, trip in self._trips
        ]
        return min(aged, key=lambda trip: trip.uncertainty_s, default=None)
