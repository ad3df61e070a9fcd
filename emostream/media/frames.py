"""Decoded video frames as upright RGB arrays, and their times where the container has none."""

import heapq
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
    try:
        side_data = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV has no name for some of what a frame carries, such as a photo's EXIF
        return None
    if side_data is None:
        return None
    a, b, _, c, d = np.frombuffer(bytes(side_data), dtype=np.int32)[:5].tolist()
    return a, b, c, d


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


class DecodingOrder:
    """Presentation times of frames whose packets carry decoding times only.

    So it is in AVI; the presentation times that FFmpeg makes up there are out of order where H.264 has B-frames.
    Frames come out of a decoder in order of presentation, so each takes the earliest decoding time that is not taken.
    """

    def __init__(self) -> None:
        self._times: list[int] = []  # a heap of those fed and not yet taken

    def feed(self, packet: Any) -> None:
        """A packet goes to the decoder."""
        if packet.pts is None and packet.dts is not None:
            heapq.heappush(self._times, packet.dts)

    def lost(self, packet: Any) -> None:
        """The decoder refused it."""
        if packet.dts in self._times:
            self._times.remove(packet.dts)
            heapq.heapify(self._times)

    def next(self, held_back: int) -> int | None:
        """The time of the frame that came out; the decoder holds back `held_back` packets at most after it."""
        while len(self._times) > held_back + 1:
            heapq.heappop(self._times)  # its packet gave no frame
        return heapq.heappop(self._times) if self._times else None
