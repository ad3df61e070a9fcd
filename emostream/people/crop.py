"""One face cut out of a frame: square, upright, never distorted. Whoever shows a model a face cuts it here."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from emostream.errors import InputError
from emostream.people.faces import Box

#: A face whose box is smaller than this, in pixels of the frame that it is cut from, is too small to be read.
LEAST_FACE_PX = 16
#: How much of the square's side its centre is above the box's.
RISE = 0.016


def square(box: Box, margin: float) -> Box:
    """The square that a face is cut by: `margin`·√(width·height) a side, a little above the box's centre."""
    side = margin * box.side
    x, y = box.centre
    return Box(x - side / 2, y - side / 2 - RISE * side, side, side)


def crop_face(
    frame: NDArray[np.uint8], box: Box, *, size_px: int, margin: float
) -> NDArray[np.uint8]:
    """Cut a face out of a frame.

    Args:
        frame: (H, W, 3) uint8 RGB.
        box: The face, in pixels of the frame: `Track.steady`.
        size_px: Side of the result; a small face is enlarged.
        margin: The checkpoint's (`crop_margin`).

    Returns:
        (size_px, size_px, 3) uint8 RGB; what lies outside the frame repeats its edge.

    Raises:
        InputError: `frame` has another shape or dtype.
    """
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or not frame.size:
        raise InputError(f"crop_face: wanted (H, W, 3) uint8, found {frame.shape} {frame.dtype}.")
    cut = square(box, margin)
    side = max(1, round(cut.width))
    x, y = round(cut.x), round(cut.y)
    height, width = frame.shape[:2]
    rows = np.clip(np.arange(y, y + side), 0, height - 1)
    columns = np.clip(np.arange(x, x + side), 0, width - 1)
    part = frame[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    part = part[rows - rows[0]][:, columns - columns[0]]
    interpolation = cv2.INTER_AREA if side > size_px else cv2.INTER_CUBIC
    return cv2.resize(part, (size_px, size_px), interpolation=interpolation)


def crop_faces(
    frames: NDArray[np.uint8],
    boxes: Sequence[Box | None],
    *,
    size_px: int,
    margin: float,
) -> NDArray[np.uint8]:
    """One person's face in each frame of a window.

    Args:
        frames: (T, H, W, 3) uint8 RGB, oldest first.
        boxes: T, where the person is in each; None where out of sight. Such a frame shows the crop of the frame
            before, and those before the first box that of the first.
        size_px: As in `crop_face`.
        margin: As in `crop_face`.

    Returns:
        (T, size_px, size_px, 3) uint8 RGB.

    Raises:
        InputError: `frames` has another shape or dtype, or there is no box at all, or not one for each frame.
    """
    if len(frames) != len(boxes) or all(box is None for box in boxes):
        raise InputError(
            f"crop_faces: wanted a box for each of {len(frames)} frames, one at least not None, found {boxes}."
        )
    crops: list[NDArray[np.uint8]] = []
    pending = 0
    for frame, box in zip(frames, boxes, strict=True):
        if box is not None:
            crops.append(crop_face(frame, box, size_px=size_px, margin=margin))
            crops.extend([crops[-1]] * pending)
            pending = 0
        elif crops:
            crops.append(crops[-1])
        else:
            pending += 1
    return np.stack(crops)
