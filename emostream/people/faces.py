"""Faces in a picture: YuNet (OpenCV Zoo, March 2023) run by OpenCV, with its published weights."""

import math
import threading
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from emostream.errors import InputError
from emostream.people.weights import FACES

#: Confidence from which somebody is taken to have come, and from which somebody is taken to be still there: backs of
#: heads and edges of profiles lie in between.
BEGIN_FROM, KEEP_FROM = 0.8, 0.7
#: Longer side to which frames are shrunk to look for faces.
SEARCH_PX = 320
#: Shorter side from which a face has room; in narrower frames OpenCV 4 sees faces that are not there.
FEWEST_PX = 8
#: Boxes that overlap by more than this (intersection over union) are of one face.
SAME_FACE = 0.3
MOST_FACES = 50


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels of a frame; its corner is the upper left one, and it may reach over the frame's edge."""

    x: float
    y: float
    width: float
    height: float

    @property
    def centre(self) -> tuple[float, float]:
        """Its x and y in pixels."""
        return self.x + self.width / 2, self.y + self.height / 2

    @property
    def side(self) -> float:
        """Of the square of the same area, in pixels."""
        return math.sqrt(self.width * self.height)


@dataclass(frozen=True, slots=True)
class Face:
    """A face in one frame.

    Attributes:
        box: From the forehead to the chin, from ear to ear.
        confidence: The detector's, in [`KEEP_FROM`, 1].
        colours: (6, 4, 3) float32 RGB in [0, 1], what is seen of head and shoulders in as many cells; None if unknown.
    """

    box: Box
    confidence: float
    colours: NDArray[np.float32] | None = field(default=None, compare=False)


_QUIETLY = threading.Lock()  # OpenCV's log level is the whole process's


class FaceDetector:
    """Finds faces in frames of any size; not for several threads at once.

    Raises:
        CheckpointError: The weights that ship with this package are damaged.
    """

    def __init__(self, search_px: int = SEARCH_PX) -> None:
        self.search_px = search_px
        network = np.frombuffer(FACES.read(), np.uint8)
        with _QUIETLY:
            log = getattr(cv2.utils, "logging", cv2)  # where OpenCV 4 has them
            level = log.getLogLevel()
            log.setLogLevel(2)  # OpenCV 5 warns that its one target cannot be chosen
            try:
                self._detector = cv2.FaceDetectorYN.create(
                    "onnx",
                    network,
                    np.zeros(0, np.uint8),
                    (search_px, search_px),
                    KEEP_FROM,
                    SAME_FACE,
                    MOST_FACES,
                )
            finally:
                log.setLogLevel(level)

    def find(self, rgb: NDArray[np.uint8]) -> tuple[Face, ...]:
        """The faces in a frame, surest first.

        Args:
            rgb: (H, W, 3) uint8 RGB.

        Raises:
            InputError: `rgb` has another shape or dtype.
        """
        if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8 or not rgb.size:
            raise InputError(
                f"FaceDetector: wanted (H, W, 3) uint8, found {rgb.shape} {rgb.dtype}."
            )
        height, width = rgb.shape[:2]
        scale = min(1.0, self.search_px / max(height, width))
        size = max(1, round(width * scale)), max(1, round(height * scale))
        if min(size) < FEWEST_PX:
            return ()
        if scale < 1:
            rgb = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
        self._detector.setInputSize(size)
        _, rows = self._detector.detect(cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
        # A row: box, five landmarks, confidence.
        found = [
            Face(
                Box(
                    float(row[0]) * width / size[0],
                    float(row[1]) * height / size[1],
                    float(row[2]) * width / size[0],
                    float(row[3]) * height / size[1],
                ),
                float(row[14]),
                _colours(rgb, row[:4]),
            )
            for row in (() if rows is None else rows)
        ]
        return tuple(sorted(found, key=lambda face: -face.confidence))


def _colours(rgb: NDArray[np.uint8], box: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean colours of the box and half as much below it, where clothes are."""
    x, y, width, height = box
    bottom, right = rgb.shape[:2]
    x0, y0 = (int(np.clip(v, 0, edge - 1)) for v, edge in ((x, right), (y, bottom)))
    x1, y1 = (
        int(np.clip(v, least + 1, edge))
        for v, least, edge in ((x + width, x0, right), (y + 1.5 * height, y0, bottom))
    )
    cells = cv2.resize(rgb[y0:y1, x0:x1], (4, 6), interpolation=cv2.INTER_AREA)
    return cells.astype(np.float32) / 255
