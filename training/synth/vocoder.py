"""The out-of-distribution voice: a channel vocoder, not a vocal tract.

A flat-spectrum pulse train and noise are mixed band by band and shaped by a smooth magnitude envelope of zero phase,
in the manner of the mixed-excitation vocoders (McCree & Barnwell 1995; Kawahara's STRAIGHT, 1999). It shares the
utterance plan with `voice` and nothing of its sound: no glottal pulse, no resonators, other consonants.
"""

import numpy as np
from numpy.typing import NDArray

from training.synth.speech import Speech
from training.synth.voice import (
    BINS_HZ,
    SAMPLE_RATE_HZ,
    from_frames,
    glottal_phase,
    set_level,
    to_frames,
    upsample,
)

_TOP_HZ = 7600.0


def pulse_train(phase: NDArray[np.float64], f0_hz: NDArray[np.float64]) -> NDArray[np.float32]:
    """All cosine harmonics below `_TOP_HZ` at equal strength, (S,), in closed form.

    sum_k cos(k x) = (sin((K + 1/2) x) / sin(x / 2) - 1) / 2, the Dirichlet kernel.
    """
    x = 2 * np.pi * (phase - np.floor(phase))
    harmonics = np.floor(_TOP_HZ / f0_hz)
    below = np.sin(0.5 * x)
    safe = np.where(np.abs(below) < 1e-4, 1.0, below)
    kernel = np.where(np.abs(below) < 1e-4, 2 * harmonics + 1, np.sin((harmonics + 0.5) * x) / safe)
    return np.asarray((kernel - 1) / np.sqrt(2 * harmonics), dtype=np.float32)


def envelope(speech: Speech, tract_scale: float) -> NDArray[np.float32]:
    """Magnitude of the voice's spectrum at each grid point, (N, bins)."""
    f = BINS_HZ.astype(np.float32)
    octaves = np.log2(np.maximum(f, 120.0) / 120.0)
    # A lax voice (large Rd) falls faster: the envelope stands in for the source as well.
    slope_db = -7.5 - 2.5 * (speech.rd - 1.0)
    decibel = slope_db[:, None].astype(np.float32) * octaves
    decibel += np.float32(0.8 * speech.tilt_db) * np.log2(np.maximum(f, 1000.0) / 1000.0)
    for k, (height_db, width_hz) in enumerate(((20.0, 150.0), (22.0, 190.0), (17.0, 240.0))):
        centre = speech.formants_hz[:, k].astype(np.float32)
        decibel += height_db * np.exp(-(((f - centre[:, None]) / width_hz) ** 2))
    for centre_hz in (3600.0, 4700.0, 6000.0):
        decibel += (14.0 * np.exp(-(((f - centre_hz * tract_scale) / 350.0) ** 2))).astype(
            np.float32
        )
    return np.asarray(np.exp(decibel * np.float32(np.log(10) / 20)))


def synthesise(speech: Speech, tract_scale: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """The dry voice; arguments and result as `voice.synthesise`."""
    samples = round(speech.duration_s * SAMPLE_RATE_HZ)
    if speech.syllables == 0:
        return np.zeros(samples, dtype=np.float32)
    points = len(speech.f0_hz)
    phase, amplitude = glottal_phase(speech, samples, rng)
    voicing = upsample(speech.voicing, samples)
    pulses = pulse_train(phase, upsample(speech.f0_hz, samples)) * (voicing * amplitude)
    noise = rng.standard_normal(samples, dtype=np.float32)
    # Noise takes over from the pulses above a frequency that falls as the voice gets breathy.
    breath_db = 20 * np.log10(np.maximum(speech.aspiration, 1e-4))
    border_hz = np.clip(4600 - 190 * (breath_db + 27), 900, 7000)
    noisy = 1 / (1 + np.exp(-(BINS_HZ - border_hz[:, None]) / 500))
    leak = np.minimum(speech.aspiration, 0.5)[:, None]
    shape = envelope(speech, tract_scale)
    spectra = to_frames(pulses.astype(np.float32), points) * (shape * np.sqrt(1 - noisy)).astype(
        np.float32
    )
    breath = to_frames((noise * voicing).astype(np.float32), points)
    spectra += breath * (shape * np.sqrt(np.minimum(noisy + leak**2, 1.0))).astype(np.float32)
    octaves = np.log2(np.maximum(BINS_HZ, 60.0)) - np.log2(speech.frication_hz)[:, None]
    hiss = to_frames((noise * upsample(speech.frication, samples)).astype(np.float32), points)
    spectra += hiss * (0.16 / (1 + (octaves / 0.5) ** 2)).astype(np.float32)
    return set_level(from_frames(spectra, samples), speech, voicing)
