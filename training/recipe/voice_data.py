"""Utterances of people as log-mel and pitch in memory, and windows of talk made of them.

An utterance is trimmed to its speech and brought to one level, so that neither the silence around it nor a corpus's
level tells its label. A window is a stretch of talk: utterances of one speaker in one emotion, one behind the other
with pauses between, cut at random; nor does an utterance's length tell anything.

Shape suffixes: F mel bands, M mel frames (10 ms each), B windows.
"""

import hashlib
import json
import logging
import multiprocessing
import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import parselmouth
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import WhisperFeatureExtractor

from emostream.labels import DEFAULT_LABELS
from emostream.media import load_clip
from emostream.sampling import SAMPLE_RATE_HZ
from training.claims.measure import VoiceMeasures, measure_voice
from training.data.manifest import Row

logger = logging.getLogger(__name__)

#: Below the loudest frame by this much is silence, and as much around speech is kept.
SILENCE_DB: Final = 35.0
MARGIN_FRAMES: Final = 8
#: Root mean square of speech that utterances are brought to.
LEVEL: Final = 0.05
#: F0 that pitch is counted from, in octaves; bounds of what is looked for.
PITCH_HZ: Final = 150.0
PITCH_RANGE_HZ: Final = (70.0, 600.0)
#: Whisper's log-mel: nothing quieter than this many decades below the loudest is heard.
DECADES: Final = 8.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Voices:
    """Utterances, one behind the other.

    Attributes:
        rows: N, of which each is.
        begins: (N + 1,) int64, where each begins in the arrays.
        mel: (M, F) float16, log10 of the power of mel bands.
        pitch: (M, 2) float16, octaves above `PITCH_HZ`, and 1 where there is a pitch.
        bounds_s: N, where speech begins and ends in the file.
        lengths_s: N, how long the file is.
        measures: N, what Praat finds in the whole file; None where it finds no voice.
    """

    rows: list[Row]
    begins: NDArray[np.int64]
    mel: NDArray[np.float16]
    pitch: NDArray[np.float16]
    bounds_s: Sequence[tuple[float, float]] = ()
    lengths_s: Sequence[float] = ()
    measures: Sequence[VoiceMeasures | None] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def of(self, index: int) -> slice:
        """Where an utterance lies."""
        return slice(int(self.begins[index]), int(self.begins[index + 1]))


def log_mel(pcm: NDArray[np.float32], extractor: WhisperFeatureExtractor) -> Tensor:
    """(S,) samples -> (F, M): log10 of the power of mel bands, as Whisper's front end has it before it clips it."""
    stft = torch.stft(
        torch.from_numpy(pcm),
        extractor.n_fft,
        extractor.hop_length,
        window=torch.hann_window(extractor.n_fft),
        return_complex=True,
    )
    power = stft[:, :-1].abs() ** 2
    bands = torch.from_numpy(np.asarray(extractor.mel_filters, np.float32)).T @ power
    return bands.clamp(min=1e-10).log10()


def whisper_scale(mel_BFM: Tensor) -> Tensor:
    """As Whisper's front end clips and scales what `log_mel` gives."""
    loudest = mel_BFM.amax((-2, -1), keepdim=True)
    return (torch.maximum(mel_BFM, loudest - DECADES) + 4) / 4


def read_voices(
    rows: Sequence[Row],
    extractor: WhisperFeatureExtractor,
    folder: Path,
    say: Callable[[str], None],
) -> Voices:
    """Decode utterances, or read what was decoded before.

    Of two that are the same sound, the one that is not for training is kept.

    Args:
        rows: Of files with speech.
        extractor: Whose mel bands.
        folder: Where they are kept.
        say: Told of progress.

    Raises:
        MediaError: A file cannot be decoded.
    """
    done = folder / "voices.json"
    ordered = sorted(rows, key=lambda row: row.split == "train")
    if not done.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        mels, pitches, begins, kept = [], [], [0], []
        bounds, lengths, measures = [], [], []
        seen: set[bytes] = set()
        with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
            heard = pool.map(partial(_hear, extractor=extractor), ordered, chunksize=20)
            for place, (row, utterance) in enumerate(zip(ordered, heard, strict=True)):
                if utterance is None or utterance.digest in seen:
                    why = "too short" if utterance is None else "a copy"
                    logger.info("%s: left out, %s", row.name, why)
                    continue
                seen.add(utterance.digest)
                mels.append(utterance.mel)
                pitches.append(utterance.pitch)
                begins.append(begins[-1] + len(utterance.mel))
                kept.append(place)
                bounds.append(utterance.bounds_s)
                lengths.append(utterance.length_s)
                measures.append(utterance.measures)
                if place % 500 == 499:
                    say(f"voices: {place + 1} of {len(ordered)} utterances decoded")
        np.save(folder / "mel.npy", np.concatenate(mels))
        np.save(folder / "pitch.npy", np.concatenate(pitches))
        known = {"kept": kept, "begins": begins, "bounds_s": bounds, "lengths_s": lengths}
        known["measures"] = measures
        done.write_text(json.dumps(known) + "\n", encoding="utf-8")
    known = json.loads(done.read_text(encoding="utf-8"))
    return Voices(
        rows=[ordered[place] for place in known["kept"]],
        begins=np.array(known["begins"]),
        mel=np.load(folder / "mel.npy"),
        pitch=np.load(folder / "pitch.npy"),
        bounds_s=[(begin, end) for begin, end in known["bounds_s"]],
        lengths_s=known["lengths_s"],
        measures=[None if m is None else VoiceMeasures(**m) for m in known["measures"]],
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Utterance:
    """One of `Voices`, and a hash of its sound."""

    mel: NDArray[np.float16]
    pitch: NDArray[np.float16]
    bounds_s: tuple[float, float]
    length_s: float
    measures: dict[str, Any] | None
    digest: bytes


def _hear(row: Row, extractor: WhisperFeatureExtractor) -> _Utterance | None:
    """An utterance; None if there is too little speech in it."""
    torch.set_num_threads(1)
    clip = load_clip(row.path, 1, row.start_s, row.end_s, need={"audio"})
    assert clip.audio is not None
    part = spoken(clip.audio)
    speech = levelled(clip.audio, part)
    if len(speech) < extractor.n_fft:
        return None
    mel = log_mel(speech, extractor).T
    found = measure_voice(clip.audio)
    return _Utterance(
        mel=mel.numpy().astype(np.float16),
        pitch=_pitch(speech, len(mel)),
        bounds_s=(part.start / SAMPLE_RATE_HZ, part.stop / SAMPLE_RATE_HZ),
        length_s=len(clip.audio) / SAMPLE_RATE_HZ,
        measures=None if found is None else asdict(found),
        digest=hashlib.sha256(speech.tobytes()).digest(),
    )


def spoken(pcm: NDArray[np.float32]) -> slice:
    """A sound without the silence before and behind it; nothing of it where there is only silence."""
    hop = SAMPLE_RATE_HZ // 100
    loud = np.flatnonzero(_loud(pcm))
    if not len(loud):
        return slice(0, 0)
    first, last = max(0, int(loud[0]) - MARGIN_FRAMES), int(loud[-1]) + 1 + MARGIN_FRAMES
    return slice(first * hop, min(len(pcm), last * hop))


def levelled(pcm: NDArray[np.float32], part: slice) -> NDArray[np.float32]:
    """A part of a sound, the speech in it brought to `LEVEL`."""
    loud = _loud(pcm)
    if not loud.any():
        return pcm[:0]
    gain = LEVEL / np.sqrt(_power(pcm)[loud].mean())
    return np.ascontiguousarray(pcm[part] * np.float32(gain))


def _power(pcm: NDArray[np.float32]) -> NDArray[np.float64]:
    hop = SAMPLE_RATE_HZ // 100
    power: NDArray[np.float64] = (
        pcm[: len(pcm) // hop * hop].reshape(-1, hop).astype(np.float64) ** 2
    ).mean(1)
    return power


def _loud(pcm: NDArray[np.float32]) -> NDArray[np.bool_]:
    power = _power(pcm)
    loud: NDArray[np.bool_] = power > power.max(initial=0.0) * 10 ** (-SILENCE_DB / 10)
    return loud


def _pitch(pcm: NDArray[np.float32], frames: int) -> NDArray[np.float16]:
    """(M, 2) pitch at the middle of each mel frame."""
    sound = parselmouth.Sound(pcm.astype(np.float64), SAMPLE_RATE_HZ)
    found = sound.to_pitch(0.01, *PITCH_RANGE_HZ)
    times_s, hz = found.xs(), found.selected_array["frequency"]
    out = np.zeros((frames, 2), np.float16)
    if len(times_s):
        at = np.rint((0.01 * np.arange(frames) - times_s[0]) / 0.01).astype(int)
        hz_M = np.where((at >= 0) & (at < len(hz)), hz[at.clip(0, len(hz) - 1)], 0.0)
        out[:, 1] = hz_M > 0
        out[:, 0] = np.where(hz_M > 0, np.log2(np.maximum(hz_M, 1.0) / PITCH_HZ), 0.0)
    return out


class Talks:
    """Draws windows of talk: some speakers, some windows of each.

    Args:
        voices: Utterances.
        chosen: Which of them.
        seed: Of the draws.
    """

    def __init__(self, voices: Voices, chosen: Sequence[int], seed: int):
        self._voices, self.rng = voices, np.random.default_rng(seed)
        self._speakers: dict[str, dict[str, dict[int, list[int]]]] = defaultdict(
            lambda: defaultdict(lambda: defaultdict(list))
        )
        for index in chosen:
            row = voices.rows[index]
            label = DEFAULT_LABELS.index(str(row.label))
            self._speakers[corpus_of(row)][str(row.actor)][label].append(index)
        #: Corpus -> (E,) bool, which labels it has.
        self.labels = {
            corpus: np.isin(np.arange(len(DEFAULT_LABELS)), [k for s in people.values() for k in s])
            for corpus, people in self._speakers.items()
        }
        self.speakers = [(c, s) for c, people in self._speakers.items() for s in people]
        self.corpora = sorted(self._speakers)

    def draw(self, speakers: int, windows: int, frames: int) -> dict[str, Any]:
        """One batch: `windows` of each of `speakers`, who come from all corpora alike.

        Args:
            speakers: How many.
            windows: Of each.
            frames: M.

        Returns:
            `mel` (B, M, F) and `pitch` (B, M, 2) float32, `label` (B,) int64, `known` (B, E) bool, `corpus` and
            `speaker` (B,) int64, numbers into `corpora` and `speakers`; windows of a speaker stand together.
        """
        out: dict[str, list[Any]] = defaultdict(list)
        for _ in range(speakers):
            corpus = self.corpora[self.rng.integers(len(self.corpora))]
            names = sorted(self._speakers[corpus])
            name = names[self.rng.integers(len(names))]
            emotions = self._speakers[corpus][name]
            for _ in range(windows):
                label = sorted(emotions)[self.rng.integers(len(emotions))]
                mel, pitch = self._talk(emotions[label], frames)
                out["mel"].append(mel)
                out["pitch"].append(pitch)
                out["label"].append(label)
                out["known"].append(self.labels[corpus])
                out["corpus"].append(self.corpora.index(corpus))
                out["speaker"].append(self.speakers.index((corpus, name)))
        return {key: torch.from_numpy(np.stack(values)) for key, values in out.items()}

    def _talk(
        self, indices: Sequence[int], frames: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """A window of utterances with pauses between them."""
        mels: list[NDArray[np.float32]] = []
        pitches: list[NDArray[np.float32]] = []
        total, skip = 0, None
        while skip is None or total < skip + frames:
            part = self._voices.of(indices[int(self.rng.integers(len(indices)))])
            mel = self._voices.mel[part].astype(np.float32)
            if skip is None:  # the window begins anywhere in its first utterance
                skip = int(self.rng.integers(len(mel)))
            # Mostly a breath; now and then as long as the silence around a recorded sentence.
            pause = int(
                self.rng.integers(5, 40) if self.rng.random() < 0.75 else self.rng.integers(40, 150)
            )
            floor = np.quantile(mel, 0.05, axis=0) + self.rng.uniform(-2, 0)
            noise = floor + 0.15 * self.rng.standard_normal((pause, mel.shape[1]))
            mels += [mel, noise.astype(np.float32)]
            pitches += [
                self._voices.pitch[part].astype(np.float32),
                np.zeros((pause, 2), np.float32),
            ]
            total += len(mel) + pause
        stretch = slice(skip, skip + frames)
        return np.concatenate(mels)[stretch], np.concatenate(pitches)[stretch]


def corpus_of(row: Row) -> str:
    """Which corpus an utterance is of."""
    return str(row.meta.get("corpus", "voices"))
