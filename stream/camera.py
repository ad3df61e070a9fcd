"""Cameras, local and network, through OpenCV: a capture process, and the `Camera` class it is made of."""

import math
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emostream.errors import DeviceTimeout
from stream.camera_driver import (
    CameraConfig,
    FrameStamps,
    open_capture,
    prepare_environment,
    to_rgb,
)
from stream.capture_link import CaptureLink
from stream.capture_process import capture_parser, run_capture
from stream.device import CLOSE_WITHIN_S, Backoff, DeviceStatus, DriverCall, run_device

QUEUED_FRAMES = 8
FAILED_GRAB_PAUSE_S = 0.02
FIRST_PICTURE_S = 5.0  # a camera may take longer to start than later from frame to frame


@dataclass(frozen=True, kw_only=True, slots=True)
class CameraFrame:
    """One picture.

    Attributes:
        time_s: when it was captured, seconds of `time.perf_counter`; ascends.
        rgb: uint8 (H, W, 3) RGB, not to be written to.
    """

    time_s: float
    rgb: NDArray[np.uint8]


class Camera:
    """One camera, read by a thread that always drains it, so that what it yields is never old.

    Loss is detected by time alone: OpenCV's return values mean different things on different
    backends. A lost or frozen camera is opened anew, with growing pauses, until it is back.

    Drop policy: `read` yields pictures in order from a queue of `QUEUED_FRAMES`; when nobody reads,
    the oldest are dropped. Repeats of a frozen picture are withheld.

    Args:
        config: which camera, and when it counts as lost.
        wanted: called with the capture time of every frame in order; only frames for which it is
            true are decoded and yielded. All are, without it.
    """

    def __init__(
        self, config: CameraConfig, *, wanted: Callable[[float], bool] | None = None
    ) -> None:
        self.config = config
        self._wanted = wanted
        self._changed = threading.Condition()
        self._frames: deque[CameraFrame] = deque(maxlen=QUEUED_FRAMES)
        self._newest: CameraFrame | None = None
        self._status = DeviceStatus(state="opening")
        self._heard_s = 0.0  # when the camera last showed life
        self._driver = DriverCall()
        self._still = StillPicture(config.frozen_after_s)
        self._closing = threading.Event()
        self._backoff = Backoff()
        self._thread = threading.Thread(target=self._run, name="camera", daemon=True)

    def __enter__(self) -> "Camera":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self, timeout_s: float = CLOSE_WITHIN_S) -> bool:
        """Release the camera; false if its driver did not let go within `timeout_s`."""
        self._closing.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def read(self, timeout_ms: float) -> CameraFrame:
        """Wait for the next picture that was not read before.

        Raises:
            DeviceTimeout: none came within `timeout_ms`; `status` says why.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._frames, timeout_ms / 1000):
                raise DeviceTimeout(
                    f"camera {self.config.source}: no picture within {timeout_ms:g} ms; "
                    f"{self._status.detail or 'it is ' + self._status.state}"
                )
            return self._frames.popleft()

    def latest(self, max_age_ms: float) -> CameraFrame:
        """The newest picture, without waiting; it may have been read before.

        Raises:
            DeviceTimeout: there is none, or it was captured more than `max_age_ms` ago.
        """
        newest = self._newest
        age_ms = math.inf if newest is None else 1000 * (time.perf_counter() - newest.time_s)
        if newest is None or age_ms > max_age_ms:
            raise DeviceTimeout(
                f"camera {self.config.source}: wanted a picture of the last {max_age_ms:g} ms, "
                f"the newest is {age_ms:.0f} ms old; it is {self.status().state}"
            )
        return newest

    def status(self) -> DeviceStatus:
        """What the camera is doing; true to the deadline even while its driver blocks."""
        with self._changed:
            status, silent_s = self._status, time.perf_counter() - self._heard_s
        if status.state == "live" and silent_s > self.config.lost_after_s:
            return DeviceStatus(state="lost", detail=self._problem(), restarts=status.restarts)
        return status

    @property
    def stuck(self) -> bool:
        """Whether its driver hangs in a call; only a new process helps."""
        return self._driver.stuck

    # The reader thread

    def _run(self) -> None:
        prepare_environment()
        opened = 0
        while not self._closing.is_set():
            with self._driver:
                capture, problem = open_capture(self.config)
            if capture is not None:
                opened += 1
                try:
                    problem = self._drain(capture, restarts=opened - 1)
                finally:
                    with self._driver:
                        capture.release()
            if not self._closing.is_set():
                self._retry(problem, restarts=max(0, opened - 1))

    def _retry(self, problem: str, *, restarts: int) -> None:
        pause_s = self._backoff.next_s()
        with self._changed:
            known = self._status.state in ("lost", "retrying")
            self._status = DeviceStatus(
                state="retrying" if known else "lost", detail=problem, restarts=restarts
            )
        self._closing.wait(pause_s)

    def _drain(self, capture: Any, *, restarts: int) -> str:
        """Read until the camera is lost, frozen or closed; returns what is wrong with it."""
        stamps = FrameStamps(capture, self.config)
        self._heard_s = time.perf_counter()
        allowed_s = max(self.config.lost_after_s, FIRST_PICTURE_S)
        usable = True
        while not self._closing.is_set():
            with self._driver:
                grabbed = capture.grab()
            now_s = time.perf_counter()
            if grabbed:
                time_s = stamps.next(now_s)
                if self._wanted is None or self._wanted(time_s):
                    usable = self._take(capture, time_s, restarts)
                    if usable:
                        allowed_s = self.config.lost_after_s
                if usable:
                    self._heard_s = now_s
            else:
                self._closing.wait(FAILED_GRAB_PAUSE_S)
            if now_s - self._heard_s > allowed_s:
                return self._problem()
        return "closed"

    def _take(self, capture: Any, time_s: float, restarts: int) -> bool:
        """Decode the frame that was grabbed and offer it; false if it is broken or frozen."""
        with self._driver:
            decoded, picture = capture.retrieve()
        if not decoded or picture is None or picture.size == 0:
            return False
        if self._still.add(picture, time_s):
            return False
        frame = CameraFrame(time_s=time_s, rgb=to_rgb(picture))
        self._backoff.reset()
        with self._changed:
            self._status = DeviceStatus(state="live", restarts=restarts)
            self._newest = frame
            self._frames.append(frame)
            self._changed.notify_all()
        return True

    def _problem(self) -> str:
        """Why the camera counts as lost; the same words each time, as every change is reported."""
        if self._still.frozen:
            return (
                f"camera {self.config.source}: the picture has not changed for "
                f"{self.config.frozen_after_s:g} s; it is frozen or covered (a still is accepted "
                "with --frozen-after-s 0)"
            )
        return f"camera {self.config.source}: no picture for {self.config.lost_after_s:g} s"


class StillPicture:
    """Tells a frozen picture: one that repeats to the last bit for `frozen_after_s` and more.

    The last picture is remembered for good, so that a camera which is opened anew and still shows
    it is still frozen.
    """

    def __init__(self, frozen_after_s: float) -> None:
        self._frozen_after_s = frozen_after_s
        self._last: NDArray[np.uint8] | None = None
        self._since_s = 0.0
        self.frozen = False

    def add(self, picture: NDArray[np.uint8], time_s: float) -> bool:
        """Whether the picture is frozen with this one, captured at `time_s`; it is kept."""
        if self._last is None or not np.array_equal(picture, self._last):
            self._last, self._since_s = picture, time_s
        self.frozen = 0 < self._frozen_after_s <= time_s - self._since_s
        return self.frozen


def capture_camera(link: CaptureLink, config: CameraConfig) -> None:
    """Send a camera's grid frames and state through `link` until it is stopped."""
    camera = Camera(config, wanted=link.wanted)

    def send_next(timeout_ms: float) -> None:
        frame = camera.read(timeout_ms)
        link.send_frame(time_s=frame.time_s, rgb=frame.rgb)

    run_device(link, camera, "video", send_next)


def camera_source(text: str) -> int | str:
    """What `--video` means: digits are an index, anything else a path or URL."""
    return int(text) if text.isdecimal() else text


def main(argv: Sequence[str] | None = None) -> int:
    """Entry of the capture process."""
    default = CameraConfig()
    parser = capture_parser("stream.camera", "captures one camera")
    parser.add_argument("--video", type=camera_source, default=0, help="index, path or URL")
    parser.add_argument("--width", type=int, default=default.width)
    parser.add_argument("--height", type=int, default=default.height)
    parser.add_argument("--fps", type=float, default=default.fps)
    parser.add_argument("--lost-after-s", type=float, default=default.lost_after_s)
    parser.add_argument("--frozen-after-s", type=float, default=default.frozen_after_s)
    args = parser.parse_args(argv)

    def capture(link: CaptureLink) -> None:
        config = CameraConfig(
            source=args.video,
            width=args.width,
            height=args.height,
            fps=args.fps,
            lost_after_s=args.lost_after_s,
            frozen_after_s=args.frozen_after_s,
        )
        capture_camera(link, config)

    return run_capture(args, capture, streams=("video",))


if __name__ == "__main__":
    sys.exit(main())
