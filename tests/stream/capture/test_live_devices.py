"""`emostream run` on cameras and microphones, and whether picture and sound of one instant share a window."""

import time
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from emostream.sampling import grid_index
from stream.capture.sources import DeviceSource, MediaSource, Source
from stream.capture.supervisor import Supervisor
from stream.pubsub.messages import Label
from stream.serve.run import captures
from stream.transport.protocol import (
    PCM_RATE_HZ,
    End,
    FrameHeader,
    Hello,
    PcmHeader,
    State,
    Watermark,
)
from stream.transport.receiver import Receiver
from stream.windows.window import Window
from stream.windows.windower import Windower
from tests.media_factory import Audio, Video, beep, flash, write_media
from tests.stream.live_rig import live
from tests.stream.rigs import (
    WAIT_S,
    MjpegCamera,
    PipeMicrophone,
    RtspCamera,
    SoundServer,
    noisy_picture,
)

WINDOW_S, NUM_FRAMES = 2.0, 4
STEP_S = WINDOW_S / NUM_FRAMES
LIT = 128
LOUD = 0.2
PERIOD_S = 4.0  # from flash to flash of the live rigs; longer than a window
LENGTH_S = 0.9  # of a flash: it reaches over a grid point, wherever it falls
QUICK = ("--window-s", "2", "--reason-every-s", "0")


def hum(indices: NDArray[np.int64]) -> NDArray[np.float32]:
    return (0.1 * np.sin(indices / 20)).astype(np.float32)


def both_ok(event: object) -> bool:
    return isinstance(event, Label) and (event.modalities.video, event.modalities.audio) == (
        "ok",
        "ok",
    )


def test_a_camera_and_a_microphone_are_seen_and_heard(sound_server: SoundServer) -> None:
    with (
        MjpegCamera() as camera,
        PipeMicrophone(sound_server, hum, name="desk"),
        live(
            *QUICK,
            *("--video", camera.url, "--audio", "pulse:desk"),
            environment=sound_server.environment,
        ) as running,
    ):
        label = running.until(both_ok)
        assert isinstance(label, Label)
        assert label.source == "cam0"
        assert label.frames_used == 8
        assert label.audio_gap_ms <= 1
        assert label.av_skew_ms is not None
        assert label.unix_time_s is not None
        assert running.statuses()[0].state == "starting"
        running.until(lambda e: getattr(e, "state", "") == "live" and e.fps_in > 0)
        running.send()
        running.until_stopped()
        assert running.wait() == 0


def test_an_rtsp_camera_without_a_microphone(rtsp_available: None) -> None:
    with (
        RtspCamera() as camera,
        live(*QUICK, "--video", camera.url, "--audio", "none") as running,
    ):
        label = running.until(lambda e: isinstance(e, Label) and e.modalities.video == "ok")
        assert isinstance(label, Label)
        assert label.modalities.audio == "missing"
        assert label.av_skew_ms is None
        assert label.audio_gap_ms == 2000
        running.send()
        assert running.wait() == 0


def test_a_microphone_without_a_camera(sound_server: SoundServer) -> None:
    with (
        PipeMicrophone(sound_server, hum, name="desk"),
        live(
            *QUICK,
            *("--video", "none", "--audio", "pulse:desk"),
            environment=sound_server.environment,
        ) as running,
    ):
        label = running.until(lambda e: isinstance(e, Label) and e.modalities.audio == "ok")
        assert isinstance(label, Label)
        assert label.modalities.video == "missing"
        assert label.frames_used == 0
        assert label.av_skew_ms is None
        running.send()
        assert running.wait() == 0


def windows_of(source: Source, enough: Callable[[list[Window]], object]) -> list[Window]:
    """Windows cut from what the source's own capture processes deliver, until there are enough."""
    is_file = isinstance(source, MediaSource)
    with Receiver(step_s=STEP_S) as server:
        address = server.bind_local()
        windower = Windower(
            source.name,
            window_s=WINDOW_S,
            num_frames=NUM_FRAMES,
            origin_s=0.0 if is_file else time.perf_counter(),
            lossless=is_file,
        )
        windows: list[Window] = []
        with Supervisor(address, captures(source)) as supervisor:
            supervisor.start()
            server.start()
            deadline_s = time.monotonic() + WAIT_S
            while not enough(windows):
                assert time.monotonic() < deadline_s, f"{len(windows)} windows, not enough"
                for event in server.poll(timeout_ms=50):
                    match event.message:
                        case Hello() as hello:
                            for modality in hello.modalities:
                                windower.set_lateness(modality, hello.lateness_s)
                        case FrameHeader() as frame:
                            windower.add_frame(frame.time_s, event.data, frame.watermark_s)
                        case PcmHeader() as chunk:
                            windower.add_pcm(chunk.start_s, event.data, chunk.gap_samples)
                        case Watermark(modality, time_s):
                            windower.watermark(modality, time_s)
                        case State(modality=modality, state="lost" | "retrying"):
                            windower.mark_lost(modality)
                        case End():
                            windower.mark_end(event.hello.modalities)
                while (window := windower.advance(time.perf_counter())) is not None:
                    windows.append(window)
        return windows


def flashes(windows: list[Window]) -> list[float]:
    """Capture times of the first lit frame of each flash."""
    levels = {
        frame.key: (frame.time_s, frame.rgb.mean() > LIT)
        for window in windows
        for frame in window.frames
    }
    return [
        time_s
        for key, (time_s, lit) in sorted(levels.items())
        if lit and key - 1 in levels and not levels[key - 1][1]
    ]


def beeps(windows: list[Window]) -> list[float]:
    """Capture times at which it becomes loud after a second that was not.

    The first may be where a microphone began to listen, in the middle of a beep.
    """
    found: list[float] = []
    loud_s = -np.inf
    for window in windows:
        if window.pcm is None:
            continue
        for at in np.flatnonzero(np.abs(window.pcm) > LOUD):
            time_s = window.start_s + at / PCM_RATE_HZ
            if time_s > loud_s + 1.0 and time_s > window.start_s + 0.1:
                found.append(time_s)
            loud_s = max(loud_s, time_s)
    return found


def assert_aligned(windows: list[Window]) -> None:
    """The first flash and the beep that belongs to it are within one grid step of each other."""
    lit_s = flashes(windows)[0]
    heard_s = min(beeps(windows), key=lambda time_s: abs(time_s - lit_s))
    # The flash began within the step that ends with the first lit frame.
    assert abs(lit_s - STEP_S / 2 - heard_s) <= STEP_S, (lit_s, heard_s)
    # So one window brings both for the first time, or its neighbour does.
    assert abs(grid_index(lit_s, STEP_S) - grid_index(heard_s, STEP_S)) <= 1


@pytest.mark.parametrize("at_s", [1.2, 1.49, 1.7])
def test_a_files_flash_and_beep_share_a_window(tmp_path, at_s: float) -> None:
    """A flash and a beep that begin together in the file are within one grid step in the windows."""
    path = write_media(
        tmp_path / "clip.mp4",
        Video(duration_s=3.6, picture=flash(at_s, LENGTH_S)),
        Audio(duration_s=3.6, sound=beep(at_s, LENGTH_S)),
    )
    windows = windows_of(
        MediaSource(name="clip", location=str(path)),
        lambda windows: windows and windows[-1].id >= 7,
    )
    assert_aligned(windows)
    assert beeps(windows)[0] == pytest.approx(at_s, abs=0.03)


def test_a_cameras_flash_and_a_microphones_beep_share_a_window(sound_server: SoundServer) -> None:
    """One event, seen by a network camera and heard by a microphone, is within one grid step in the windows.

    Two processes, two drivers, and no clock in common but that of the host.
    """

    def sound(indices: NDArray[np.int64]) -> NDArray[np.float32]:
        on = (indices / 48_000) % PERIOD_S < LENGTH_S
        return (0.6 * on * np.sin(2 * np.pi * 1000 * indices / 48_000) + hum(indices) / 20).astype(
            np.float32
        )

    with PipeMicrophone(sound_server, sound, name="desk") as microphone:

        def picture(time_s: float) -> NDArray[np.uint8]:
            lit = (time_s - microphone.start_s) % PERIOD_S < LENGTH_S
            return noisy_picture(time_s, level=220 if lit else 30)

        with MjpegCamera(picture) as camera, pytest.MonkeyPatch.context() as patch:
            for name, value in sound_server.environment.items():
                patch.setenv(name, value)
            windows = windows_of(
                DeviceSource(name="cam0", video=camera.url, audio="pulse:desk"),
                lambda windows: flashes(windows) and len(beeps(windows)) >= 2,
            )
    assert_aligned(windows)
    # Both are stamped with when it happened, not merely alike.
    for stamped_s, tolerance_s in (
        (flashes(windows)[0] - STEP_S / 2, STEP_S),
        (beeps(windows)[-1], 0.25),
    ):
        late_s = (stamped_s - microphone.start_s + PERIOD_S / 2) % PERIOD_S - PERIOD_S / 2
        assert abs(late_s) <= tolerance_s
