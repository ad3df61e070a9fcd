"""Synthetic voices: what the cues say is what Praat measures."""

from dataclasses import fields, replace

import numpy as np
import pytest

from training.claims.measure import VoiceMeasures, measure_voice
from training.synth import vocoder, voice
from training.synth.clip import speak
from training.synth.glottis import lf_pulse
from training.synth.microphone import noise, room_response
from training.synth.script import Script, write_script
from training.synth.speech import plan_speech

RATE_HZ = voice.SAMPLE_RATE_HZ
MODELS = {"train": voice.synthesise, "ood": vocoder.synthesise}


def dry(script: Script) -> np.ndarray:
    return MODELS[script.split](
        plan_speech(script), script.actor.voice.tract_scale, script.rng("voice")
    )


def said_with(script: Script, **prosody: float) -> Script:
    acted = replace(
        script.acting.voice, state="expressive", prosody={**script.acting.voice.prosody, **prosody}
    )
    return replace(script, acting=replace(script.acting, voice=acted))


def in_state(state: str, split: str = "train") -> Script:
    return next(
        s for s in (write_script(0, split, i) for i in range(5000)) if s.acting.voice.state == state
    )


def level_db(pcm: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(pcm**2) + 1e-12))


def measured(split: str, clips: int) -> tuple[list[Script], dict[str, np.ndarray]]:
    scripts, rows = [], []
    for index in range(clips):
        script = write_script(3, split, index)
        if not script.acting.voice.audible:
            continue
        found = measure_voice(dry(script))
        assert found is not None, f"Praat finds no voice in {split} clip {index}"
        scripts.append(script)
        rows.append(found)
    return scripts, {
        f.name: np.array([getattr(r, f.name) for r in rows]) for f in fields(VoiceMeasures)
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("split", "least"),
    [
        ("train", {"pitch": 0.9, "pitch_range": 0.55, "loudness": 0.85, "rate": 0.5, "pauses": 0.55, "tension": 0.5}),
        ("ood", {"pitch": 0.9, "pitch_range": 0.55, "loudness": 0.85, "rate": 0.45, "pauses": 0.55, "tension": 0.6}),
    ],
)  # fmt: skip
def test_praat_finds_the_recorded_prosody(split, least):
    scripts, found = measured(split, 50)
    # Against the speaker's own baseline, as the cues are.
    found["pitch"] = found["pitch"] - [12 * np.log2(s.actor.voice.f0_hz / 100) for s in scripts]
    found["pitch_range"] = np.log(found["pitch_range"])
    found["rate"] = found["rate"] / [s.actor.voice.rate_hz for s in scripts]
    for name, floor in least.items():
        cue = np.array([s.acting.voice.prosody[name] for s in scripts])
        assert np.corrcoef(cue, found[name])[0, 1] > floor, name


@pytest.mark.parametrize("split", ["train", "ood"])
@pytest.mark.parametrize(
    ("cue", "change"),
    [("pitch", 4.0), ("loudness", 6.0), ("breathiness", 1.0), ("tension", 3.0), ("tremor", 0.1)],
)
def test_turning_one_cue_up_turns_its_measure_up(split, cue, change):
    differences = []
    for index in range(4):
        script = said_with(write_script(1, split, index), tremor=0.0, contour=0.0)
        low, high = (measure_voice(dry(said_with(script, **{cue: z}))) for z in (-1.0, 1.5))
        assert low is not None
        assert high is not None
        differences.append(getattr(high, cue) - getattr(low, cue))
    assert np.mean(differences) > change


def test_rate_and_pauses_shape_the_plan():
    base = write_script(1, "train", 0)
    slow, fast = (plan_speech(said_with(base, rate=z, pauses=0.0)) for z in (-2.0, 2.0))
    assert fast.syllables > 1.5 * slow.syllables

    def spoken(z: float) -> float:
        return sum(b - a for a, b in plan_speech(said_with(base, pauses=z)).phrases_s)

    assert spoken(2.0) < 0.8 * spoken(-2.0)


@pytest.mark.parametrize("rd", [0.5, 1.0, 1.7, 2.5])
def test_lf_pulse_is_balanced_and_peaks_at_closure(rd):
    pulse = lf_pulse(rd)
    assert abs(pulse.sum()) < 1e-6
    assert pulse.min() == pytest.approx(-1.0, abs=0.05)
    assert np.argmin(pulse) > np.argmax(pulse)
    # A laxer pulse is rounder: less of it lies above the first ten harmonics.
    spectrum = np.abs(np.fft.rfft(pulse)) ** 2
    pressed = np.abs(np.fft.rfft(lf_pulse(0.4))) ** 2
    assert spectrum[10:].sum() / spectrum.sum() < pressed[10:].sum() / pressed.sum()


def test_pulse_train_is_the_sum_of_its_harmonics():
    f0 = 190.0
    phase = np.arange(4000) * f0 / RATE_HZ + 0.123
    count = int(7600 // f0)
    direct = (
        sum(np.cos(2 * np.pi * k * phase) for k in range(1, count + 1)) * 2 / np.sqrt(2 * count)
    )
    made = vocoder.pulse_train(phase, np.full(4000, f0))
    np.testing.assert_allclose(made, direct, atol=1e-3)


def test_frames_add_up_to_the_signal():
    signal = np.random.default_rng(0).standard_normal(RATE_HZ).astype(np.float32)
    back = voice.from_frames(voice.to_frames(signal, 101), len(signal))
    np.testing.assert_allclose(back, signal, atol=1e-5)


@pytest.mark.parametrize("split", ["train", "ood"])
def test_sound_is_reproducible_and_in_range(split):
    script = write_script(5, split, 3)
    one, two = (speak(script, plan_speech(script)) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert one.dtype == np.float32
    assert len(one) == round(script.duration_s * RATE_HZ)
    assert np.abs(one).max() <= 1.0


def test_uninformative_sound_hides_the_voice():
    clear = level_db(speak(in_state("expressive"), plan_speech(in_state("expressive"))))
    for state in ("silent", "muted"):
        script = in_state(state)
        assert level_db(speak(script, plan_speech(script))) < clear - 20
    assert plan_speech(in_state("silent")).syllables == 0
    assert plan_speech(in_state("muted")).syllables > 0  # the lips move
    script = in_state("noise")
    covered = speak(script, plan_speech(script))
    assert level_db(covered - dry(script)[: len(covered)]) > level_db(dry(script)) + 3


def test_ood_sound_reverberates():
    response = room_response(0.5, 3.0, np.random.default_rng(0))
    energy = np.cumsum(response[::-1] ** 2)[::-1]
    decay_db = 10 * np.log10(energy / energy[0])
    assert decay_db[int(0.45 * RATE_HZ)] < -40
    assert decay_db[int(0.05 * RATE_HZ)] > -15
    assert 10 * np.log10(response[0] ** 2 / energy[1]) == pytest.approx(3.0, abs=0.5)


@pytest.mark.parametrize("kind", ["hiss", "rumble", "hum", "babble"])
def test_noise_has_unit_power(kind):
    out = noise(kind, 20_000, np.random.default_rng(0))
    assert np.mean(out**2) == pytest.approx(1.0, abs=1e-3)


def test_unknown_noise_is_refused():
    with pytest.raises(ValueError, match="found 'rain'"):
        noise("rain", 100, np.random.default_rng(0))
