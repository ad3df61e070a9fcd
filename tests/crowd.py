"""Pictures of several people who cross, made of pictures of one each."""

import math
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from training.synth.clip import film
from training.synth.script import write_script
from training.synth.speech import plan_speech

Rgb = NDArray[np.uint8]
WIDTH, HEIGHT = 1280, 720
#: Rendered actors whose faces are found in every picture.
ACTORS = (1, 3, 4, 5, 6, 7, 8, 10)


def actors(indices: Sequence[int] = ACTORS) -> list[list[Rgb]]:
    """Eight (192, 192, 3) pictures of each of some rendered actors."""
    out = []
    for index in indices:
        script = write_script(0, "train", index)
        times_s = np.linspace(0.5, script.duration_s - 0.5, 8)
        out.append(list(film(script, plan_speech(script), times_s, 192)))
    return out


def crossing(
    people: Sequence[Sequence[Rgb]], *, seconds: float, step_s: float, seed: int
) -> Iterator[tuple[float, Rgb, NDArray[np.int8]]]:
    """Two or four people who are moved to and fro across each other.

    Args:
        people: Square pictures of each, shown in turn.
        seconds: How long.
        step_s: From frame to frame.
        seed: Of who moves when.

    Yields:
        Time, the frame, (720, 1280, 3) uint8, and whose each pixel is, (720, 1280), -1 for nobody's.
    """
    rng = np.random.default_rng(seed)
    count = len(people)
    side = 280 if count == 2 else 180
    period, phase = rng.uniform(8, 20, count), rng.uniform(0, 2 * np.pi, count)
    row = 30 + np.linspace(0, HEIGHT - side - 60, count) * (0.3 if count == 2 else 1)
    for i in range(round(seconds / step_s)):
        time_s = i * step_s
        frame = np.full((HEIGHT, WIDTH, 3), 110, np.uint8)
        whose = np.full((HEIGHT, WIDTH), -1, np.int8)
        for k, pictures in enumerate(people):
            swing = 1 + math.sin(2 * np.pi * time_s / period[k] + phase[k])
            x = round((WIDTH - side) / 2 * swing)
            y = round(row[k] + 20 * math.sin(time_s + k))
            frame[y : y + side, x : x + side] = cv2.resize(
                pictures[i % len(pictures)], (side, side)
            )
            whose[y : y + side, x : x + side] = k
        yield time_s, frame, whose


def owner(whose: NDArray[np.int8], x: float, y: float, width: float, height: float) -> int | None:
    """Whose a box in pixels is; None if it is half one person's and half another's, or nobody's."""
    rows = slice(max(0, round(y)), max(0, round(y + height)))
    part = whose[rows, max(0, round(x)) : max(0, round(x + width))]
    counts = np.bincount(part[part >= 0].ravel(), minlength=1)
    return int(counts.argmax()) if counts.max() >= 0.85 * max(1, part.size) else None
