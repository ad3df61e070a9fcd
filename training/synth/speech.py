"""What is said and how: syllables, pauses, pitch, level and articulation on a 100 Hz time grid.

Both voice models speak from this plan and the lips move by it. The words are nonsense of consonant-vowel syllables:
the corpus carries its emotion in prosody, not in vocabulary.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.synth.actors import VoiceIdentity
from training.synth.script import Script

GRID_HZ = 100

# One standard deviation of a speaker's neutral speech, by dimension.
PITCH_ST = 2.3
RANGE_FACTOR = 1.42
LOUDNESS_DB = 4.0
RATE_FACTOR = 1.17
PAUSE_FACTOR = 1.75
BREATH_DB = 7.0
TENSION_DB = 3.0
TREMOR_FACTOR = 2.0
CONTOUR_ST = 2.2

#: F1, F2, F3 of an adult male in Hz (Peterson & Barney 1952), jaw opening, lip rounding.
_VOWELS = np.array(
    [
        (270, 2290, 3010, 0.20, -0.5),  # i
        (530, 1840, 2480, 0.45, -0.3),  # e
        (730, 1200, 2500, 1.00, 0.0),  # a
        (570, 850, 2410, 0.65, 0.7),  # o
        (300, 870, 2240, 0.25, 1.0),  # u
        (500, 1450, 2450, 0.40, 0.0),  # schwa: unstressed only
    ]
)
# Name: duration s, voicing, frication, frication centre Hz, F1, F2, jaw, rounding, lip closure.
_CONSONANTS = {
    "m": (0.07, 0.35, 0.0, 0, 250, 1100, 0.1, 0.0, 1.0),
    "n": (0.06, 0.35, 0.0, 0, 250, 1600, 0.2, 0.0, 0.0),
    "b": (0.07, 0.12, 0.0, 0, 220, 900, 0.1, 0.0, 1.0),
    "p": (0.09, 0.0, 0.15, 1500, 300, 900, 0.1, 0.0, 1.0),
    "d": (0.06, 0.15, 0.10, 4000, 250, 1700, 0.2, 0.0, 0.0),
    "t": (0.08, 0.0, 0.35, 4500, 300, 1700, 0.2, 0.0, 0.0),
    "k": (0.08, 0.0, 0.30, 2200, 300, 1900, 0.25, 0.0, 0.0),
    "s": (0.10, 0.0, 0.55, 5800, 320, 1700, 0.15, 0.0, 0.0),
    "f": (0.09, 0.0, 0.18, 4500, 320, 1200, 0.1, 0.0, 0.6),
    "v": (0.06, 0.35, 0.10, 4000, 280, 1100, 0.1, 0.0, 0.6),
    "l": (0.06, 0.55, 0.0, 0, 360, 1300, 0.3, 0.0, 0.0),
    "w": (0.06, 0.5, 0.0, 0, 300, 750, 0.15, 1.0, 0.3),
    "j": (0.05, 0.55, 0.0, 0, 280, 2200, 0.2, -0.4, 0.0),
}  # fmt: skip
_CONSONANT_TABLE = np.array(list(_CONSONANTS.values()), dtype=float)


@dataclass(frozen=True, kw_only=True, slots=True)
class Speech:
    """An utterance as tracks of N points at `GRID_HZ`, clip clock; arrays are float64.

    Attributes:
        duration_s: Length of the clip.
        phrases_s: (start, end) of each stretch of speech.
        syllables: How many there are.
        f0_hz: (N,) fundamental frequency, defined everywhere.
        voicing: (N,) amplitude of the voiced source, 0 to about 1.
        frication: (N,) amplitude of consonant noise.
        frication_hz: (N,) its centre frequency.
        formants_hz: (N, 3) F1 to F3 of this speaker.
        rd: (N,) LF shape parameter.
        aspiration: (N,) amplitude of breath noise relative to voicing.
        jaw: (N,) lip and jaw opening in [0, 1].
        rounding: (N,) -1 spread to 1 rounded.
        closure: (N,) 1 where the lips are shut by a consonant.
        tilt_db: Spectral tilt, dB per octave above 1 kHz.
        jitter: Relative cycle-to-cycle variation of the period.
        shimmer: The same of the amplitude.
        level_db: Level of the voiced parts relative to the neutral voice.
    """

    duration_s: float
    phrases_s: tuple[tuple[float, float], ...]
    syllables: int
    f0_hz: NDArray[np.float64]
    voicing: NDArray[np.float64]
    frication: NDArray[np.float64]
    frication_hz: NDArray[np.float64]
    formants_hz: NDArray[np.float64]
    rd: NDArray[np.float64]
    aspiration: NDArray[np.float64]
    jaw: NDArray[np.float64]
    rounding: NDArray[np.float64]
    closure: NDArray[np.float64]
    tilt_db: float
    jitter: float
    shimmer: float
    level_db: float


def _smooth(x: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Moving average by a Hann window of `width` points along the first axis, edges held."""
    window = np.hanning(width + 2)[1:-1]
    window /= window.sum()
    half = width // 2
    padded = np.concatenate([np.repeat(x[:1], half, 0), x, np.repeat(x[-1:], width - 1 - half, 0)])
    if x.ndim == 1:
        return np.convolve(padded, window, "valid")
    return np.stack([np.convolve(c, window, "valid") for c in padded.T], axis=1)


def _phrases(
    duration_s: float, pause_share: float, rng: np.random.Generator
) -> list[tuple[float, float]]:
    start, end = float(rng.uniform(0.08, 0.3)), duration_s - float(rng.uniform(0.1, 0.3))
    silent = pause_share * (end - start)
    pauses = int(np.clip(round(silent / rng.uniform(0.26, 0.45)), 0 if silent < 0.15 else 1, 5))
    if pauses == 0:
        return [(start, end)]
    lengths = rng.dirichlet(np.full(pauses, 12.0)) * silent
    spoken = rng.dirichlet(np.full(pauses + 1, 8.0)) * (end - start - silent)
    out, at = [], start
    for i, length in enumerate(spoken):
        out.append((at, at + float(length)))
        at += float(length) + (float(lengths[i]) if i < pauses else 0.0)
    return out


def _pitch(
    voice: VoiceIdentity,
    z: dict[str, float],
    phrases: list[tuple[float, float]],
    accents_s: list[float],
    voiced: NDArray[np.bool_],
    t: NDArray[np.float64],
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """F0 in Hz, (N,): declination, accents and boundary movement around the speaker's mean."""
    shape = np.zeros_like(t)
    boundary = np.zeros_like(t)
    for start, end in phrases:
        inside = (t >= start) & (t < end + 0.05)
        shape[inside] += np.linspace(0.7, -0.7, int(inside.sum()))
        boundary += np.where(inside, np.clip((t - (end - 0.35)) / 0.35, 0.0, 1.0), 0.0)
    for at in accents_s:
        height = rng.uniform(0.9, 2.2)
        shape += height * np.exp(-0.5 * ((t - at - 0.02) / rng.uniform(0.09, 0.16)) ** 2)
    for hz in (1.3, 2.9):
        shape += 0.35 * np.sin(2 * np.pi * (hz * rng.uniform(0.8, 1.2) * t + rng.random()))
    heard = shape[voiced] if voiced.any() else shape
    shape = (shape - heard.mean()) / max(float(heard.std()), 1e-6)
    semitones = z["pitch"] * PITCH_ST + shape * voice.range_st * RANGE_FACTOR ** z["pitch_range"]
    semitones += boundary * (z["contour"] * CONTOUR_ST - 0.8)
    tremble = 0.2 * 2.2 ** z["tremor"]  # semitones, beside the cycle-to-cycle jitter
    semitones += tremble * np.sin(2 * np.pi * (rng.uniform(5.0, 7.0) * t + rng.random()))
    return np.clip(voice.f0_hz * 2.0 ** (semitones / 12), 55.0, 640.0)


def plan_speech(script: Script, rng: np.random.Generator | None = None) -> Speech:
    """The utterance of a clip; a `silent` clip has no phrases and all its tracks at rest.

    Args:
        script: The clip's.
        rng: What words and melody are drawn from; the script's own if None.
    """
    rng = rng or script.rng("speech")
    voice = script.actor.voice
    z = dict(script.acting.voice.prosody)
    n = round(script.duration_s * GRID_HZ) + 1
    t = np.arange(n) / GRID_HZ
    phrases: list[tuple[float, float]] = []
    if script.acting.voice.state != "silent":
        share = float(np.clip(voice.pause_share * PAUSE_FACTOR ** z["pauses"], 0.02, 0.5))
        phrases = _phrases(script.duration_s, share, rng)
    rate_hz = float(np.clip(voice.rate_hz * RATE_FACTOR ** z["rate"], 2.4, 9.0))

    voicing, frication, frication_hz = np.zeros(n), np.zeros(n), np.full(n, 4000.0)
    formants = np.tile(np.array([500.0, 1450.0, 2450.0]), (n, 1))
    jaw, rounding, closure = np.zeros(n), np.zeros(n), np.zeros(n)
    accents: list[float] = []
    syllables = 0
    for start, end in phrases:
        count = max(1, round((end - start) * rate_hz))
        stressed = rng.random(count) < 0.4
        stressed[0] = True
        lengths = rng.uniform(0.85, 1.15, count) * np.where(stressed, 1.2, 0.95)
        edges = start + np.concatenate([[0.0], np.cumsum(lengths)]) * (end - start) / lengths.sum()
        consonants = rng.integers(len(_CONSONANT_TABLE), size=count)
        vowels = np.where(
            stressed, rng.integers(5, size=count), rng.choice([0, 1, 2, 3, 5, 5], count)
        )
        for k in range(count):
            c, v = _CONSONANT_TABLE[consonants[k]], _VOWELS[vowels[k]]
            c_s = min(float(c[0]) * (4.6 / rate_hz) ** 0.7, 0.45 * float(edges[k + 1] - edges[k]))
            i, j, e = (round(x * GRID_HZ) for x in (edges[k], edges[k] + c_s, edges[k + 1]))
            voicing[i:j], frication[i:j], frication_hz[i:j] = c[1], c[2], c[3] or 4000.0
            formants[i:j, :2], formants[i:j, 2] = c[4:6], 2400.0
            jaw[i:j], rounding[i:j], closure[i:j] = c[6], c[7], c[8]
            loud = 1.0 if stressed[k] else 0.78
            voicing[j:e] = loud * np.linspace(1.0, 0.8, max(e - j, 0))
            shift = voice.vowel_shift[min(vowels[k], 4)]
            formants[j:e] = v[:3] * np.array([shift[0], shift[1], 1.0])
            jaw[j:e], rounding[j:e] = v[3], v[4]
            if stressed[k]:
                accents.append((j + e) / 2 / GRID_HZ)
        syllables += count
    tremor = max(0.0, z["tremor"])
    voiced = voicing > 0.3
    f0_hz = _pitch(voice, z, phrases, accents, voiced, t, rng)
    voicing = _smooth(voicing, 4)
    voicing *= 1 + 0.12 * tremor * np.sin(2 * np.pi * rng.uniform(5, 7) * t) * (voicing > 0)
    rd = voice.rd + 0.32 * z["breathiness"] - 0.26 * z["tension"] - 0.08 * z["loudness"]
    breath_db = voice.breath_db + BREATH_DB * z["breathiness"]
    effort = 1 + 0.05 * max(0.0, z["loudness"])  # loud speech opens the jaw and raises F1
    return Speech(
        duration_s=script.duration_s,
        phrases_s=tuple(phrases),
        syllables=syllables,
        f0_hz=f0_hz,
        voicing=np.maximum(voicing, 0.0),
        frication=_smooth(frication, 3),
        frication_hz=_smooth(frication_hz, 3),
        formants_hz=_smooth(formants, 7) * voice.tract_scale * np.array([effort, 1.0, 1.0]),
        rd=np.clip(rd + 0.15 * (0.8 - voicing), 0.4, 2.7),
        aspiration=np.full(n, 10 ** (min(breath_db, -8.0) / 20)),
        jaw=_smooth(jaw, 9) * min(1.25, 0.85 * effort + 0.12 * z["loudness"]),
        rounding=_smooth(rounding, 9),
        closure=_smooth(closure, 5),
        tilt_db=voice.tilt_db + TENSION_DB * z["tension"] + 0.6 * z["loudness"],
        jitter=voice.jitter * TREMOR_FACTOR ** z["tremor"],
        shimmer=0.03 * TREMOR_FACTOR ** z["tremor"],
        level_db=LOUDNESS_DB * z["loudness"],
    )
