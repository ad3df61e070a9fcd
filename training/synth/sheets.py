"""Contact sheets of faces and spectrogram sheets of voices, one pair a split.

    python -m training.synth.sheets --out docs/corpus

Faces: a row an emotion, five actors a row, each at three instants (onset, apex, later). Voices: a row an emotion,
three actors a row, spectrogram with the planned pitch; below each, its recorded deviations.
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from emostream.labels import DEFAULT_LABELS
from training.data.cues import VOICE_DIMENSIONS
from training.synth.actors import SPLITS, Split
from training.synth.clip import film, speak
from training.synth.script import Script, write_script
from training.synth.speech import GRID_HZ, plan_speech
from training.synth.voice import SAMPLE_RATE_HZ

_FACE_PX = 96
_ACTORS = 5
_VOICES = 3
_INK = (30, 30, 30)
_SHORT = {"pitch_range": "range", "loudness": "loud", "breathiness": "breath"}


def _scripts(
    seed: int, split: Split, label: str, wanted: Callable[[Script], bool]
) -> Iterator[Script]:
    """Clips of a label, in order, each of an actor not seen before."""
    seen = set()
    for index in range(100_000):
        script = write_script(seed, split, index)
        if script.label == label and script.actor.id not in seen and wanted(script):
            seen.add(script.actor.id)
            yield script


def _plainly_acted(script: Script) -> bool:
    acting = script.acting
    return (
        acting.face.state == "expressive"
        and acting.voice.state == "expressive"
        and not acting.face.covered
        and acting.conflict is None
    )


def face_sheet(split: Split, seed: int = 0) -> NDArray[np.uint8]:
    """(H, W, 3) RGB: emotions by actors by time, then a row of faces that tell nothing."""
    edge = 74
    gap = np.full((_FACE_PX, 4, 3), 255, np.uint8)
    rows = []
    for label in (*DEFAULT_LABELS, "hidden"):
        if label == "hidden":
            states = ("occluded", "turned", "absent", "neutral")
            picked = []
            for state in states:
                found = (s for s in _all(seed, split) if s.acting.face.state == state)
                picked.append(next(found))
            found = (s for s in _all(seed, split) if len(s.acting.face.covered) == 1)
            picked.append(next(found))
        else:
            scripts = _scripts(seed, split, label, _plainly_acted)
            picked = [next(scripts) for _ in range(_ACTORS)]
        name = np.full((_FACE_PX, edge, 3), 255, np.uint8)
        cv2.putText(name, label, (4, 52), cv2.FONT_HERSHEY_SIMPLEX, 0.45, _INK, 1, cv2.LINE_AA)
        parts = [name]
        for script in picked:
            face = script.acting.face
            times = np.array(
                [0.5 * (face.onset_s + face.apex_s), face.apex_s + 0.5, face.offset_s - 0.4]
            )
            frames = film(script, plan_speech(script), times, 128)
            parts += [
                cv2.resize(f, (_FACE_PX, _FACE_PX), interpolation=cv2.INTER_AREA) for f in frames
            ]
            parts.append(gap)
        rows.append(np.concatenate(parts, axis=1))
    return np.concatenate(rows, axis=0)


def _all(seed: int, split: Split) -> Iterator[Script]:
    return (write_script(seed, split, index) for index in range(100_000))


def _spectrogram(pcm: NDArray[np.float32], width: int, height: int) -> NDArray[np.uint8]:
    """0 to 5 kHz, 70 dB of range, (height, width, 3) RGB."""
    hop = 64
    frames = np.lib.stride_tricks.sliding_window_view(pcm, 512)[::hop] * np.hanning(512)
    power = np.abs(np.fft.rfft(frames, axis=1)[:, : int(5000 / SAMPLE_RATE_HZ * 512)]) ** 2
    decibel = np.clip(10 * np.log10(power.T[::-1] + 1e-9) + 42, 0, 70) / 70
    grey = cv2.resize(
        (255 * decibel).astype(np.uint8), (width, height), interpolation=cv2.INTER_AREA
    )
    return np.asarray(cv2.applyColorMap(grey, cv2.COLORMAP_MAGMA)[..., ::-1], dtype=np.uint8)


def voice_sheet(split: Split, seed: int = 0) -> NDArray[np.uint8]:
    """(H, W, 3) RGB: spectrograms of emotions by actors, pitch drawn at five times its height."""
    width, height, text, edge = 380, 112, 30, 74
    rows = []
    for label in DEFAULT_LABELS:
        scripts = _scripts(seed, split, label, _plainly_acted)
        name = np.full((height + text, edge, 3), 255, np.uint8)
        cv2.putText(name, label, (4, 60), cv2.FONT_HERSHEY_SIMPLEX, 0.45, _INK, 1, cv2.LINE_AA)
        parts = [name]
        for _ in range(_VOICES):
            script = next(scripts)
            speech = plan_speech(script)
            picture = np.ascontiguousarray(_spectrogram(speak(script, speech), width - 6, height))
            at = np.flatnonzero(speech.voicing > 0.25)
            x = at / GRID_HZ / speech.duration_s * (width - 6)
            y = height - np.clip(5 * speech.f0_hz[at] / 5000, 0, 1) * height
            for px, py in zip(x.astype(int), y.astype(int), strict=True):
                cv2.circle(picture, (px, py), 1, (90, 255, 255), -1)
            z = script.acting.voice.prosody
            tell = [f"{_SHORT.get(n, n)} {z[n]:+.1f}" for n in VOICE_DIMENSIONS]
            caption = np.full((text, width, 3), 255, np.uint8)
            for k, line in enumerate((tell[:4], tell[4:])):
                cv2.putText(
                    caption,
                    "  ".join(line),
                    (2, 11 + 13 * k),
                    cv2.FONT_HERSHEY_SIMPLEX,
                    0.36,
                    _INK,
                    1,
                    cv2.LINE_AA,
                )
            pad = np.full((height, 6, 3), 255, np.uint8)
            parts.append(np.concatenate([np.concatenate([picture, pad], axis=1), caption], axis=0))
        rows.append(np.concatenate(parts, axis=1))
    return np.concatenate(rows, axis=0)


def write_sheets(out: Path, seed: int = 0) -> list[Path]:
    """Write `faces-SPLIT.jpg` and `voices-SPLIT.jpg` for every split."""
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for split in SPLITS:
        for name, picture in (
            ("faces", face_sheet(split, seed)),
            ("voices", voice_sheet(split, seed)),
        ):
            path = out / f"{name}-{split}.jpg"
            cv2.imwrite(str(path), picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 84])
            written.append(path)
    return written


def main() -> None:
    """Entry point of `python -m training.synth.sheets`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the sheets")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    write_sheets(options.out, options.seed)


if __name__ == "__main__":
    main()
