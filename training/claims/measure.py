"""Voice cues measured from sound with Praat, for clips whose cues nobody recorded.

Each measure estimates one of `training.data.cues.VOICE_DIMENSIONS`. None of them means much in itself:
a cue is how far a clip lies from the same speaker's own speech (`Baseline`).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Final

import numpy as np
import parselmouth
from numpy.typing import NDArray

from emostream.errors import InputError
from emostream.media import SAMPLE_RATE_HZ

_STEP_S: Final = 0.01
_SILENCE_DB: Final = 25.0
"""Below the loudest by this much is silence (de Jong and Wempe 2009)."""
_DIP_DB: Final = 2.0
"""A syllable's peak stands out from what is around it by this much (same source)."""
_MIN_PAUSE_S: Final = 0.15
_MIN_VOICED_S: Final = 0.2
_WOBBLE_S: Final = 0.17  # one cycle of a 6 Hz tremor, the middle of vocal tremor's 4 to 8 Hz


@dataclass(frozen=True, slots=True, kw_only=True)
class VoiceMeasures:
    """What Praat finds in one clip.

    Attributes:
        pitch: Median fundamental frequency of voiced speech, semitones above 100 Hz.
        pitch_range: Its 10th to 90th percentile, semitones.
        loudness: Mean level of the voiced frames, dB re 20 µPa as Praat counts full scale.
        rate: Syllable nuclei a second of speech, pauses left out.
        pauses: Share of the time from the first to the last voice that is pause.
        breathiness: The negative of the smoothed cepstral peak prominence of the voiced stretches,
            dB (Hillenbrand and Houde 1996).
        tension: Level at 1 to 5 kHz over that below 1 kHz in voiced frames, dB (the alpha ratio).
        tremor: Root mean square of pitch around its course over 0.17 s, semitones.
    """

    pitch: float
    pitch_range: float
    loudness: float
    rate: float
    pauses: float
    breathiness: float
    tension: float
    tremor: float


# A speaker with few clips can have almost no spread; below these a difference is not heard either.
_LEAST_SPREAD: Final = VoiceMeasures(
    pitch=0.7,
    pitch_range=1.0,
    loudness=1.0,
    rate=0.3,
    pauses=0.04,
    breathiness=1.0,
    tension=1.0,
    tremor=0.08,
)


@dataclass(frozen=True, slots=True)
class Baseline:
    """A speaker's ordinary voice: mean of the neutral clips, standard deviation over all clips."""

    mean: VoiceMeasures
    spread: VoiceMeasures

    @classmethod
    def of(
        cls, clips: Sequence[VoiceMeasures], neutral: Sequence[VoiceMeasures] = ()
    ) -> "Baseline":
        """Build the baseline of one speaker.

        Args:
            clips: Measures of all clips of the speaker; at least three.
            neutral: Measures of the speaker's neutral clips; without any, the mean of all clips
                stands for the ordinary voice.

        Raises:
            InputError: There are too few clips.
        """
        if len(clips) < 3:
            raise InputError(
                f"Baseline.of: wanted at least 3 clips of a speaker, found {len(clips)}"
            )
        names = [field.name for field in fields(VoiceMeasures)]
        means = {n: float(np.mean([getattr(c, n) for c in neutral or clips])) for n in names}
        spreads = {
            n: max(float(np.std([getattr(c, n) for c in clips], ddof=1)), getattr(_LEAST_SPREAD, n))
            for n in names
        }
        return cls(VoiceMeasures(**means), VoiceMeasures(**spreads))

    def cues(self, clip: VoiceMeasures) -> dict[str, float]:
        """Deviations of a clip in the speaker's standard deviations, as `training.data.cues` has them."""
        return {
            name: (value - getattr(self.mean, name)) / getattr(self.spread, name)
            for name, value in asdict(clip).items()
        }


def measure_voice(pcm: NDArray[np.float32]) -> VoiceMeasures | None:
    """Measure a clip's voice.

    Args:
        pcm: (S,) float32, mono, 16 kHz, in [-1, 1].

    Returns:
        The measures, or None where there is less than 0.2 s of voice to measure.

    Raises:
        InputError: The array is not one-dimensional.
    """
    if pcm.ndim != 1:
        raise InputError(f"measure_voice: wanted mono samples (S,), found shape {pcm.shape}")
    if len(pcm) < SAMPLE_RATE_HZ // 2 or not np.any(pcm):
        return None
    sound = parselmouth.Sound(pcm.astype(np.float64), sampling_frequency=SAMPLE_RATE_HZ)
    times_s, f0_hz = _pitch(sound)
    voiced = f0_hz > 0
    if voiced.sum() * _STEP_S < _MIN_VOICED_S:
        return None
    intensity = sound.to_intensity(minimum_pitch=100.0, time_step=_STEP_S)
    level_db = np.interp(times_s, intensity.xs(), intensity.values[0])
    semitones = 12 * np.log2(f0_hz[voiced] / 100.0)
    low, median, high = np.percentile(semitones, [10, 50, 90])
    speech = level_db > np.percentile(level_db, 99) - _SILENCE_DB
    pause_share, speech_s = _pauses(speech, voiced)
    return VoiceMeasures(
        pitch=float(median),
        pitch_range=float(high - low),
        loudness=float(np.mean(level_db[voiced])),
        rate=_syllables(level_db, speech & voiced) / speech_s,
        pauses=pause_share,
        breathiness=-_peak_prominence_db(pcm, times_s, voiced),
        tension=_alpha_ratio_db(pcm, times_s[voiced]),
        tremor=_wobble_st(f0_hz),
    )


def _pitch(sound: parselmouth.Sound) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Times and fundamental frequency, 0 where unvoiced, searched near the speaker's own pitch.

    A wide first pass sets floor and ceiling (Hirst 2011), which avoids most octave errors.
    """
    first = sound.to_pitch_ac(time_step=_STEP_S, pitch_floor=60.0, pitch_ceiling=700.0)
    found = first.selected_array["frequency"]
    found = found[found > 0]
    if not len(found):
        return first.xs(), np.zeros(first.n_frames)
    low, high = np.percentile(found, [25, 75])
    second = sound.to_pitch_ac(
        time_step=_STEP_S,
        pitch_floor=max(50.0, 0.65 * float(low)),
        pitch_ceiling=min(900.0, 2.2 * float(high)),
    )
    return second.xs(), second.selected_array["frequency"]


def _runs(mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate(([False], mask, [False])).astype(np.int8)))
    return [(int(start), int(end)) for start, end in edges.reshape(-1, 2)]


def _pauses(speech: NDArray[np.bool_], voiced: NDArray[np.bool_]) -> tuple[float, float]:
    """Share of pause between the first and last voice, and the seconds that are not pause."""
    heard = _runs(voiced)
    start, end = heard[0][0], heard[-1][1]
    silences = _runs(~speech[start:end])
    pause = sum(b - a for a, b in silences if (b - a) * _STEP_S >= _MIN_PAUSE_S)
    return pause / (end - start), max(end - start - pause, 1) * _STEP_S


def _syllables(level_db: NDArray[np.float64], voiced: NDArray[np.bool_]) -> int:
    """Count peaks of level that are voiced and stand out from the dips on both sides."""
    count, dip, peak, peak_voiced = 0, np.inf, -np.inf, False
    for level, is_voiced in zip(level_db, voiced, strict=True):
        if level > peak:
            peak, peak_voiced = level, bool(is_voiced)
        if peak - level >= _DIP_DB:  # came down from the peak: decide on it
            if peak_voiced and peak - dip >= _DIP_DB:
                count += 1
            dip, peak, peak_voiced = level, level, False
        elif peak - dip < _DIP_DB and level < dip:
            dip, peak, peak_voiced = level, level, False
    return count + int(peak_voiced and peak - dip >= _DIP_DB)


def _peak_prominence_db(
    pcm: NDArray[np.float32], times_s: NDArray[np.float64], voiced: NDArray[np.bool_]
) -> float:
    """How far the voice's harmonics stand out of its noise, over voiced stretches only.

    Harmonicity would be simpler, but it falls as much for a tense voice as for a breathy one.
    """
    keep = np.zeros(len(pcm), bool)
    for start, end in _runs(voiced):
        low, high = times_s[start] - _STEP_S / 2, times_s[end - 1] + _STEP_S / 2
        keep[max(0, round(low * SAMPLE_RATE_HZ)) : round(high * SAMPLE_RATE_HZ)] = True
    sound = parselmouth.Sound(pcm[keep].astype(np.float64), sampling_frequency=SAMPLE_RATE_HZ)
    cepstrogram = parselmouth.praat.call(sound, "To PowerCepstrogram", 60.0, _STEP_S, 5000.0, 50.0)
    # Smoothed over time and quefrency, trend as Praat's manual has it.
    settings = ("yes", 0.01, 0.001, 60, 330, 0.05, "parabolic", 0.001, 0.05, "Straight", "Robust")
    return float(parselmouth.praat.call(cepstrogram, "Get CPPS", *settings))


def _alpha_ratio_db(pcm: NDArray[np.float32], times_s: NDArray[np.float64]) -> float:
    half = SAMPLE_RATE_HZ // 64
    centres = np.round(times_s * SAMPLE_RATE_HZ).astype(int)
    centres = centres[(centres >= half) & (centres < len(pcm) - half)]
    frames = pcm[centres[:, None] + np.arange(-half, half)] * np.hanning(2 * half)
    power = np.mean(np.abs(np.fft.rfft(frames, axis=1)) ** 2, axis=0)
    hz = np.fft.rfftfreq(2 * half, 1 / SAMPLE_RATE_HZ)
    low, high = power[(hz >= 50) & (hz < 1000)].sum(), power[(hz >= 1000) & (hz < 5000)].sum()
    return float(10 * np.log10((high + 1e-12) / (low + 1e-12)))


def _wobble_st(f0_hz: NDArray[np.float64]) -> float:
    width = round(_WOBBLE_S / _STEP_S)
    squares: list[NDArray[np.float64]] = []
    for start, end in _runs(f0_hz > 0):
        if end - start >= 2 * width:
            course = 12 * np.log2(f0_hz[start:end])
            smooth = np.convolve(course, np.full(width, 1 / width), mode="valid")
            squares.append((course[width // 2 : width // 2 + len(smooth)] - smooth) ** 2)
    return float(np.sqrt(np.mean(np.concatenate(squares)))) if squares else 0.0
