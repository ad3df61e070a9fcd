"""Source-filter voice: an LF glottal source, breath and consonant noise, through a cascade of formants.

The filter of Klatt (1980), "Software for a cascade/parallel formant synthesizer": second-order resonators of unit gain
at DC, in series. It is applied to 20 ms frames in the frequency domain, which costs a few milliseconds a clip where
a sample-by-sample filter in Python would cost hundreds.
"""

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from emostream.sampling import SAMPLE_RATE_HZ
from training.synth.glottis import glottal_source
from training.synth.speech import GRID_HZ, Speech

HOP = SAMPLE_RATE_HZ // GRID_HZ
_WINDOW = 2 * HOP
_FFT = 512
BINS_HZ = np.fft.rfftfreq(_FFT, 1 / SAMPLE_RATE_HZ)
_BANDWIDTHS_HZ = (70.0, 95.0, 140.0)
#: F4 and up of an adult male, with bandwidths; they move little and only scale with the tract.
_UPPER_HZ = ((3500.0, 190.0), (4500.0, 260.0), (5500.0, 330.0), (6500.0, 400.0), (7500.0, 480.0))
#: Level of a neutral voice, RMS over its voiced parts.
NOMINAL_DBFS = -28.0

Complex = NDArray[np.complex64]


def upsample(track: NDArray[np.float64], samples: int) -> NDArray[np.float64]:
    """A `GRID_HZ` track (N,) at every sample, (samples,), by straight lines."""
    at = np.arange(samples) * (GRID_HZ / SAMPLE_RATE_HZ)
    return np.interp(at, np.arange(len(track)), track)


def glottal_phase(
    speech: Speech, samples: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Phase in cycles and amplitude factor at each sample, with jitter and shimmer by cycle."""
    phase = np.cumsum(upsample(speech.f0_hz, samples)) / SAMPLE_RATE_HZ
    cycles = int(phase[-1]) + 2
    wobble = np.clip(speech.jitter * rng.standard_normal(cycles), -0.2, 0.2)
    phase += np.interp(phase, np.arange(cycles), wobble)
    gains = np.clip(1 + speech.shimmer * rng.standard_normal(cycles), 0.4, 1.6)
    return phase, gains[np.minimum(phase.astype(np.int64), cycles - 1)]


def _resonator(frequency_hz: NDArray[np.float64], bandwidth_hz: float) -> Complex:
    """Denominator over DC gain of one resonator, (N, bins): H = 1 / this. Klatt's equations 2."""
    radius = np.exp(-np.pi * bandwidth_hz / SAMPLE_RATE_HZ)
    c = -(radius**2)
    b = 2 * radius * np.cos(2 * np.pi * frequency_hz / SAMPLE_RATE_HZ)
    z1 = np.exp(-2j * np.pi * BINS_HZ / SAMPLE_RATE_HZ).astype(np.complex64)
    fixed = (1 - c * z1**2).astype(np.complex64)
    gain = (1 - b - c).astype(np.float32)
    b = b.astype(np.float32)
    return np.asarray((fixed - b[:, None] * z1) / gain[:, None])


def vocal_tract(speech: Speech, tract_scale: float) -> Complex:
    """Transfer function of the tract at each grid point, (N, bins), tilt included."""
    inverse = _resonator(speech.formants_hz[:, 0], _BANDWIDTHS_HZ[0])
    for k in (1, 2):
        inverse *= _resonator(speech.formants_hz[:, k], _BANDWIDTHS_HZ[k])
    for frequency_hz, bandwidth_hz in _UPPER_HZ:
        if frequency_hz * tract_scale < 0.49 * SAMPLE_RATE_HZ:
            inverse *= _resonator(np.array([frequency_hz * tract_scale]), bandwidth_hz)
    octaves = np.log2(np.maximum(BINS_HZ, 1000.0) / 1000.0)
    tilt = (10 ** (speech.tilt_db * octaves / 20)).astype(np.float32)
    return np.asarray(tilt / inverse)


def consonant_band(speech: Speech) -> NDArray[np.float32]:
    """Magnitude of the frication filter at each grid point, (N, bins)."""
    octaves = np.log2(np.maximum(BINS_HZ, 60.0)).astype(np.float32)
    centre = np.log2(speech.frication_hz).astype(np.float32)
    return np.asarray(np.exp(-(((octaves - centre[:, None]) / 0.45) ** 2)))


def to_frames(signal: NDArray[np.float32], points: int) -> Complex:
    """Spectra of Hann-windowed frames centred on the grid points, (points, bins)."""
    padded = np.zeros((points + 1) * HOP, dtype=np.float32)
    n = min(len(signal), len(padded) - HOP)
    padded[HOP : HOP + n] = signal[:n]
    frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::HOP]
    window = np.hanning(_WINDOW + 1)[:-1].astype(np.float32)
    return np.asarray(scipy.fft.rfft(frames * window, n=_FFT, axis=1))


def from_frames(spectra: Complex, samples: int) -> NDArray[np.float32]:
    """Overlap-add of filtered frames; the inverse of `to_frames` where the filter is 1."""
    frames = scipy.fft.irfft(spectra, n=_FFT, axis=1)
    parts = -(-_FFT // HOP)
    out = np.zeros((len(frames) + parts, HOP), dtype=np.float32)
    for k in range(parts):
        part = frames[:, k * HOP : (k + 1) * HOP]
        out[k : k + len(frames), : part.shape[1]] += part
    return out.ravel()[HOP : HOP + samples]


def set_level(
    pcm: NDArray[np.float32], speech: Speech, voicing: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Scale so that the voiced parts have the level that was planned, RMS."""
    loud = voicing > 0.3
    if not loud.any():
        return np.zeros_like(pcm)
    rms = float(np.sqrt(np.mean(pcm[loud] ** 2)))
    return np.asarray(pcm * np.float32(10 ** ((NOMINAL_DBFS + speech.level_db) / 20) / rms))


def synthesise(speech: Speech, tract_scale: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """The dry voice, before any microphone.

    Args:
        speech: The utterance.
        tract_scale: Formant scale of the speaker, for the formants that the plan does not move.
        rng: Noise, jitter and shimmer.

    Returns:
        (S,) mono 16 kHz, roughly within [-1, 1].
    """
    samples = round(speech.duration_s * SAMPLE_RATE_HZ)
    if speech.syllables == 0:
        return np.zeros(samples, dtype=np.float32)
    points = len(speech.f0_hz)
    phase, amplitude = glottal_phase(speech, samples, rng)
    voicing = upsample(speech.voicing, samples)
    source = glottal_source(phase, upsample(speech.rd, samples)) * (voicing * amplitude)
    noise = rng.standard_normal(samples, dtype=np.float32)
    # Breath is loudest while the glottis is open, the first part of each cycle.
    gate = 0.55 + 0.45 * np.cos(2 * np.pi * (phase - 0.35)).astype(np.float32)
    breath = noise * gate * (upsample(speech.aspiration, samples) * voicing)
    hiss = noise * (0.35 * upsample(speech.frication, samples))
    tract = vocal_tract(speech, tract_scale)
    spectra = to_frames((source + breath).astype(np.float32), points) * tract
    spectra += to_frames(hiss.astype(np.float32), points) * (3.0 * consonant_band(speech))
    return set_level(from_frames(spectra, samples), speech, voicing)
