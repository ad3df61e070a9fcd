"""OpenCV's side of a camera: opening it on every platform, and when its frames were captured."""

import math
import os
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emostream.errors import ConfigError
from emostream.urls import hide_secrets

# Read by OpenCV when it is imported; what the user has set stands.
ENVIRONMENT = {
    # Media Foundation's hardware transforms take half a minute to open some cameras.
    "OPENCV_VIDEOIO_MSMF_ENABLE_HW_TRANSFORMS": "0",
    "OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT": "2",
    "OPENCV_LOG_LEVEL": "ERROR",  # we report what fails ourselves
}
NETWORK_SCHEMES = ("http://", "https://", "rtsp://", "rtsps://", "rtmp://", "udp://", "rtp://")
MAX_DRIVER_AGE_S = 0.5  # an older timestamp is of another clock


@dataclass(frozen=True, kw_only=True, slots=True)
class CameraConfig:
    """How to use one local camera.

    Attributes:
        source: its index, or its path (`/dev/video0`).
        width, height: picture size in pixels that it is asked for; it may choose another.
        fps: frame rate that it is asked for.
        lost_after_s: without a frame for so long, the camera is lost and opened anew.
        frozen_after_s: a picture that repeats to the last bit for so long is frozen; 0 accepts stills. Sensors are
            noisy, so that a live picture does not repeat; a covered lens may repeat for a few seconds.
    """

    source: int | str = 0
    width: int = 640
    height: int = 480
    fps: float = 30.0
    lost_after_s: float = 2.0
    frozen_after_s: float = 5.0

    def __post_init__(self) -> None:
        if isinstance(self.source, int):
            usable, shown = self.source >= 0, str(self.source)
        else:
            usable, shown = self.source.startswith("/dev/"), repr(hide_secrets(self.source))
        if not usable:
            raise ConfigError(
                f"camera: wanted an index (0, 1, …) or a URL ({', '.join(NETWORK_SCHEMES)}…), found "
                f"{shown}; see `emostream devices`, and use --source for files"
            )
        if self.lost_after_s <= 0 or self.frozen_after_s < 0:
            raise ConfigError(
                "camera: wanted lost_after_s > 0 and frozen_after_s >= 0, found "
                f"{self.lost_after_s:g} and {self.frozen_after_s:g}"
            )


class FrameStamps:
    """Capture times of an open camera's frames, by the best clock that its backend offers."""

    def __init__(self, capture: Any) -> None:
        import cv2

        self._position = lambda: capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        self._driver_stamps = capture.getBackendName() == "V4L2"
        self._last_s = -math.inf

    def next(self, now_s: float) -> float:
        """Capture time of the frame that was grabbed at `now_s`, on the same clock; ascends."""
        time_s = now_s
        if self._driver_stamps:
            # V4L2 stamps buffers with CLOCK_MONOTONIC, which is perf_counter on Linux.
            position_s = self._position()
            if 0.0 <= now_s - position_s <= MAX_DRIVER_AGE_S:
                time_s = position_s
        self._last_s = max(time_s, self._last_s + 1e-6)
        return self._last_s


def prepare_environment() -> None:
    """Set what OpenCV reads from the environment; before it is imported, for all to take effect."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import cv2

    cv2.setNumThreads(1)


def open_capture(config: CameraConfig) -> tuple[Any, str]:
    """Open a `cv2.VideoCapture`; returns it, or None and what is wrong."""
    import cv2

    for backend in _backends():
        capture = cv2.VideoCapture(config.source, backend)
        if capture.isOpened():
            capture.set(cv2.CAP_PROP_FRAME_WIDTH, config.width)
            capture.set(cv2.CAP_PROP_FRAME_HEIGHT, config.height)
            capture.set(cv2.CAP_PROP_FPS, config.fps)
            # With a single buffer V4L2 has none to fill while we hold it, and halves the rate.
            capture.set(cv2.CAP_PROP_BUFFERSIZE, 2 if capture.getBackendName() == "V4L2" else 1)
            return capture, ""
        capture.release()
    return None, f"camera {config.source}: {_why_closed(config.source)}"


def _backends() -> list[int]:
    import cv2

    native = {
        "linux": [cv2.CAP_V4L2],
        "darwin": [cv2.CAP_AVFOUNDATION],
        "win32": [cv2.CAP_MSMF, cv2.CAP_DSHOW],
    }
    return [*native.get(sys.platform, []), cv2.CAP_ANY]


def _why_closed(source: int | str) -> str:
    """The likeliest reason why a local camera cannot be opened, and its remedy."""
    if sys.platform == "linux":
        path = f"/dev/video{source}" if isinstance(source, int) else source
        if not os.path.exists(path):
            return (
                f"there is no {path}; connect a camera or choose another, see `emostream devices`"
            )
        if not os.access(path, os.R_OK | os.W_OK):
            return f"no permission for {path}; run `sudo usermod -aG video $USER` and log in again"
    elif sys.platform == "darwin":
        return (
            "cannot be opened; allow this terminal the camera in System Settings, Privacy & "
            "Security, or choose another, see `emostream devices`"
        )
    return "cannot be opened; another program may be using it, see `emostream devices`"


def to_rgb(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W), (H, W, 3) BGR or (H, W, 4) BGRA as contiguous (H, W, 3) RGB."""
    import cv2

    codes = {1: cv2.COLOR_GRAY2RGB, 3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGB}
    channels = 1 if picture.ndim == 2 else picture.shape[2]
    return np.asarray(cv2.cvtColor(picture, codes[channels]), np.uint8)
