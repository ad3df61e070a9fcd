"""Cameras: a capture process for one, and the `Camera` class for local ones, through OpenCV."""

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from emostream.errors import EmostreamError
from stream.capture.camera_driver import (
    NETWORK_SCHEMES,
    CameraConfig,
    FrameStamps,
    open_capture,
    prepare_environment,
    to_rgb,
)
from stream.capture.device import CaptureDevice, index_or_name, run_device
from stream.capture.network import NetworkConfig, capture_network
from stream.capture.picture import CameraFrame, StillPicture
from stream.capture.process import EXIT_USER_ERROR, capture_parser, run_capture
from stream.transport.protocol import Modality
from stream.transport.sender import CaptureLink

QUEUED_FRAMES = 8
FAILED_GRAB_PAUSE_S = 0.02
FIRST_PICTURE_S = 5.0  # a camera may take longer to start than later from frame to frame


class Camera(CaptureDevice[CameraFrame]):
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
        super().__init__(
            name=f"camera {config.source}",
            modalities=("video",),
            lost_after_s=config.lost_after_s,
            queued=QUEUED_FRAMES,
        )
        self.config = config
        self._wanted = wanted
        self._still = StillPicture(config.frozen_after_s)

    def _problem(self, modality: Modality) -> str:
        if self._still.frozen:
            return f"{self._name}: {self._still.problem}"
        return super()._problem(modality)

    # The reader thread

    def _run(self) -> None:
        prepare_environment()
        while not self._closing.is_set():
            with self._driver:
                capture, problem = open_capture(self.config)
            if capture is not None:
                self._opened += 1
                try:
                    problem = self._drain(capture)
                finally:
                    with self._driver:
                        capture.release()
            if not self._closing.is_set():
                self._retry(problem)

    def _drain(self, capture: Any) -> str:
        """Read until the camera is lost, frozen or closed; returns what is wrong with it."""
        stamps = FrameStamps(capture)
        self._hear()
        allowed_s = max(self.config.lost_after_s, FIRST_PICTURE_S)
        usable = True
        while not self._closing.is_set():
            with self._driver:
                grabbed = capture.grab()
            now_s = time.perf_counter()
            if grabbed:
                time_s = stamps.next(now_s)
                if self._wanted is None or self._wanted(time_s):
                    usable = self._take(capture, time_s)
                    if usable:
                        allowed_s = self.config.lost_after_s
                if usable:
                    self._hear()
            else:
                self._closing.wait(FAILED_GRAB_PAUSE_S)
            if self._silent_s("video") > allowed_s:
                return self._problem("video")
        return "closed"

    def _take(self, capture: Any, time_s: float) -> bool:
        """Decode the frame that was grabbed and offer it; false if it is broken or frozen."""
        with self._driver:
            decoded, picture = capture.retrieve()
        if not decoded or picture is None or picture.size == 0:
            return False
        if self._still.add(picture, time_s):
            return False
        self._backoff.reset()
        self._publish("video", [CameraFrame(time_s=time_s, rgb=to_rgb(picture))])
        return True


def capture_camera(link: CaptureLink, config: CameraConfig) -> None:
    """Send a camera's grid frames and state through `link` until it is stopped."""
    camera = Camera(config, wanted=link.wanted)

    def send_next(timeout_ms: float) -> None:
        frame = camera.read(timeout_ms)
        link.send_frame(time_s=frame.time_s, rgb=frame.rgb)

    run_device(link, camera, send_next)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry of the capture process."""
    default = CameraConfig()
    parser = capture_parser("stream.capture.camera", "captures one camera")
    parser.add_argument("--video", type=index_or_name, default=0, help="index, path or URL")
    parser.add_argument("--width", type=int, default=default.width)
    parser.add_argument("--height", type=int, default=default.height)
    parser.add_argument("--fps", type=float, default=default.fps)
    parser.add_argument("--lost-after-s", type=float, default=default.lost_after_s)
    parser.add_argument("--frozen-after-s", type=float, default=default.frozen_after_s)
    args = parser.parse_args(argv)

    loss = {"lost_after_s": args.lost_after_s, "frozen_after_s": args.frozen_after_s}
    if str(args.video).startswith(NETWORK_SCHEMES):
        stream = NetworkConfig(url=args.video, modalities=("video",), **loss)
        return run_capture(args, lambda link: capture_network(link, stream), modalities=("video",))
    try:
        config = CameraConfig(
            source=args.video, width=args.width, height=args.height, fps=args.fps, **loss
        )
    except EmostreamError as error:
        print(error, file=sys.stderr)  # noqa: T201  the parent reads it
        return EXIT_USER_ERROR
    return run_capture(args, lambda link: capture_camera(link, config), modalities=("video",))


if __name__ == "__main__":
    sys.exit(main())
