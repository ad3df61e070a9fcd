"""The file and URL capture process, with real files, real servers and real sockets."""

import contextlib
import http.server
import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from emostream.media import MediaReader, PcmChunk, probe
from stream.capture import network as network_capture
from stream.capture.device import Backoff
from stream.capture.network import MODALITIES, NetworkConfig, SharedClock
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


class Recordings(http.server.ThreadingHTTPServer):
    """A web server on loopback with the files of a folder.

    Args:
        folder: where they are.
        length: say how long a file is.
        stop_at: hang up so far into a file when it is asked for to be played, the first time.
        port: where to listen.
    """

    daemon_threads = False
    block_on_close = True

    def __init__(
        self, folder: Path, *, length: bool = True, stop_at: int | None = None, port: int = 0
    ) -> None:
        super().__init__(("127.0.0.1", port), WholeFiles)
        self.folder, self.length, self.stop_at = folder, length, stop_at
        self.requests = 0
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,))

    def __enter__(self) -> str:
        self._thread.start()
        return f"http://127.0.0.1:{self.server_port}"

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


class WholeFiles(http.server.BaseHTTPRequestHandler):
    """Sends a file from its beginning, whatever range is asked for, as simple servers do."""

    server: Recordings

    def do_GET(self) -> None:
        data = (self.server.folder / self.path.strip("/")).read_bytes()
        self.send_response(200)
        if self.server.length:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.server.requests += 1  # the first is to see whether it is a recording
        end = self.server.stop_at if self.server.requests == 2 else None
        with contextlib.suppress(ConnectionError):  # FFmpeg seeks by hanging up
            self.wfile.write(data[:end])

    def log_message(self, format: str, *args: object) -> None:
        pass


class Unseekable(io.BytesIO):
    """Where a browser's recorder writes to: it never comes back to say how long it became."""

    def seekable(self) -> bool:
        return False


def browser_recording(path: Path) -> Path:
    """2.2 s of WebM without a duration, as MediaRecorder makes it."""
    whole = write_media(
        path.with_name("whole.webm"),
        Video(duration_s=2.2, codec="libvpx"),
        Audio(duration_s=2.2, codec="libopus", sound=noise()),
    )
    with Unseekable() as file:
        with av.open(str(whole)) as source, av.open(file, "w", format="webm") as target:
            streams = {s.index: target.add_stream_from_template(s) for s in source.streams}
            for packet in source.demux():
                if packet.dts is not None:
                    packet.stream = streams[packet.stream_index]
                    target.mux(packet)
        path.write_bytes(file.getvalue())
    assert probe(path).duration_s is None
    return path


def test_a_recording_behind_a_url_is_played_in_real_time_to_its_end(clip: Path) -> None:
    with Recordings(clip.parent) as url, Listening(STEP_S) as receiver:
        with supervised(receiver, f"{url}/{clip.name}") as supervisor:
            supervisor.start()
            receiver.wait_events(Hello)
            assert not receiver.of(PcmHeader)  # it waits for the model
            receiver.server.start()
            receiver.wait_events(End)
            assert supervisor.wait(WAIT_S)
        chunks, once = receiver.events_of(PcmHeader), expected(clip)[1]
        np.testing.assert_array_equal(np.concatenate([chunk.data for chunk in chunks]), once)
        assert receiver.of(Hello)[0].clock == "media"
        epoch_s = receiver.of(Epoch)[0].epoch_s
        assert chunks[0].message.start_s == 0.0
        for chunk in chunks:
            end_s = chunk.message.start_s + chunk.data.size / RATE_HZ
            assert chunk.received_s >= epoch_s + end_s
        for time_s, number in shown(receiver.events):
            assert time_s == pytest.approx(number / 25, abs=1e-3)


@pytest.mark.parametrize("length", [True, False])
def test_a_recording_behind_a_url_arrives_whole_at_full_speed(clip: Path, length: bool) -> None:
    """A server that does not say how much it sends, too: FFmpeg takes its end for a failure."""
    with Recordings(clip.parent, length=length) as url:
        events = play(f"{url}/{clip.name}", "--pace", "max")
    frames, pcm = expected(clip)
    assert shown(events) == frames
    np.testing.assert_array_equal(sound(events), pcm)
    [hello] = [event.message for event in events_of(events, Hello)]
    assert isinstance(hello, Hello)
    assert (hello.clock, hello.lossless) == ("media", True)


def test_a_browsers_recording_without_a_duration_has_an_end(tmp_path: Path) -> None:
    path = browser_recording(tmp_path / "browser.webm")
    with Recordings(tmp_path) as url:
        events = play(f"{url}/{path.name}", "--pace", "max")
    np.testing.assert_array_equal(sound(events), expected(path)[1])


def test_a_recording_behind_a_url_in_a_loop(clip: Path) -> None:
    with (
        Recordings(clip.parent) as url,
        Listening(STEP_S) as receiver,
        supervised(receiver, f"{url}/{clip.name}", "--loop", "--pace", "max") as supervisor,
    ):
        receiver.server.start()
        supervisor.start()
        receiver.wait_for(lambda: any(pcm.start_s > 5.0 for pcm in receiver.of(PcmHeader)))
        receiver.stop()
        receiver.server.close()
        assert supervisor.wait(WAIT_S)
        heard, once = sound(receiver.events), expected(clip)[1]
        repeats = -(-heard.size // once.size)
        np.testing.assert_array_equal(heard, np.tile(once, repeats)[: heard.size])


def test_a_recording_whose_server_fails_half_way_loses_nothing_at_full_speed(clip: Path) -> None:
    with Recordings(clip.parent, stop_at=clip.stat().st_size // 2) as url:
        events = play(f"{url}/{clip.name}", "--pace", "max")
    frames, pcm = expected(clip)
    np.testing.assert_allclose(sound(events), pcm, atol=0.01)  # the resampler begins anew there
    assert sorted(set(shown(events))) == frames
    restarts = [event.message.restarts for event in events_of(events, State)]
    assert max(restarts) >= 1


def test_a_recording_that_no_server_without_ranges_can_play_is_refused_in_a_line(
    tmp_path: Path,
) -> None:
    """An MP4 with its index at its end, longer than what FFmpeg looks ahead."""
    path = write_media(
        tmp_path / "phone.mp4",
        Video(duration_s=20.0, size=(320, 240)),
        Audio(duration_s=20.0, codec="pcm_s16le", sound=noise()),
    )
    failures: list[tuple[str, str, str]] = []
    with (
        Recordings(tmp_path) as url,
        Listening() as receiver,
        supervised(
            receiver, f"{url}/{path.name}", on_failed=lambda *failure: failures.append(failure)
        ) as supervisor,
    ):
        receiver.server.start()
        supervisor.start()
        assert supervisor.wait(WAIT_S)
        assert supervisor.restarts("clip") == 0
    assert "+faststart" in failures[0][2]
    assert f"{url}/{path.name}" in failures[0][2]


def test_a_recording_whose_server_comes_later_is_played_as_one(clip: Path) -> None:
    with Recordings(clip.parent) as url:
        port = int(url.rpartition(":")[2])
    with (
        Listening(STEP_S) as receiver,
        supervised(receiver, f"{url}/{clip.name}", "--pace", "max") as supervisor,
    ):
        receiver.server.start()
        supervisor.start()
        receiver.wait_for(lambda: any(video_state(event) == "lost" for event in receiver.events))
        with Recordings(clip.parent, port=port):
            receiver.wait_events(End)
            assert supervisor.wait(WAIT_S)
        assert [hello.clock for hello in receiver.of(Hello)] == ["host", "media"]
        np.testing.assert_array_equal(sound(receiver.events), expected(clip)[1])


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
            network_capture.capture_network(link, NetworkConfig(url="http://127.0.0.1:9/"))


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
