from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from emostream.errors import CheckpointError, InputError
from emostream.media import read_audio
from emostream.people.presence import SPEAKING_FROM
from emostream.people.speech import CHUNK, Listener, speech_ratio
from emostream.people.weights import Weights

RATE = 16_000
T = np.arange(4 * RATE) / RATE
DEMO = Path(str(files("stream") / "assets" / "demo.mp4"))
#: What Silero's own ONNX file (6.2.3) says of every twelfth chunk of `vowels()` at a peak of 0.3.
PUBLISHED = (
    0.41021,
    0.94544,
    0.92431,
    0.81207,
    0.02743,
    0.01438,
    0.89394,
    0.87129,
    0.83872,
    0.30769,
    0.00947,
)


def music(seed: int) -> np.ndarray:
    """Chords of plucked strings, four a second."""
    rng = np.random.default_rng(seed)
    out = np.zeros(T.size)
    for begin in range(0, T.size, RATE // 4):
        t = T[: min(T.size - begin, 12_000)]
        envelope = np.minimum(t / 0.01, 1) * np.exp(-3 * t)
        for pitch in rng.choice(
            [220, 247, 277, 294, 330, 370, 415, 440, 523, 587], 3, replace=False
        ):
            tones = sum(np.sin(2 * np.pi * pitch * h * t) / h for h in range(1, 6))
            out[begin : begin + t.size] += envelope * tones
    return out


def vowels() -> np.ndarray:
    """Somebody who says ah-ee-oh with a falling pitch: pulses through three resonances."""
    phase = np.cumsum(120 - 20 * np.sin(2 * np.pi * 0.7 * T)) / RATE
    source = (np.diff(np.floor(phase), prepend=0) > 0) * 1.0
    spectrum = np.fft.rfft(source)
    hz = np.fft.rfftfreq(T.size, 1 / RATE)
    spoken = [
        np.fft.irfft(
            spectrum / np.prod([1 + ((hz - f) / (40 + f / 20)) ** 2 for f in formants], 0) ** 0.5,
            T.size,
        )
        for formants in ((730, 1090, 2440), (270, 2290, 3010), (570, 840, 2410))
    ]
    which = (T * 5).astype(int) % 3
    syllables = np.choose(which, spoken) * np.abs(np.sin(np.pi * 5 * T)) ** 0.3
    return syllables * (T % 2 < 1.4)


SOUNDS = {
    "silence": np.zeros(T.size),
    "white noise": np.random.default_rng(0).standard_normal(T.size),
    "a fan": np.cumsum(np.random.default_rng(1).standard_normal(T.size)),
    "hum": sum(np.sin(2 * np.pi * 50 * h * T) / h for h in range(1, 8)),
    **{f"music {seed}": music(seed) for seed in range(4)},
}


def at(peak: float, sound: np.ndarray) -> np.ndarray:
    sound = sound - sound.mean()
    return (sound * peak / max(1e-9, np.abs(sound).max())).astype(np.float32)


@pytest.mark.parametrize("peak", [0.01, 0.3])
@pytest.mark.parametrize("name", SOUNDS)
def test_what_is_no_speech_is_not_taken_for_it(name, peak):
    assert speech_ratio(at(peak, SOUNDS[name])) < SPEAKING_FROM


def test_actors_are_heard():
    ratios = [speech_ratio(read_audio(DEMO, s, s + 4).pcm) for s in range(0, 14, 2)]
    assert min(ratios) > 0.5


def test_the_network_is_the_published_one():
    listener = Listener()
    listener.hear(0, at(0.3, vowels()))
    heard = listener._probabilities[::12]
    assert heard == pytest.approx(PUBLISHED, abs=1e-4)


@pytest.mark.parametrize("hop", [8000, 5333, CHUNK])
def test_a_window_says_the_same_however_the_sound_came(hop):
    pcm = read_audio(DEMO, 0, 6).pcm
    window = 2 * RATE
    hops = Listener()
    answers = {
        start: hops.hear(start, pcm[start : start + window]) for start in range(0, 48_000, hop)
    }
    seldom = Listener()
    for start in list(answers)[::3]:
        assert seldom.hear(start, pcm[start : start + window]) == answers[start]


def test_after_a_gap_it_listens_anew():
    pcm = read_audio(DEMO, 0, 2).pcm
    listener = Listener()
    listener.hear(0, at(0.3, SOUNDS["music 0"]))
    assert listener.hear(10 * RATE, pcm) == speech_ratio(pcm)


@pytest.mark.parametrize(
    "pcm", [np.zeros(CHUNK - 1, np.float32), np.zeros(CHUNK), np.zeros((1, CHUNK), np.float32)]
)
def test_what_cannot_be_heard_is_refused(pcm):
    with pytest.raises(InputError, match="16 kHz"):
        speech_ratio(pcm)


def test_weights_that_are_not_the_published_ones_are_refused():
    with pytest.raises(CheckpointError, match=r"silero_vad_16k.*wanted the published file"):
        Weights("silero_vad_16k.safetensors", "0" * 64).read()
    with pytest.raises(CheckpointError, match="No such file"):
        Weights("absent.onnx", "0" * 64).read()
