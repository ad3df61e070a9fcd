"""What is behind the actor, and what the sensor adds."""

import cv2
import numpy as np
from numpy.typing import NDArray

from training.synth.styles import Style

Image = NDArray[np.uint8]

#: The backdrop is this much larger than the frame, so that the camera can move over it.
MARGIN = 1.2


def backdrop(
    style: Style, paper: NDArray[np.float64], size_px: int, rng: np.random.Generator
) -> Image:
    """A picture (M, M, 3) RGB with M = MARGIN * size_px: wall, room, lights or outdoors, out of focus."""
    small = 72
    base = rng.uniform(30, 215, 3) if rng.random() < 0.6 else np.full(3, rng.uniform(25, 225))
    ramp = np.linspace(-0.5, 0.5, small)[:, None, None] * rng.uniform(-70, 70)
    if rng.random() < 0.5:
        ramp = ramp.transpose(1, 0, 2)
    field = np.clip(base + ramp + np.zeros((small, small, 3)), 0, 255).astype(np.uint8)
    kind = rng.choice(["plain", "room", "lights", "outdoors"], p=[0.3, 0.35, 0.15, 0.2])
    if kind == "room":
        for _ in range(int(rng.integers(2, 7))):
            x, y, w, h = (int(v) for v in (*rng.uniform(-10, small, 2), *rng.uniform(8, 40, 2)))
            colour = np.clip(base + rng.normal(0, 45, 3), 0, 255)
            cv2.rectangle(field, (x, y), (x + w, y + h), colour.tolist(), -1)
    elif kind == "lights":
        for _ in range(int(rng.integers(5, 16))):
            x, y = (int(v) for v in rng.uniform(0, small, 2))
            colour = np.clip(base + rng.uniform(-20, 110, 3), 0, 255)
            cv2.circle(field, (x, y), int(rng.uniform(2, 7)), colour.tolist(), -1)
    elif kind == "outdoors":
        horizon = int(rng.uniform(0.3, 0.75) * small)
        field[horizon:] = np.clip(rng.uniform(30, 150, 3), 0, 255).astype(np.uint8)
        for _ in range(int(rng.integers(0, 6))):
            x = int(rng.uniform(0, small))
            cv2.ellipse(
                field, (x, horizon), (9, 14), 0, 0, 360, rng.uniform(20, 130, 3).tolist(), -1
            )
    field = cv2.GaussianBlur(field, (0, 0), rng.uniform(0.8, 3.0))
    if style.ink_only:
        field = np.clip(paper + rng.normal(0, 2, (small, small, 3)), 0, 255).astype(np.uint8)
    else:
        grey = field.mean(axis=2, keepdims=True)
        lit = (
            grey + style.saturation * (field - grey) - 110
        ) * style.contrast + 110 * style.brightness
        field = np.clip(lit, 0, 255).astype(np.uint8)
    side = round(MARGIN * size_px)
    return np.asarray(
        cv2.resize(field, (side, side), interpolation=cv2.INTER_LINEAR), dtype=np.uint8
    )


class Sensor:
    """The camera's own marks: blur, vignette, exposure flicker, noise.

    Args:
        style: Its blur and range of noise.
        size_px: Frame width and height.
        rng: The camera of this clip.
    """

    def __init__(self, style: Style, size_px: int, rng: np.random.Generator) -> None:
        self._blur = style.blur_px * size_px / 128 * rng.uniform(0.6, 1.5)
        sigma = rng.uniform(*style.noise)
        self._span = 16
        field = rng.standard_normal(
            (size_px + self._span, size_px + self._span, 1), dtype=np.float32
        )
        if rng.random() < 0.5:  # colour noise
            shape = (size_px + self._span, size_px + self._span, 3)
            field = rng.standard_normal(shape, dtype=np.float32)
        self._noise = np.broadcast_to(np.rint(sigma * field), (*field.shape[:2], 3)).astype(
            np.int16
        )
        self._size = size_px
        edge = np.linspace(-1, 1, size_px, dtype=np.float32) ** 2
        fall = rng.uniform(0.0, 0.22)
        shade = 1 - fall * (edge[:, None] + edge[None]) / 2
        self._shade = np.repeat((255 * shade[..., None]).astype(np.uint8), 3, axis=2)
        self._shade_on = fall > 0.05

    def expose(self, picture: Image, offset: tuple[int, int]) -> Image:
        """A frame as it comes off the sensor; `offset` in [0, 16) moves the noise from frame to frame."""
        if self._blur > 0.3:
            picture = cv2.GaussianBlur(picture, (3, 3), self._blur)
        if self._shade_on:
            picture = cv2.multiply(picture, self._shade, scale=1 / 255)
        y, x = offset
        grain = self._noise[y : y + self._size, x : x + self._size]
        return np.asarray(cv2.add(picture, grain, dtype=cv2.CV_8U), dtype=np.uint8)
