"""Between the mouth and the file: distance, room, line, noise, and clips whose sound says nothing."""

import numpy as np
import scipy.fft
import scipy.signal
from numpy.typing import NDArray

from training.synth.script import Script
from training.synth.voice import SAMPLE_RATE_HZ

Pcm = NDArray[np.float32]


def noise(kind: str, samples: int, rng: np.random.Generator) -> Pcm:
    """Background noise of RMS 1: `hiss`, `rumble`, `hum`, or `babble` (speech-shaped, syllabic)."""
    white = rng.standard_normal(samples, dtype=np.float32)
    if kind == "hiss":
        out = white
    elif kind == "rumble":
        out = scipy.signal.lfilter([1.0], [1.0, -0.96], white)
    elif kind == "hum":
        t = np.arange(samples) / SAMPLE_RATE_HZ
        mains = float(rng.choice([50.0, 60.0]))
        tones = sum(
            np.sin(2 * np.pi * mains * k * t + 6.28 * rng.random()) / k for k in (1, 2, 3, 5)
        )
        out = tones + 0.4 * white
    elif kind == "babble":
        shaped = scipy.signal.lfilter([1.0, -0.95], [1.0, -1.55, 0.62], white)
        slow = np.interp(
            np.arange(samples) / SAMPLE_RATE_HZ * 8,
            np.arange(samples * 8 // SAMPLE_RATE_HZ + 2),
            rng.uniform(0.35, 1.0, samples * 8 // SAMPLE_RATE_HZ + 2),
        )
        out = shaped * slow
    else:
        raise ValueError(f"noise: wanted hiss, rumble, hum or babble, found {kind!r}")
    return np.asarray(out / np.sqrt(np.mean(out**2)), dtype=np.float32)


def room_response(rt60_s: float, direct_db: float, rng: np.random.Generator) -> Pcm:
    """A synthetic room: the direct sound, then noise that falls by 60 dB in `rt60_s`.

    Args:
        rt60_s: Reverberation time.
        direct_db: Energy of the direct sound over that of the reverberation.
        rng: The room.
    """
    n = int(rt60_s * SAMPLE_RATE_HZ)
    tail = rng.standard_normal(n) * 10 ** (-3 * np.arange(n) / n)
    tail[: int(0.004 * SAMPLE_RATE_HZ)] = 0.0
    # Walls and air take the high frequencies first.
    tail = scipy.signal.lfilter([0.45], [1.0, -0.55], tail)
    tail *= 10 ** (-direct_db / 20) / np.sqrt(np.sum(tail**2))
    tail[0] += 1.0
    return np.asarray(tail, dtype=np.float32)


def _convolve(pcm: Pcm, response: Pcm) -> Pcm:
    n = scipy.fft.next_fast_len(len(pcm) + len(response), real=True)
    spectrum = scipy.fft.rfft(pcm, n) * scipy.fft.rfft(response, n)
    return np.asarray(scipy.fft.irfft(spectrum, n)[: len(pcm)], dtype=np.float32)


def record(script: Script, dry: Pcm) -> Pcm:
    """What the microphone of the clip makes of the voice.

    Args:
        script: Its voice type and state decide the room, the line and the noise.
        dry: (S,) the voice at the mouth.

    Returns:
        (S,) float32 in [-1, 1], mono 16 kHz.
    """
    rng = script.rng("microphone")
    kind, state = script.acting.voice_type, script.acting.voice.state
    pcm = dry * np.float32(10 ** (rng.normal(0.0, 1.2) / 20))
    floor_db = {"close": -68.0, "room": -62.0, "telephone": -60.0, "far": -58.0}.get(kind, -62.0)
    floor_db += rng.uniform(-5.0, 5.0)
    if kind == "room":
        pcm = _convolve(pcm, room_response(rng.uniform(0.1, 0.2), 9.0, rng))
    elif kind == "far":
        pcm = _convolve(pcm, room_response(rng.uniform(0.15, 0.3), 4.0, rng)) * np.float32(0.6)
    elif kind == "reverberant":
        pcm = _convolve(pcm, room_response(rng.uniform(0.35, 0.8), rng.uniform(0, 6), rng))
    if state in ("muted", "silent"):
        pcm = np.zeros_like(pcm)
        if state == "muted":
            floor_db = rng.uniform(-90.0, -72.0)
    elif state == "noise":
        pcm = pcm * np.float32(0.5)
        floor_db = rng.uniform(-24.0, -19.0)
    background = str(rng.choice(["hiss", "rumble", "hum", "babble"], p=[0.35, 0.3, 0.15, 0.2]))
    if state == "noise":
        background = str(rng.choice(["hiss", "rumble", "babble"], p=[0.3, 0.1, 0.6]))
    pcm = pcm + noise(background, len(pcm), rng) * np.float32(10 ** (floor_db / 20))
    if kind == "telephone":
        sections = scipy.signal.butter(2, [300, 3400], "bandpass", fs=SAMPLE_RATE_HZ, output="sos")
        pcm = scipy.signal.sosfilt(sections, pcm)
    # A limiter rather than clipping: transparent below half of full scale.
    return np.asarray(
        np.where(
            np.abs(pcm) < 0.5, pcm, np.sign(pcm) * (0.5 + 0.5 * np.tanh((np.abs(pcm) - 0.5) / 0.5))
        ),
        dtype=np.float32,
    )
