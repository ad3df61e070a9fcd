"""Pictures that do not move, shown to a model of moving ones.

A model that learned from equal frames would learn that stillness means what stills show. So a still is given the small
life of a camera: it drifts, turns, comes nearer, its light wavers, and each frame is compressed anew.
"""

import functools
import zlib
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from emostream.errors import MediaError
from training.data.manifest import Row

#: Most that a frame differs from the picture: shift in sides, turn in degrees, scale and gain as shares.
SHIFT: Final = 0.02
TURN_DEG: Final = 2.0
SCALE: Final = 0.02
GAIN: Final = 0.06
#: Bounds of JPEG's quality.
QUALITY: Final = (60, 95)


def read_still(row: Row) -> NDArray[np.uint8]:
    """The picture of a row, or the part of it that the row means, as (H, W, 3) uint8 RGB.

    Raises:
        MediaError: It cannot be read, or is smaller than the part.
    """
    picture = read_picture(row.path)
    x, y, width, height = row.region or (0, 0, picture.shape[1], picture.shape[0])
    part = picture[y : y + height, x : x + width]
    if part.shape[:2] != (height, width):
        found = f"{picture.shape[1]}x{picture.shape[0]}"
        raise MediaError(
            f"{row.path}: region is {row.region}, the picture has {found} pixels; index the corpus anew"
        )
    return part


@functools.lru_cache(maxsize=8)  # a mosaic holds hundreds of faces, which mostly follow each other
def read_picture(path: Path) -> NDArray[np.uint8]:
    """A picture file as (H, W, 3) uint8 RGB; not to be written to.

    Raises:
        MediaError: It is missing or no picture.
    """
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise MediaError(f"{path}: cannot be read: {error.strerror}") from error
    picture = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if picture is None:
        raise MediaError(f"{path}: wanted a picture, found {len(data)} bytes that are none")
    picture = np.ascontiguousarray(picture[..., ::-1])
    picture.flags.writeable = False
    return picture


def still_frames(row: Row, num_frames: int) -> NDArray[np.uint8]:
    """A row's picture as a short film, the same each time.

    Args:
        row: Of a still; what it is named decides how the picture moves.
        num_frames: T.

    Returns:
        (T, H, W, 3) uint8 RGB.

    Raises:
        MediaError: The picture cannot be read.
    """
    picture = read_still(row)
    height, width = picture.shape[:2]
    rng = np.random.default_rng(zlib.crc32(f"{row.path.name} {row.region}".encode()))
    # A walk that ends elsewhere than it began, each of its five ways within ±1.
    walk_T5 = np.cumsum(rng.standard_normal((num_frames, 5)), 0)
    walk_T5 -= walk_T5.mean(0)
    walk_T5 /= max(1.0, float(np.abs(walk_T5).max()))
    frames = []
    for x, y, turn, scale, light in walk_T5:
        centre = ((width - 1) / 2, (height - 1) / 2)
        place = cv2.getRotationMatrix2D(centre, TURN_DEG * turn, 1 + SCALE * scale)
        place[:, 2] += SHIFT * x * width, SHIFT * y * height
        moved = cv2.warpAffine(picture, place, (width, height), borderMode=cv2.BORDER_REFLECT_101)
        lit = np.clip(moved * (1 + GAIN * light), 0, 255).astype(np.uint8)
        frames.append(jpeg(lit, int(rng.integers(*QUALITY))))
    return np.stack(frames)


def jpeg(picture: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """A picture, (H, W) or (H, W, 3), through JPEG and back."""
    # Channel order does not matter to a round trip, save that luma weights the wrong end a little.
    _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_UNCHANGED), np.uint8)
