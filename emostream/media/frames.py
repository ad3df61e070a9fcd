"""Decoded video frames as upright RGB arrays."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class TimedFrame:
    """A video frame, upright.

    Attributes:
        time_s: Presentation time in seconds of the media clock (`MediaInfo`).
        rgb: (H, W, 3) uint8 RGB, with the rotation and mirroring that the file asks for applied.
    """

    time_s: float
    rgb: NDArray[np.uint8]


def display_matrix(frame: Any) -> tuple[int, int, int, int] | None:
    """(a, b, c, d) of a decoded `av.VideoFrame`: shown at x' = a·x + c·y, y' = b·x + d·y; None if shown as stored."""
    for side_data in frame.side_data:
        if side_data.type.name == "DISPLAYMATRIX":
            a, b, _, c, d = np.frombuffer(bytes(side_data), dtype=np.int32)[:5].tolist()
            return a, b, c, d
    return None


def upright_rgb(frame: Any, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """Convert a decoded `av.VideoFrame` to (H, W, 3) uint8 RGB, turned as its display matrix says.

    Args:
        frame: The frame.
        size: Width and height to scale to before turning, if not the frame's own.
    """
    width, height = size or (frame.width, frame.height)
    rgb: NDArray[np.uint8] = frame.to_ndarray(format="rgb24", width=width, height=height)
    matrix = display_matrix(frame)
    if matrix is None:
        return np.ascontiguousarray(rgb)  # rows of other than a multiple of 32 pixels are padded
    # Any of the eight orientations is a transposition and two mirrorings; other angles take the nearest.
    a, b, c, d = matrix
    if abs(b) > abs(a):
        rgb = rgb.transpose(1, 0, 2)
        a, d = c, b
    return np.ascontiguousarray(rgb[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


def rotation_deg(frame: Any) -> int:
    """Counter-clockwise rotation, in [-180, 180], that a decoded `av.VideoFrame` needs to be upright."""
    return int(frame.rotation)
