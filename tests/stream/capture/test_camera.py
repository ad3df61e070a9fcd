"""The camera classes and process against real network cameras on loopback.

Where no local camera is at hand, one is a network camera that OpenCV reads: `Camera` meets real pictures, pauses and
losses, and only what it opens is another.
"""

import time
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emostream.errors import ConfigError, DeviceTimeout
from stream.capture import camera as camera_module
from stream.capture.camera import Camera
from stream.capture.camera_driver import CameraConfig, FrameStamps, to_rgb
from stream.capture.device import Backoff
from stream.capture.network import NetworkConfig, NetworkStream
from stream.capture.picture import CameraFrame, StillPicture
from stream.capture.process import EXIT_USER_ERROR
from stream.transport.events import Event
from stream.transport.grid_picker import grid_index
from stream.transport.protocol import FrameHeader, State
from tests.stream.rigs import (
    WAIT_S,
    CaptureProcess,
    MjpegCamera,
    RtspCamera,
    noisy_picture,
    stamp_of,
    stamped_picture,
    until,
)

Watched = Camera | NetworkStream
Open = Callable[..., Watched]


@pytest.fixture(params=["local", "network"])
def open_camera(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Open:
    """Makes a camera of a URL, by either class."""
    return local_camera(monkeypatch) if request.param == "local" else network_camera


def network_camera(url: str, wanted: Callable[[float], bool] | None = None, **config) -> Watched:
    config = {"frozen_after_s": 5.0} | config
    return NetworkStream(NetworkConfig(url=url, modalities=("video",), **config), wanted=wanted)


def local_camera(monkeypatch: pytest.MonkeyPatch) -> Open:
    def make(url: str, wanted: Callable[[float], bool] | None = None, **config) -> Watched:
        camera = CameraConfig(**config)

        def open_url(config: CameraConfig) -> tuple[cv2.VideoCapture | None, str]:
            timeouts = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, 8000]
            timeouts += [cv2.CAP_PROP_READ_TIMEOUT_MSEC, round(1000 * config.lost_after_s)]
            capture = cv2.VideoCapture(url, cv2.CAP_FFMPEG, timeouts)
            return (capture, "") if capture.isOpened() else (None, "the camera does not answer")

        monkeypatch.setattr(camera_module, "open_capture", open_url)
        return Camera(camera, wanted=wanted)

    return make


def is_state(state: str) -> Callable[[Event], bool]:
    return lambda event: isinstance(event.message, State) and event.message.state == state


def drain(camera: Watched) -> None:
    """Take the pictures that wait."""
    try:
        while True:
            camera.read(timeout_ms=0)
    except DeviceTimeout:
        pass


def first_picture(camera: Watched) -> CameraFrame:
    return camera.read(timeout_ms=1000 * WAIT_S)


def test_pictures_come_in_order_as_rgb_with_their_capture_time(open_camera: Open) -> None:
    with (
        MjpegCamera(stamped_picture) as server,
        open_camera(server.url) as camera,
    ):
        first_picture(camera)
        drain(camera)  # what was buffered while the stream was probed
        frames = [first_picture(camera) for _ in range(20)]
    times = [frame.time_s for frame in frames]
    assert times == sorted(set(times))
    ages_s = [frame.time_s - stamp_of(frame.rgb) for frame in frames]
    assert min(ages_s) > -0.001  # nothing is captured before it is shown
    assert np.median(ages_s) < 0.5  # within one step of the grid
    assert frames[0].rgb.dtype == np.uint8
    assert frames[0].rgb.shape == (64, 320, 3)


def test_colours_are_rgb(open_camera: Open) -> None:
    def red(t_s: float) -> np.ndarray:
        picture = noisy_picture(t_s)
        picture[..., 0] += 150
        return picture

    with MjpegCamera(red) as server, open_camera(server.url) as camera:
        mean = first_picture(camera).rgb.mean(axis=(0, 1))
    assert mean[0] > mean[1] + 100
    assert mean[0] > mean[2] + 100


def test_rtsp_pictures_are_stamped_by_presentation_time(rtsp_available: None) -> None:
    with RtspCamera(stamped_picture) as server, network_camera(server.url) as camera:
        first_picture(camera)
        drain(camera)
        frames = [first_picture(camera) for _ in range(40)]
    ages_s = np.array([frame.time_s - stamp_of(frame.rgb) for frame in frames])
    assert ages_s.min() > -0.002
    assert np.median(ages_s) < 0.5
    # Presentation times do not carry the jitter of arrival; the server stamps within a frame.
    assert np.median(np.abs(ages_s - np.median(ages_s))) < 0.04
    assert [frame.time_s for frame in frames] == sorted({frame.time_s for frame in frames})


def test_only_wanted_frames_are_decoded(open_camera: Open) -> None:
    asked: list[float] = []

    def every_fifth(time_s: float) -> bool:
        asked.append(time_s)
        return len(asked) % 5 == 0

    with (
        MjpegCamera() as server,
        open_camera(server.url, wanted=every_fifth) as camera,
    ):
        times = [first_picture(camera).time_s for _ in range(4)]
        assert camera.close()
    assert times == asked[4:20:5]
    assert asked == sorted(asked)


def test_killed_camera_is_lost_and_is_back_after_its_restart(open_camera: Open) -> None:
    with (
        MjpegCamera() as server,
        open_camera(server.url, lost_after_s=1.0) as camera,
    ):
        first_picture(camera)
        assert camera.status().state == "live"
        server.stop()
        until(lambda: camera.status().state == "lost")
        assert "no picture" in camera.status().detail
        drain(camera)
        until(lambda: camera.status().state == "retrying")
        assert "does not answer" in camera.status().detail
        with pytest.raises(DeviceTimeout, match="no picture within 0 ms"):
            camera.read(timeout_ms=0)
        server.start()
        before_s = time.perf_counter()
        frame = first_picture(camera)
        assert frame.time_s > before_s
        assert camera.status().state == "live"
        assert camera.status().restarts == 1


def test_camera_that_hangs_is_lost_by_our_own_deadline(open_camera: Open) -> None:
    with (
        MjpegCamera() as server,
        open_camera(server.url, lost_after_s=1.0) as camera,
    ):
        first_picture(camera)
        server.hang()
        until(lambda: camera.status().state == "lost")
        server.thaw()
        drain(camera)
        until(lambda: camera.status().state == "live")
        first_picture(camera)
        assert not camera.stuck


def test_frozen_picture_is_withheld_and_reported_until_it_changes(open_camera: Open) -> None:
    config = {"lost_after_s": 1.0, "frozen_after_s": 0.6}
    with MjpegCamera() as server, open_camera(server.url, **config) as camera:
        first_picture(camera)
        server.freeze()
        until(lambda: camera.status().state == "lost")
        assert "has not changed" in camera.status().detail
        until(lambda: server.connections >= 3)  # opened anew, twice, and still frozen
        drain(camera)
        assert camera.status().state in ("lost", "retrying")
        with pytest.raises(DeviceTimeout, match="has not changed"):
            camera.read(timeout_ms=300)
        server.thaw()
        first_picture(camera)
        assert camera.status().state == "live"
        assert camera.status().detail == ""


def test_stills_are_accepted_on_request(open_camera: Open) -> None:
    config = {"lost_after_s": 1.0, "frozen_after_s": 0.0}
    with MjpegCamera() as server, open_camera(server.url, **config) as camera:
        server.freeze()
        begin_s = first_picture(camera).time_s
        until(lambda: first_picture(camera).time_s > begin_s + 3.0)
        assert camera.status().state == "live"
        assert server.connections <= 2  # FFmpeg may connect once to probe


def test_no_camera_at_all_is_reported_with_a_remedy_and_retried() -> None:
    with Camera(CameraConfig(source="/dev/video-none")) as camera:
        until(lambda: camera.status().state == "retrying")
        assert "/dev/video-none" in camera.status().detail
        assert "emostream devices" in camera.status().detail
        assert camera.status().restarts == 0


def test_process_sends_the_newest_frame_of_each_grid_cell() -> None:
    with (
        MjpegCamera(stamped_picture) as server,
        CaptureProcess("stream.capture.camera", "--video", server.url, step_s=0.2) as capture,
    ):
        frames = [
            capture.hear(lambda event: isinstance(event.message, FrameHeader)) for _ in range(12)
        ]
        cells = [grid_index(frame.message.time_s, 0.2) for frame in frames]
        assert cells == sorted(set(cells))
        for frame in frames[3:]:  # the first may have been buffered while the stream was probed
            assert -0.001 < frame.message.time_s - stamp_of(frame.data) < 1.0
        assert ("video", "live") in [
            (event.message.modality, event.message.state)
            for event in capture.events
            if isinstance(event.message, State)
        ]
        assert capture.quit() == 0


def test_process_reports_loss_and_return() -> None:
    with (
        MjpegCamera() as server,
        CaptureProcess(
            "stream.capture.camera", "--video", server.url, "--lost-after-s", "1", step_s=0.2
        ) as capture,
    ):
        capture.hear(is_state("live"))
        server.stop()
        lost = capture.hear(is_state("lost")).message
        assert isinstance(lost, State)
        assert "no picture" in lost.detail
        server.start()
        back = capture.hear(is_state("live")).message
        assert isinstance(back, State)
        assert back.restarts == 1
        capture.hear(lambda event: isinstance(event.message, FrameHeader))
        assert capture.quit() == 0


def test_process_refuses_what_is_no_camera(capfd: pytest.CaptureFixture[str]) -> None:
    with CaptureProcess("stream.capture.camera", "--video", "clip.mp4") as capture:
        assert capture.process is not None
        while capture.process.poll() is None:
            capture.server.poll(timeout_ms=20)
        assert capture.process.returncode == EXIT_USER_ERROR
    assert "--source" in capfd.readouterr().err


@pytest.mark.parametrize("source", [-1, "clip.mp4", "file:///clip.mp4", ""])
def test_sources_that_are_no_cameras_are_refused(source: int | str) -> None:
    with pytest.raises(ConfigError, match="--source"):
        CameraConfig(source=source)


@given(
    repeats=st.lists(st.integers(1, 60), min_size=1, max_size=20),
    threshold_s=st.floats(0.1, 3.0),
)
def test_still_picture_by_its_definition(repeats: list[int], threshold_s: float) -> None:
    """A picture is frozen exactly when an equal one was the first of its run `threshold_s` ago."""
    still = StillPicture(threshold_s)
    time_s = 5.0
    for value, count in enumerate(repeats):
        begin_s = time_s
        for _ in range(count):
            picture = np.full((2, 2, 3), value % 256, np.uint8)
            assert still.add(picture, time_s) == (time_s - begin_s >= threshold_s)
            assert still.frozen == (time_s - begin_s >= threshold_s)
            time_s += 0.1


class Driver:
    """What FrameStamps needs of a `cv2.VideoCapture`."""

    def __init__(self, backend: str, positions_s: list[float]) -> None:
        self._backend = backend
        self._positions_s = iter(positions_s)

    def getBackendName(self) -> str:
        return self._backend

    def get(self, _: int) -> float:
        return 1000 * next(self._positions_s)


def stamps(backend: str, positions_s: list[float]) -> Callable[[float], float]:
    return FrameStamps(Driver(backend, positions_s)).next


def test_driver_time_is_used_where_it_is_on_our_clock() -> None:
    next_s = stamps("V4L2", [99.96, 100.02, 0.0, 1.7e9, 99.0])
    assert next_s(100.0) == pytest.approx(99.96)
    assert next_s(100.05) == pytest.approx(100.02)
    assert next_s(100.1) == 100.1  # none
    assert next_s(100.2) == 100.2  # Unix time
    assert next_s(100.3) == 100.3  # too old to be true


def test_capture_times_ascend_whatever_the_driver_says() -> None:
    next_s = stamps("V4L2", [100.0, 99.9, 99.95])
    times = [next_s(100.1), next_s(100.1), next_s(100.1)]
    assert times == sorted(set(times))


def test_grey_and_transparent_pictures_become_rgb() -> None:
    grey = np.full((4, 5), 7, np.uint8)
    assert (to_rgb(grey) == 7).all()
    assert to_rgb(grey).shape == (4, 5, 3)
    bgra = np.dstack([np.full((4, 5), value, np.uint8) for value in (1, 2, 3, 255)])
    assert to_rgb(bgra)[0, 0].tolist() == [3, 2, 1]


def test_backoff_doubles_up_to_its_limit() -> None:
    backoff = Backoff(0.5, 3.0)
    assert [backoff.next_s() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    backoff.reset()
    assert backoff.next_s() == 0.5
