"""What a subscriber sees when something breaks, by the whole pipeline in its own processes.

The tests of the last part break one running pipeline, one after the other: a network camera and a microphone (`cam0`),
and beside them a looped file (`witness`) that no fault may touch. Each begins and ends with both modalities ok. They
come last, so that it takes no time from the others.

Elsewhere: signals, keys and ports in use in test_run.py; a full disk in test_recording.py; each protocol error in
test_ingest.py; the high-water mark of a subscriber in test_publisher.py.
"""

import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import psutil
import pytest
import zmq
from numpy.typing import NDArray

from stream.pubsub.messages import Event, Label, Status
from stream.pubsub.publisher import Publisher
from stream.sockets.local_endpoint import PREFIX
from stream.windows.smoothing import Rolling
from stream.windows.source_state import Losses, SourceState
from tests.media_factory import Audio, Video, noise, write_media
from tests.stream.live_rig import Live, live
from tests.stream.rigs import MjpegCamera, PipeMicrophone, SoundServer, noisy_picture, until
from tests.system_packages import PORTAUDIO

SPEAKER = "desk"
SECONDS = ("--window-s", "2", "--reason-every-s", "0")  # windows of 2 s, a label each 0.25 s


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("media") / "clip.mp4"
    return write_media(path, Video(duration_s=4, size=(80, 60)), Audio(duration_s=4, sound=noise()))


def hum(indices: NDArray[np.int64]) -> NDArray[np.float32]:
    return (0.1 * np.sin(indices / 20)).astype(np.float32)


def is_label(event: Event, video: str, audio: str, source: str = "cam0") -> bool:
    return (
        isinstance(event, Label)
        and event.source == source
        and (event.modalities.video, event.modalities.audio) == (video, audio)
    )


def is_status(event: Event, state: str, *details: str, source: str = "cam0") -> bool:
    return (
        isinstance(event, Status)
        and event.source == source
        and event.state == state
        and all(detail in event.detail for detail in details)
    )


def assert_every_window_is_accounted_for(labels: list[Label]) -> None:
    for before, after in pairwise(labels):
        passed = after.window.id - before.window.id - 1
        assert passed == after.dropped.windows - before.dropped.windows, (before, after)


def test_devices_that_are_not_there_and_come(sound_server: SoundServer) -> None:
    """No camera and no microphone at all: lost, no label, and what to do; each joins when it is plugged in."""
    with (
        live(
            *SECONDS,
            *("--video", (url := _free_url()), "--audio", "pulse:later"),
            environment=sound_server.environment,
        ) as running,
    ):
        status = running.until(
            lambda e: is_status(e, "lost", "does not answer", "emostream devices")
        )
        assert status.fps_in == 0
        assert not running.labels()
        with PipeMicrophone(sound_server, hum, name="later"):
            # No camera at all.
            label = running.until(lambda e: is_label(e, "missing", "ok"))
            assert label.frames_used == 0
            running.until(lambda e: is_status(e, "degraded", "video missing", url))
            camera = MjpegCamera()
            camera._port = int(url.split(":")[2].split("/")[0])
            with camera:
                running.until(lambda e: is_label(e, "ok", "ok"))
                running.until(lambda e: is_status(e, "live") and not e.detail)
        running.send()
        running.until_stopped()
        assert running.wait() == 0


def labelled_by_picture(environment: dict[str, str], remedy: str) -> None:
    """With a camera and a host without any sound, labels are given by picture, and the status says why."""
    with (
        MjpegCamera() as camera,
        live(*SECONDS, "--video", camera.url, environment=environment) as running,
    ):
        label = running.until(lambda e: is_label(e, "ok", "missing"))
        assert label.audio_gap_ms == 2000
        status = running.until(lambda e: is_status(e, "degraded", "audio missing", "microphone"))
        assert remedy in status.detail
        running.send()
        assert running.wait() == 0


def test_no_microphone_at_all(tmp_path: Path) -> None:
    PORTAUDIO.skip_if_missing()
    silence = {
        "PULSE_SERVER": f"unix:{tmp_path / 'nobody'}",
        "XDG_RUNTIME_DIR": str(tmp_path),
    }
    labelled_by_picture(silence, "emostream devices")


def test_no_portaudio(tmp_path: Path) -> None:
    """As on a fresh Debian: the wheel of sounddevice for Linux brings no library."""
    hidden = "import ctypes.util\nctypes.util.find_library = lambda name: None\n"
    (tmp_path / "sitecustomize.py").write_text(hidden)
    labelled_by_picture({"PYTHONPATH": str(tmp_path)}, "libportaudio2")


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX")
def test_inference_slower_than_the_hop_and_then_a_killed_parent(clip: Path) -> None:
    """At 50 hops a second windows are skipped: the ids have gaps, counted in `dropped.windows`, and labels are fresh.

    Killed by SIGKILL, nothing is left of the pipeline: no process, no file, and its port is free at once.
    """
    hasty = ("--window-s", "0.16", "--reason-every-s", "1")
    sources = [argument for i in range(3) for argument in ("--source", f"s{i}={clip}")]
    with live(*hasty, *sources, "--loop") as running:
        first = running.until(lambda e: isinstance(e, Label) and e.source == "s0")
        last = running.until(
            lambda e: (
                isinstance(e, Label) and e.source == "s0" and e.window.id >= first.window.id + 400
            )
        )
        for source in ("s0", "s1", "s2"):
            labels = running.labels(source)
            assert_every_window_is_accounted_for(labels)
        assert last.dropped.windows > first.dropped.windows
        # 400 hops are 8 s: were they queued, the last label would be seconds late by now.
        recent = [label.latency_ms.total for label in running.labels("s0")[-20:]]
        assert np.median(recent) < 2000
        status = running.until(lambda e: isinstance(e, Status) and e.source == "s0")
        assert status.skipped >= last.dropped.windows

        process = psutil.Process(running.process.pid)
        children = process.children(recursive=True)
        assert len(children) == 3
        [directory] = {
            Path(connection.laddr).parent
            for connection in process.net_connections("unix")
            if PREFIX in str(connection.laddr)
        }
        assert directory.exists()
        running.send(signal.SIGKILL)
        assert running.wait() == -signal.SIGKILL
        _, alive = psutil.wait_procs(children, timeout=60)
        assert not alive
        until(lambda: not directory.exists())
        with Publisher(running.endpoint) as successor:
            assert successor.endpoint == running.endpoint


def test_each_restart_counts_once() -> None:
    """A process of two streams reports a reopening twice, and one that starts again is noticed by two of us."""
    state = SourceState(name="url", clock="host", lossless=False, rolling=Rolling(1.0, 0.1))
    state.pids = {("video", "audio"): {10, 11}}
    state.losses = {"video": Losses(restarts=3), "audio": Losses(restarts=3)}
    assert state.restarts(1) == 1 + 3
    assert state.restarts(5) == 5 + 3  # four died before they had connected
    assert state.restarts(0) == 1 + 3  # a process of another host
    state.pids = {("video",): {10}, ("audio",): {11}}
    assert state.restarts(0) == 3 + 3


def test_a_system_clock_that_is_stepped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unix times follow the stepped clock at once; the source clock, which windows go by, does not notice."""
    state = SourceState(name="cam0", clock="host", lossless=False, rolling=Rolling(1.0, 0.1))
    true_time, source_s = time.time, time.perf_counter()
    before = state.status(source_s, 0)
    assert before.unix_time_s == pytest.approx(true_time(), abs=1.0)
    for step_s in (-3600.0, 86_400.0):
        monkeypatch.setattr(time, "time", lambda step_s=step_s: true_time() + step_s)
        after = state.status(source_s, 0)
        assert after.timestamp_s == before.timestamp_s
        assert after.uptime_s == before.uptime_s
        assert after.unix_time_s == pytest.approx(before.unix_time_s + step_s, abs=0.5)
        # Two instants are as far apart as on the source clock, whatever was done to the system's.
        apart_s = state.unix_time_s(source_s) - state.unix_time_s(source_s - 4.0)
        assert apart_s == pytest.approx(4.0, abs=0.5)


def _free_url() -> str:
    """Where no camera is yet."""
    with MjpegCamera(noisy_picture) as camera:
        return camera.url


class Speaker:
    """A null sink that plays a tone; its monitor is the microphone, which vanishes with it."""

    def __init__(self, sounds: SoundServer) -> None:
        self._sounds = sounds
        self._stack = contextlib.ExitStack()

    def plug(self) -> None:
        self._stack.callback(self._sounds.unload, self._sounds.null_sink(SPEAKER))
        tone = hum(np.arange(48_000))
        self._stack.enter_context(self._sounds.playing(SPEAKER, tone, 48_000))

    def unplug(self) -> None:
        self._stack.close()


@dataclass
class Rig:
    """The pipeline that is broken, and its devices."""

    running: Live
    camera: MjpegCamera
    speaker: "Speaker"
    begun: int = 0  # how many events there were before the fault

    def healthy(self) -> None:
        """Wait until nothing is wrong with either source."""
        self.running.until(lambda e: is_status(e, "live") and not e.detail)
        self.running.until(lambda e: is_label(e, "ok", "ok"))
        self.running.until(lambda e: is_label(e, "ok", "ok", "witness"))

    @contextlib.contextmanager
    def fault(self, *, labels_stop: bool = False) -> Iterator[None]:
        """The body breaks something and mends it; before and after it all is well, and nothing else is lost.

        Every window that has no label was counted as skipped, except where there was nothing to label.
        """
        self.healthy()
        self.begun = len(self.running.events)
        yield
        self.healthy()
        events = self.running.events[self.begun :]
        for source in ("cam0", "witness"):
            labels = [e for e in events if isinstance(e, Label) and e.source == source]
            assert all(b.seq == a.seq + 1 for a, b in pairwise(labels))
            if source == "witness" or not labels_stop:
                assert_every_window_is_accounted_for(labels)
        witness = [e for e in events if e.source == "witness"]
        states = {(e.state, e.detail) for e in witness if isinstance(e, Status)}
        assert states == {("live", "")}
        modalities = {
            (e.modalities.video, e.modalities.audio) for e in witness if isinstance(e, Label)
        }
        assert modalities == {("ok", "ok")}
        assert self.running.client.stats.lost == 0

    def until(self, wanted) -> Event:
        return self.running.until(wanted)

    def capture_process(self, module: str) -> psutil.Process:
        """The process that captures `cam0` with a module."""
        [found] = [
            process
            for process in psutil.Process(self.running.process.pid).children()
            if module in process.cmdline() and "cam0" in process.cmdline()
        ]
        return found

    def restarts(self) -> int:
        [*_, status] = [e for e in self.running.statuses() if e.source == "cam0"]
        return status.restarts


@pytest.fixture(scope="module")
def rig(sound_server: SoundServer, clip: Path) -> Iterator[Rig]:
    speaker = Speaker(sound_server)
    speaker.plug()
    with (
        MjpegCamera() as camera,
        live(
            *SECONDS,
            *("--source", f"witness={clip}", "--loop"),
            *("--video", camera.url, "--audio", f"pulse:{SPEAKER}.monitor"),
            *("--ingest", "tcp://127.0.0.1:*"),
            environment=sound_server.environment,
        ) as running,
    ):
        rig = Rig(running, camera, speaker)
        running.until(lambda e: is_label(e, "ok", "ok"))
        yield rig
        running.send()
        running.until_stopped()
        assert running.wait() == 0
    speaker.unplug()


def test_a_camera_server_that_is_killed_and_restarted(rig: Rig) -> None:
    """The status is degraded and says what the camera does; labels go on by sound; then the picture is back."""
    with rig.fault():
        restarts = rig.restarts()
        rig.camera.stop()
        rig.until(lambda e: is_status(e, "degraded", "video missing", "does not answer"))
        for _ in range(4):
            assert rig.until(lambda e: is_label(e, "missing", "ok")).frames_used == 0
        rig.camera.start()
        rig.until(lambda e: is_label(e, "ok", "ok"))
    assert rig.restarts() == restarts + 1


def test_a_camera_that_freezes_but_keeps_answering(rig: Rig) -> None:
    """Repeats of one picture are withheld: labels go on by sound, and the status says that the picture stands still."""
    with rig.fault():
        rig.camera.freeze()
        rig.until(lambda e: is_status(e, "degraded", "video missing", "has not changed for 5 s"))
        rig.until(lambda e: is_label(e, "missing", "ok"))
        rig.camera.thaw()
        rig.until(lambda e: is_label(e, "ok", "ok"))


def test_a_microphone_that_vanishes_and_returns(rig: Rig) -> None:
    """The status names the microphone; labels go on by picture; then the sound is back."""
    with rig.fault():
        rig.speaker.unplug()
        rig.until(lambda e: is_status(e, "degraded", "audio missing", f"pulse:{SPEAKER}.monitor"))
        label = rig.until(lambda e: is_label(e, "ok", "missing"))
        assert label.av_skew_ms is None
        rig.until(lambda e: is_label(e, "ok", "missing") and e.audio_gap_ms == 2000)
        rig.speaker.plug()
        rig.until(lambda e: is_label(e, "ok", "ok"))


def test_camera_and_microphone_both_gone(rig: Rig) -> None:
    """The status is lost and names both; there are no labels, rather than labels of nothing; then all is back."""
    with rig.fault(labels_stop=True):
        rig.camera.stop()
        rig.speaker.unplug()
        lost = rig.until(lambda e: is_status(e, "lost", "video missing", "audio missing"))
        begun = len(rig.running.events)
        rig.until(lambda e: is_status(e, "lost") and e.uptime_s > lost.uptime_s + 2)
        assert not [
            e for e in rig.running.events[begun:] if isinstance(e, Label) and e.source == "cam0"
        ]
        rig.camera.start()
        rig.speaker.plug()
        rig.until(lambda e: is_label(e, "ok", "ok"))


@pytest.mark.parametrize(
    ("module", "without"),
    [
        ("stream.capture.camera", ("missing", "ok")),
        ("stream.capture.microphone", ("ok", "missing")),
    ],
)
def test_a_capture_process_that_is_killed(rig: Rig, module: str, without: tuple[str, str]) -> None:
    """It is started again and `restarts` counts it; the other modality goes on without a break meanwhile.

    Whether a whole window passes without it depends on how fast a process starts here.
    """
    with rig.fault():
        restarts = rig.restarts()
        victim = rig.capture_process(module)
        victim.kill()
        rig.until(lambda e: is_status(e, "live") and e.restarts > restarts and not e.detail)
        rig.until(lambda e: is_label(e, "ok", "ok"))
        assert rig.capture_process(module).pid != victim.pid
        assert rig.restarts() == restarts + 1
        kinds = {"ok", "degraded"}
        other = "audio" if without[1] == "ok" else "video"
        labels = [e for e in rig.running.events[rig.begun :] if isinstance(e, Label)]
        assert {getattr(e.modalities, other) for e in labels} == {"ok"}
        lacked = {getattr(e.modalities, "video" if other == "audio" else "audio") for e in labels}
        assert lacked > {"ok"}
        assert lacked <= kinds | {"missing"}


def test_a_capture_process_that_stands_still(rig: Rig) -> None:
    """Stopped by a signal or a debugger, it is lost after a while; once it goes on, so does its stream."""
    with rig.fault():
        victim = rig.capture_process("stream.capture.camera")
        victim.suspend()
        rig.until(lambda e: is_status(e, "degraded", "video missing"))
        rig.until(lambda e: is_label(e, "missing", "ok"))
        victim.resume()
        rig.until(lambda e: is_label(e, "ok", "ok"))


def test_garbage_bytes_on_every_socket(rig: Rig) -> None:
    """Nothing at all is seen of them: not in the labels, not in the status, not in memory."""
    process = psutil.Process(rig.running.process.pid)
    [local] = {
        f"ipc://{connection.laddr}"
        for connection in process.net_connections("unix")
        if PREFIX in str(connection.laddr)
    }
    endpoints = [rig.running.endpoint, rig.running.ingest()]
    random = np.random.default_rng(3)
    with rig.fault(), zmq.Context() as context, contextlib.ExitStack() as stack:
        for endpoint in endpoints:
            port = int(endpoint.rsplit(":", 1)[1])
            for junk in (b"GET / HTTP/1.1\r\n\r\n", random.bytes(70_000), b"\xff" + bytes(63)):
                stranger = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
                with contextlib.suppress(ConnectionError):
                    stranger.sendall(junk)
        # A subscriber of libzmq 4.3 that subscribes to much more crashes by itself: its own trie recurses by the byte.
        for kind, endpoint, sizes in [
            (zmq.XSUB, endpoints[0], (0, 1, 100, 8_000)),
            (zmq.DEALER, endpoints[1], (0, 1, 100, 200_000)),
            (zmq.DEALER, local, (0, 1, 100, 200_000)),
        ]:
            peer = stack.enter_context(context.socket(kind))
            peer.linger = 0
            peer.connect(endpoint)
            for size in sizes:
                peer.send(b"\x01\x09" + random.bytes(size))
        events = len(rig.running.events)
        label = rig.until(lambda e: is_label(e, "ok", "ok"))
        rig.until(lambda e: is_label(e, "ok", "ok") and e.window.id >= label.window.id + 8)
        rig.healthy()
        statuses = [e for e in rig.running.events[events:] if isinstance(e, Status)]
        assert {(e.state, e.detail) for e in statuses} == {("live", "")}


def test_a_subscriber_that_never_reads(rig: Rig) -> None:
    """The others see no difference, and the publisher does not grow for its sake."""
    process = psutil.Process(rig.running.process.pid)
    with rig.fault(), zmq.Context() as context, context.socket(zmq.SUB) as idle:
        idle.linger = 0
        idle.rcvhwm = 1
        idle.rcvbuf = 2048
        idle.subscribe("")
        idle.subscribe("preview.")
        idle.connect(rig.running.endpoint)
        begun = rig.until(lambda e: is_label(e, "ok", "ok"))
        first = rig.until(lambda e: is_label(e, "ok", "ok") and e.window.id >= begun.window.id + 8)
        before = process.memory_info().rss  # with OpenCV, which the first picture has had loaded
        rig.until(lambda e: is_label(e, "ok", "ok") and e.window.id >= first.window.id + 40)
        assert process.memory_info().rss - before < 20e6
        assert idle.poll(0), "it was sent something, which it did not read"
