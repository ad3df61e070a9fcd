"""The file and URL capture process, with real files, real servers and real sockets."""

import contextlib
import functools
import http.server
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from emostream.media import MediaReader, PcmChunk
from stream.capture import network as network_capture
from stream.capture.device import Backoff
from stream.capture.network import LOST_AFTER_S, MODALITIES, SharedClock
from stream.capture.supervisor import Capture, Supervisor
from stream.transport.events import Event
from stream.transport.peers import INITIAL_CREDIT
from stream.transport.protocol import End, Epoch, FrameHeader, Hello, PcmHeader, State
from stream.transport.sender import CaptureLink
from stream.windows.windower import Windower
from tests.media_factory import Audio, Video, beep, flash, noise, read_number, write_media
from tests.stream.receiver_rig import WAIT_S, Listening, events_of
from tests.stream.rigs import MjpegCamera, RtspCamera

RATE_HZ = 16_000
STEP_S = 0.5


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2.2 s of numbered frames at 25 fps and white noise."""
    path = tmp_path_factory.mktemp("media") / "clip.mkv"
    return write_media(
        path, Video(duration_s=2.2), Audio(duration_s=2.2, codec="flac", sound=noise())
    )


def supervised(receiver: Listening, location: str | Path, *options: str, **more) -> Supervisor:
    capture = Capture(
        module="stream.capture.file",
        source="clip",
        modalities=("video", "audio"),
        arguments=["--location", str(location), *options],
    )
    return Supervisor(
        receiver.server.bind_local(),
        [capture],
        backoff=lambda: Backoff(first_s=0.01, most_s=0.02),
        **more,
    )


def play(location: str | Path, *options: str) -> list[Event]:
    """Everything that the process sends for a file, from start to exit."""
    with Listening(STEP_S) as receiver, supervised(receiver, location, *options) as supervisor:
        receiver.server.start()
        supervisor.start()
        receiver.wait_events(End)
        assert supervisor.wait(WAIT_S)
        assert supervisor.restarts("clip") == 0
        return list(receiver.events)


def received(receiver: Listening) -> int:
    return len(receiver.of(FrameHeader)) + len(receiver.of(PcmHeader))


def sound(events: list[Event]) -> np.ndarray:
    """All sound on its raster, from time 0; NaN where there was none."""
    chunks = events_of(events, PcmHeader)
    end = max(round(chunk.message.start_s * RATE_HZ) + chunk.data.size for chunk in chunks)
    out = np.full(end, np.nan, np.float32)
    for chunk in chunks:
        first = round(chunk.message.start_s * RATE_HZ)
        out[first : first + chunk.data.size] = chunk.data
    return out


def shown(events: list[Event]) -> list[tuple[float, int]]:
    """Times and numbers of the frames that came."""
    return [
        (event.message.time_s, read_number(event.data)) for event in events_of(events, FrameHeader)
    ]


def add(windower: Windower, event: Event) -> None:
    match event.message:
        case FrameHeader() as frame:
            windower.add_frame(frame.time_s, event.data, frame.watermark_s)
        case PcmHeader() as chunk:
            windower.add_pcm(chunk.start_s, event.data, chunk.gap_samples)


def expected(path: Path) -> tuple[list[tuple[float, int]], np.ndarray]:
    """Grid frames as (time, number) and the sound of a file, read directly."""
    frames, pcm = [], []
    with MediaReader(path, grid_step_s=STEP_S) as reader:
        for event in reader:
            if isinstance(event, PcmChunk):
                pcm.append(event.pcm)
            else:
                frames.append((event.time_s, read_number(event.rgb)))
    return frames, np.concatenate(pcm)


@pytest.mark.parametrize("pace", ["max", "realtime"])
def test_a_file_arrives_whole(clip: Path, pace: str) -> None:
    events = play(clip, "--pace", pace)
    frames, pcm = expected(clip)
    assert shown(events) == frames
    assert [event.message.watermark_s for event in events_of(events, FrameHeader)] == [
        0.0,
        0.5,
        1.0,
        1.5,
        2.0,
        2.5,
    ]
    np.testing.assert_array_equal(sound(events), pcm)
    states = [event.message for event in events_of(events, State)]
    assert {(state.modality, state.state) for state in states} == {
        ("video", "live"),
        ("audio", "live"),
    }
    assert all(state.dropped_frames == state.dropped_audio_ms == 0 for state in states)
    connected = events_of(events, Hello)[0].message
    assert (connected.clock, connected.lossless) == ("media", pace == "max")
    epochs = [event.message.epoch_s for event in events_of(events, Epoch)]
    assert len(epochs) == (pace == "realtime")
    for (
        epoch_s
    ) in epochs:  # nothing comes before its time; the schedule is absolute, so nothing drifts
        for event in events_of(events, FrameHeader):
            assert event.received_s >= epoch_s + event.message.time_s
        for event in events_of(events, PcmHeader):
            end_s = event.message.start_s + event.data.size / RATE_HZ
            assert event.received_s >= epoch_s + end_s


def test_nothing_is_sent_before_the_model_is_warm(clip: Path) -> None:
    with Listening(STEP_S) as receiver, supervised(receiver, clip) as supervisor:
        supervisor.start()
        receiver.wait_events(Hello)
        before_s = time.perf_counter()
        receiver.server.start()
        assert receiver.wait_events(Epoch)[0].epoch_s >= before_s
        receiver.wait_events(PcmHeader)
        assert isinstance(receiver.events_of(Epoch, PcmHeader)[0].message, Epoch)


def test_full_speed_waits_for_credit(clip: Path) -> None:
    with Listening(STEP_S, grant=False) as receiver:
        with supervised(receiver, clip, "--pace", "max") as supervisor:
            receiver.server.start()
            supervisor.start()
            receiver.wait_for(lambda: received(receiver) == INITIAL_CREDIT)
            assert not receiver.of(End)
            receiver.server.grant("clip", 3)
            receiver.wait_for(lambda: received(receiver) == INITIAL_CREDIT + 3)
            receiver.server.grant("clip", 1000)
            receiver.wait_events(End)
        np.testing.assert_array_equal(sound(receiver.events), expected(clip)[1])


def test_loop_goes_on_in_time_without_a_seam(tmp_path: Path) -> None:
    path = write_media(
        tmp_path / "short.mkv",
        Video(duration_s=1.2),
        Audio(duration_s=1.2, codec="flac", sound=noise(seed=3)),
    )
    with Listening(STEP_S) as receiver, supervised(receiver, path, "--loop") as supervisor:
        receiver.server.start()
        supervisor.start()
        receiver.wait_for(lambda: any(pcm.start_s > 3.0 for pcm in receiver.of(PcmHeader)))
        receiver.stop()
        receiver.server.close()
        assert supervisor.wait(WAIT_S)
        assert supervisor.restarts("clip") == 0
        heard, once = sound(receiver.events), expected(path)[1]
        assert once.size == 1.2 * RATE_HZ
        repeats = -(-heard.size // once.size)
        np.testing.assert_array_equal(heard, np.tile(once, repeats)[: heard.size])
        # The newest frame of each grid cell of 0.5 s, across the seams at 1.2 and 2.4 s.
        frames = shown(receiver.events)
        assert [number for time_s, number in frames if time_s <= 2.5][:5] == [0, 12, 25, 7, 20]
        assert [round(time_s, 3) for time_s, _ in frames][:5] == [0.0, 0.48, 1.0, 1.48, 2.0]


@pytest.mark.parametrize(
    ("video", "audio", "modalities"),
    [
        (Video(duration_s=1.0), None, ("video",)),
        (None, Audio(duration_s=1.0, codec="flac"), ("audio",)),
    ],
)
def test_a_file_with_one_modality_announces_one(
    tmp_path: Path, video: Video | None, audio: Audio | None, modalities: tuple[str, ...]
) -> None:
    path = write_media(tmp_path / "one.mkv", video, audio)
    events = play(path, "--pace", "max")
    announced = [event.hello.modalities for event in events_of(events, Hello, End)]
    assert announced == [modalities] * 2
    kinds = {type(event.message) for event in events} & {FrameHeader, PcmHeader}
    assert kinds == {FrameHeader if modalities == ("video",) else PcmHeader}


def test_sound_that_the_file_lacks_is_marked(tmp_path: Path) -> None:
    path = write_media(
        tmp_path / "gap.mkv",
        Video(duration_s=2.0),
        Audio(duration_s=2.0, codec="pcm_s16le", sound=noise(), lost=[(0.5, 1.0)]),
    )
    events = play(path, "--pace", "max")
    lacking = sum(event.message.gap_samples for event in events_of(events, PcmHeader))
    assert lacking == pytest.approx(0.5 * RATE_HZ, abs=0.03 * RATE_HZ)
    windower = Windower("clip", window_s=2.0, num_frames=4, lossless=True)
    for event in events:
        add(windower, event)
    windower.mark_end()
    window = windower.advance()
    assert window is not None
    assert window.audio_gap_ms == pytest.approx(1000 * lacking / RATE_HZ)
    assert (window.modalities.video, window.modalities.audio) == ("ok", "degraded")


def test_windows_of_the_process_equal_the_file_read_directly(clip: Path) -> None:
    """Windows of what came over the sockets agree with the file to the bit, frame by frame and sample by sample."""
    events = play(clip, "--pace", "max")
    windower = Windower("clip", window_s=1.0, num_frames=2, lossless=True)
    windows = []
    for event in events:
        add(windower, event)
        windows += iter(windower.advance, None)
    windower.mark_end()
    windows += iter(windower.advance, None)
    assert [window.id for window in windows] == [2, 3, 4]
    assert all(window.modalities.video == window.modalities.audio == "ok" for window in windows)
    frames, pcm = expected(clip)
    numbers = dict(zip(range(len(frames)), [number for _, number in frames], strict=True))
    for window in windows:
        assert [read_number(frame.rgb) for frame in window.frames] == [
            numbers[k] for k in range(window.id - 1, window.id + 1)
        ]
        start = round(window.start_s * RATE_HZ)
        np.testing.assert_array_equal(window.pcm, pcm[start : start + RATE_HZ])


def test_flash_and_beep_meet_within_a_grid_step(tmp_path: Path) -> None:
    """Sound is placed to the sample; the flash shows in the first grid frame that was captured in it."""
    path = write_media(
        tmp_path / "flash.mp4",
        Video(duration_s=1.6, picture=flash(0.76, 1.0)),
        Audio(duration_s=1.6, sound=beep(0.76)),
    )
    events = play(path)
    beep_s = int(np.flatnonzero(np.abs(sound(events)) > 0.2)[0]) / RATE_HZ
    assert beep_s == pytest.approx(0.76, abs=0.03)
    bright = [event for event in events_of(events, FrameHeader) if event.data.mean() > 128]
    assert 0 <= bright[0].message.time_s - beep_s <= STEP_S


def test_a_killed_process_goes_on_with_the_schedule(clip: Path) -> None:
    with Listening(STEP_S) as receiver, supervised(receiver, clip) as supervisor:
        receiver.server.start()
        supervisor.start()
        receiver.wait_for(lambda: any(pcm.start_s > 0.5 for pcm in receiver.of(PcmHeader)))
        os.kill(receiver.of(Hello)[0].pid, signal.SIGKILL)
        receiver.wait_events(End)
        assert supervisor.wait(WAIT_S)
        assert supervisor.restarts("clip") == 1
        assert len(receiver.of(Epoch)) == 1
        heard, once = sound(receiver.events), expected(clip)[1]
        assert heard.size == once.size
        there = ~np.isnan(heard)
        np.testing.assert_array_equal(heard[there], once[there])
        assert not there.all()  # what was played while it was down is lost, as live
        assert receiver.of(State)[-1].restarts == 0  # nothing was reopened within a process


def test_a_killed_process_loses_nothing_at_full_speed(clip: Path) -> None:
    with Listening(STEP_S, grant=False) as receiver:
        with supervised(receiver, clip, "--pace", "max") as supervisor:
            receiver.server.start()
            supervisor.start()
            receiver.wait_for(lambda: received(receiver) == INITIAL_CREDIT)
            os.kill(receiver.of(Hello)[0].pid, signal.SIGKILL)
            receiver.wait_events(Hello, 2)
            receiver.server.grant("clip", 1000)
            receiver.wait_events(End)
        frames, pcm = expected(clip)
        np.testing.assert_array_equal(sound(receiver.events), pcm)
        assert sorted(dict(shown(receiver.events)).items()) == frames


@pytest.mark.parametrize("kind", ["missing", "text"])
def test_a_file_that_cannot_be_read_is_a_user_error(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "notes.txt"
    if kind == "text":
        path.write_text("no media at all")
    failures: list[tuple[str, str, str]] = []
    with Listening() as receiver:
        supervisor = supervised(receiver, path, on_failed=lambda *failure: failures.append(failure))
        with supervisor:
            supervisor.start()
            assert supervisor.wait(WAIT_S)
    assert len(failures) == 2
    assert str(path) in failures[0][2]
    assert supervisor.restarts("clip") == 0


def test_sigterm_ends_it_with_0(clip: Path) -> None:
    with Listening(STEP_S) as receiver:
        address = receiver.server.bind_local()
        command = [sys.executable, "-P", "-m", "stream.capture.file", "--loop"]
        process = subprocess.Popen(
            [*command, "--endpoint", address.endpoint, "--source", "clip", "--location", str(clip)],
            env=os.environ | address.environment(),
        )
        with process:
            receiver.server.start()
            receiver.wait_events(PcmHeader)
            process.terminate()
            assert process.wait(WAIT_S) == 0


class Recording:
    """A web server on loopback with the files of a folder."""

    def __init__(self, folder: Path) -> None:
        handler = functools.partial(QuietHandler, directory=str(folder))
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever)

    def __enter__(self) -> str:
        self._thread.start()
        return f"http://127.0.0.1:{self._server.server_port}"

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass

    def copyfile(self, source, outputfile) -> None:  # type: ignore[no-untyped-def]
        with contextlib.suppress(ConnectionError):  # FFmpeg seeks by hanging up
            super().copyfile(source, outputfile)


def test_a_recording_behind_a_url_is_played_in_real_time_to_its_end(clip: Path) -> None:
    with Recording(clip.parent) as url, Listening(STEP_S) as receiver:
        with supervised(receiver, f"{url}/{clip.name}") as supervisor:
            receiver.server.start()
            supervisor.start()
            receiver.wait_events(End)
            assert supervisor.wait(WAIT_S)
        chunks, once = receiver.events_of(PcmHeader), expected(clip)[1]
        np.testing.assert_array_equal(np.concatenate([chunk.data for chunk in chunks]), once)
        assert receiver.of(Hello)[0].clock == "host"
        origin_s = chunks[0].message.start_s
        for chunk in chunks:
            assert chunk.received_s >= chunk.message.start_s + chunk.data.size / RATE_HZ
        for time_s, number in shown(receiver.events):
            assert time_s - origin_s == pytest.approx(number / 25, abs=1e-3)


def test_a_live_stream_that_dies_is_reported_and_taken_up_again() -> None:
    with MjpegCamera() as camera, Listening(STEP_S) as receiver:
        with supervised(receiver, camera.url, "--lost-after-s", "1") as supervisor:
            receiver.server.start()
            supervisor.start()
            receiver.wait_events(FrameHeader, 2)
            camera.stop()
            lost_at = len(receiver.of(FrameHeader))
            receiver.wait_for(
                lambda: any(video_state(event) == "lost" for event in receiver.events)
            )
            camera.start()
            receiver.wait_events(FrameHeader, lost_at + 2)
            video = [event.state for event in receiver.of(State) if event.modality == "video"]
            assert video[-1] == "live"
        silent = [event for event in receiver.of(State) if event.modality == "audio"]
        assert silent[-1].state in ("lost", "retrying")  # an MJPEG stream has no sound
        assert receiver.of(Hello)[0].clock == "host"
        assert len(receiver.of(Hello)) == 1
        for frame in receiver.events_of(FrameHeader):
            assert frame.message.time_s <= frame.received_s


def video_state(event: Event) -> str | None:
    message = event.message
    return message.state if isinstance(message, State) and message.modality == "video" else None


def test_a_live_stream_that_hangs_is_lost_by_our_own_deadline() -> None:
    with (
        MjpegCamera() as camera,
        Listening(STEP_S) as receiver,
        supervised(receiver, camera.url, "--lost-after-s", "0.5") as supervisor,
    ):
        receiver.server.start()
        supervisor.start()
        receiver.wait_events(FrameHeader, 2)
        camera.hang()
        receiver.wait_for(lambda: any(video_state(event) == "lost" for event in receiver.events))


def test_a_reader_that_breaks_ends_the_process_and_is_no_silence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("not foreseen")

    monkeypatch.setattr(network_capture, "MediaReader", broken)
    with (
        Listening() as receiver,
        CaptureLink(receiver.server.bind_local(), source="url", modalities=MODALITIES) as link,
    ):
        link.wait_ready(WAIT_S)
        with pytest.raises(RuntimeError, match="not foreseen"):
            network_capture.capture_network(link, "http://127.0.0.1:9/", LOST_AFTER_S)


def test_both_streams_share_one_offset() -> None:
    clock = SharedClock()
    assert clock.update("video", 10.0, 110.2) == pytest.approx(100.2)
    assert clock.update("audio", 10.0, 110.5) == pytest.approx(100.2)  # the sender groups sound
    assert clock.update("video", 10.1, 110.2) == pytest.approx(100.1)  # a shorter delay
    assert clock.update("audio", 10.2, 110.295) == pytest.approx(100.1)  # 5 ms: not worth tearing
    assert clock.update("video", 5.0, 110.3) == pytest.approx(105.3)  # its clock began anew


@pytest.fixture
def rtsp(rtsp_available: None) -> Iterator[RtspCamera]:
    with RtspCamera() as camera:
        yield camera


def test_rtsp_is_live(rtsp: RtspCamera) -> None:
    with Listening(STEP_S) as receiver, supervised(receiver, rtsp.url) as supervisor:
        receiver.server.start()
        supervisor.start()
        receiver.wait_events(FrameHeader, 3)
        assert receiver.of(Hello)[0].clock == "host"
        for frame in receiver.events_of(FrameHeader):
            assert frame.message.time_s <= frame.received_s
