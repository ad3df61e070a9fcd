"""Measures against voices built to order: pulses through a vowel's formants."""

import numpy as np
import pytest
from scipy.signal import lfilter

from emostream.errors import InputError
from training.claims.claim import Claim
from training.claims.measure import Baseline, measure_voice
from training.claims.verify import Verdict, judge
from training.data.cues import VOICE_DIMENSIONS, Cues

RATE_HZ = 16_000


def voice(
    f0_hz=150.0,
    *,
    seconds=3.0,
    sweep_st=2.0,
    gain=0.1,
    syllables_hz=3.0,
    pause=(0.0, 0.0),
    noise=0.0,
    tilt=0.9,
    tremor_st=0.0,
):
    rng = np.random.default_rng(0)
    t = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    st = sweep_st * np.sin(2 * np.pi * 0.4 * t) + tremor_st * np.sin(2 * np.pi * 6 * t)
    phase = np.cumsum(f0_hz * 2 ** (st / 12)) / RATE_HZ
    pulses = np.diff(np.floor(phase), prepend=0.0)
    source = lfilter([1], [1, -tilt], pulses) + noise * rng.standard_normal(len(t))
    for formant_hz, bandwidth_hz in ((600, 80), (1200, 90), (2500, 120)):
        r = np.exp(-np.pi * bandwidth_hz / RATE_HZ)
        source = lfilter([1], [1, -2 * r * np.cos(2 * np.pi * formant_hz / RATE_HZ), r * r], source)
    envelope = 0.1 + 0.9 * np.sin(np.pi * syllables_hz * t) ** 2
    out = source / np.sqrt(np.mean(source**2)) * envelope * gain
    out[(t >= pause[0]) & (t < pause[1])] = 0.0
    return (out + 1e-5 * rng.standard_normal(len(t))).astype(np.float32)


PLAIN = measure_voice(voice())


def test_pitch_and_its_range_are_in_semitones():
    assert PLAIN.pitch == pytest.approx(12 * np.log2(1.5), abs=0.5)
    octave_up = measure_voice(voice(300.0))
    assert octave_up.pitch - PLAIN.pitch == pytest.approx(12, abs=0.3)
    # A sine of ±2 semitones spends four fifths of its time within 2 × 1.9.
    assert PLAIN.pitch_range == pytest.approx(3.8, abs=0.4)
    assert measure_voice(voice(sweep_st=4.0)).pitch_range == pytest.approx(7.6, abs=0.8)


def test_loudness_is_in_decibels():
    assert measure_voice(voice(gain=0.2)).loudness - PLAIN.loudness == pytest.approx(6.02, abs=0.3)


@pytest.mark.parametrize("syllables_hz", [2.0, 3.0, 5.0])
def test_rate_counts_syllables(syllables_hz):
    assert measure_voice(voice(syllables_hz=syllables_hz)).rate == pytest.approx(
        syllables_hz, rel=0.12
    )


def test_pauses_and_rate_do_not_depend_on_each_other():
    halting = measure_voice(voice(pause=(1.0, 1.9)))
    assert PLAIN.pauses < 0.05
    assert halting.pauses == pytest.approx(0.3, abs=0.06)
    assert halting.rate == pytest.approx(PLAIN.rate, rel=0.15)


@pytest.mark.parametrize(
    ("dimension", "settings"),
    [
        ("breathiness", {"noise": 0.05}),
        ("tension", {"tilt": 0.3}),
        ("tremor", {"tremor_st": 0.6}),
    ],
)
def test_voice_quality_moves_its_own_measure(dimension, settings):
    baseline = Baseline.of([PLAIN] * 3)
    cues = Cues({}, baseline.cues(measure_voice(voice(**settings))))
    assert judge(Claim("voice", dimension, 1), cues) is Verdict.SUPPORTED
    for other in ("pitch", "loudness", "rate"):
        assert judge(Claim("voice", other, 0), cues) is Verdict.SUPPORTED


def test_a_baseline_is_the_neutral_mean_and_the_spread_of_all():
    clips = [measure_voice(voice(f0)) for f0 in (150.0, 150.0, 300.0)]
    baseline = Baseline.of(clips, neutral=clips[:2])
    cues = baseline.cues(clips[2])
    assert set(cues) == set(VOICE_DIMENSIONS)
    assert baseline.cues(clips[0])["pitch"] == 0.0
    assert cues["pitch"] == pytest.approx(12 / (12 / np.sqrt(3)), rel=1e-6)


def test_a_speaker_without_spread_gets_a_least_one():
    assert Baseline.of([PLAIN] * 3).spread.pitch == 0.7


def test_silence_noise_and_scraps_have_no_voice_to_measure():
    rng = np.random.default_rng(0)
    assert measure_voice(np.zeros(RATE_HZ, np.float32)) is None
    assert measure_voice((0.01 * rng.standard_normal(2 * RATE_HZ)).astype(np.float32)) is None
    assert measure_voice(voice(seconds=0.2)) is None


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(InputError, match=r"wanted mono samples \(S,\), found shape \(2, 8\)"):
        measure_voice(np.zeros((2, 8), np.float32))
    with pytest.raises(InputError, match="at least 3 clips of a speaker, found 2"):
        Baseline.of([PLAIN, PLAIN])
