"""Real cameras and microphones for tests: network cameras on loopback, a sound server of the test's own.

Pictures and sounds are functions of `time.perf_counter`, so that a test knows when each was captured:
`picture(t_s)` returns uint8 (H, W, 3) RGB. Every rig is a context manager and can break in the ways devices do.
"""

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from stream.capture import lifeline
from stream.transport.events import Event
from stream.transport.receiver import Receiver

Picture = Callable[[float], NDArray[np.uint8]]

PIPE_CAPACITY = 1031  # fcntl.F_SETPIPE_SZ, which Python 3.11 lacks a name for on some platforms
WAIT_S = 60.0


def until(
    condition: Callable[[], object],
    wait_s: float = WAIT_S,
    process: subprocess.Popen[str] | None = None,
) -> None:
    """Wait until a condition is true; fail if it never is, or if a process that it waits for has ended."""
    deadline_s = time.monotonic() + wait_s
    while not condition():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < deadline_s, "waited in vain"
        time.sleep(0.01)


def noisy_picture(
    t_s: float, *, width: int = 160, height: int = 120, level: int = 60
) -> NDArray[np.uint8]:
    """A grey field with the noise that every sensor has."""
    rng = np.random.default_rng(int(t_s * 1e6))
    return rng.integers(level - 8, level + 8, (height, width, 3), dtype=np.uint8)


def stamped_picture(t_s: float, *, width: int = 320, height: int = 64) -> NDArray[np.uint8]:
    """A picture that carries its capture time: 32 vertical bars, white for each set bit of milliseconds."""
    value = round(t_s * 1000) % 2**32
    bars = [255 if value >> bit & 1 else 0 for bit in range(32)]
    picture = np.repeat(np.array(bars, np.uint8), width // 32)[None, :, None]
    return np.ascontiguousarray(np.broadcast_to(picture, (height, width, 3)))


def stamp_of(rgb: NDArray[np.uint8]) -> float:
    """Inverse of `stamped_picture` after compression: seconds, modulo 2**32 ms."""
    height, width = rgb.shape[:2]
    row = rgb[height // 4 : -height // 4].mean(axis=(0, 2))
    bar = width // 32
    centres = row[bar // 2 :: bar][:32]
    return sum(1 << bit for bit, level in enumerate(centres) if level > 127) / 1000


class CaptureProcess:
    """A capture process as `emostream run` starts it, and the ingest server that hears it."""

    def __init__(
        self,
        module: str,
        *options: str,
        step_s: float = 0.5,
        environment: dict[str, str] | None = None,
    ) -> None:
        self._command = [sys.executable, "-P", "-m", module, "--source", "cam0", *options]
        self._environment = environment or {}
        self.server = Receiver(step_s=step_s)
        self.process: subprocess.Popen[bytes] | None = None
        self.events: list[Event] = []
        self._heard = 0

    def __enter__(self) -> "CaptureProcess":
        address = self.server.bind_local()
        self.process = subprocess.Popen(
            [*self._command, "--endpoint", address.endpoint],
            env=os.environ
            | self._environment
            | address.environment()
            | {lifeline.LIFELINE_VARIABLE: "1"},
            stdin=subprocess.PIPE,
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        self.server.close()

    def hear(self, condition: Callable[[Event], object], wait_s: float = WAIT_S) -> Event:
        """The next event that fulfils the condition; all that came are kept in `events`."""
        deadline_s = time.monotonic() + wait_s
        while True:
            while self._heard < len(self.events):
                self._heard += 1
                if condition(self.events[self._heard - 1]):
                    return self.events[self._heard - 1]
            kinds = sorted({type(event).__name__ for event in self.events})
            assert time.monotonic() < deadline_s, f"waited in vain; heard {kinds}"
            self.events += self.server.poll(timeout_ms=100)

    def quit(self) -> int:
        """Ask for an orderly exit, as a parent does; returns the exit code."""
        assert self.process is not None
        assert self.process.stdin is not None
        self.process.stdin.write(lifeline.QUIT)
        self.process.stdin.flush()
        deadline_s = time.monotonic() + WAIT_S
        while self.process.poll() is None:
            self.events += self.server.poll(timeout_ms=20)
            assert time.monotonic() < deadline_s, "the capture process does not exit"
        return self.process.returncode


class MjpegCamera:
    """A network camera that serves motion JPEG over HTTP on loopback, as IP cameras and phones do.

    It can `freeze` (keep answering with the same picture), `hang` (keep the connection, send nothing), `stop` (the
    server dies, its port refuses) and `start` again on the same port.
    """

    def __init__(self, picture: Picture = noisy_picture, *, fps: float = 25.0) -> None:
        self.picture = picture
        self.fps = fps
        self._frozen_at_s: float | None = None
        self._hanging = threading.Event()
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None
        self._running = threading.Event()
        self._port = 0
        self.connections = 0

    @property
    def url(self) -> str:
        """Where the stream is."""
        return f"http://127.0.0.1:{self._port}/video.mjpg"

    def __enter__(self) -> "MjpegCamera":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Listen, on the port of the last time if there was one."""
        camera = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                camera.connections += 1
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                with contextlib.suppress(ConnectionError):
                    camera._serve(self.wfile.write)

            def log_message(self, format: str, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            # Threads are joined by server_close, so that none outlives its test.
            daemon_threads = False
            block_on_close = True
            allow_reuse_address = True

            def handle_error(self, request: object, client_address: object) -> None:
                pass  # a client that went away

        self._running.set()
        self._server = Server(("127.0.0.1", self._port), Handler)
        self._port = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}
        )
        self._thread.start()

    def stop(self) -> None:
        """Die: connections end, the port refuses."""
        if self._server is None:
            return
        self._running.clear()
        self._server.shutdown()
        self._server.server_close()
        assert self._thread is not None
        self._thread.join()
        self._server = None

    def freeze(self) -> None:
        """Keep answering, with the picture of now."""
        self._frozen_at_s = time.perf_counter()

    def thaw(self) -> None:
        """Undo `freeze` and `hang`."""
        self._frozen_at_s = None
        self._hanging.clear()

    def hang(self) -> None:
        """Keep the connection and send nothing."""
        self._hanging.set()

    def _serve(self, write: Callable[[bytes], object]) -> None:
        due_s = time.perf_counter()
        while self._running.is_set():
            if not self._hanging.is_set():
                now_s = time.perf_counter() if self._frozen_at_s is None else self._frozen_at_s
                ok, jpeg = cv2.imencode(".jpg", self.picture(now_s)[..., ::-1])
                assert ok
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                write(head.encode() + jpeg.tobytes() + b"\r\n")
            due_s = max(due_s + 1 / self.fps, time.perf_counter() - 1 / self.fps)
            time.sleep(max(0.0, due_s - time.perf_counter()))


class RtspCamera:
    """A network camera that serves H.264 over RTSP on loopback, through GStreamer's RTSP server."""

    def __init__(
        self,
        picture: Picture = noisy_picture,
        *,
        fps: int = 25,
    ) -> None:
        self.picture = picture
        self.fps = fps
        self._process: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None
        self._running = threading.Event()
        self.url = ""

    def __enter__(self) -> "RtspCamera":
        height, width = self.picture(0.0).shape[:2]
        script = Path(__file__).with_name("rtsp_server.py")
        self._process = subprocess.Popen(
            ["/usr/bin/python3", str(script), str(width), str(height), str(self.fps)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        port = int(self._process.stdout.readline())
        self.url = f"rtsp://127.0.0.1:{port}/camera"
        self._running.set()
        self._thread = threading.Thread(target=self._feed)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.clear()
        assert self._process is not None
        assert self._thread is not None
        self._thread.join()
        self._process.kill()
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate()

    def _feed(self) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        due_s = time.perf_counter()
        while self._running.is_set():
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.write(self.picture(time.perf_counter()).tobytes())
                self._process.stdin.flush()
            due_s += 1 / self.fps
            time.sleep(max(0.0, due_s - time.perf_counter()))


class SoundServer:
    """A PulseAudio daemon of the test's own, with its own runtime directory and no hardware.

    `environment` makes a process use it; ALSA's default device, and so PortAudio, reach it through the plugins of
    libasound2-plugins. Nothing moves a recording to another source when its source vanishes.
    """

    SETTINGS = "load-module module-native-protocol-unix auth-anonymous=1 socket={socket}\n"

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        socket = directory / "native"
        self.environment = {
            "PULSE_SERVER": f"unix:{socket}",
            "XDG_RUNTIME_DIR": str(directory),
            "HOME": str(directory),
            "PULSE_COOKIE": str(directory / "cookie"),
        }
        (directory / "default.pa").write_text(self.SETTINGS.format(socket=socket))

    def __enter__(self) -> "SoundServer":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the daemon and wait until it answers."""
        command = ["pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1"]
        command += ["--disallow-exit", "--use-pid-file=no", "--disable-shm=yes", "--log-level=1"]
        self._process = subprocess.Popen(
            [*command, "-F", str(self._directory / "default.pa")],
            env=os.environ | self.environment,
            stderr=subprocess.DEVNULL,
        )
        deadline_s = time.monotonic() + WAIT_S
        while self._run("pactl", "info", check=False).returncode:
            assert self._process.poll() is None, "pulseaudio ended at once"
            assert time.monotonic() < deadline_s, "pulseaudio does not answer"
            time.sleep(0.05)

    def stop(self) -> None:
        """End the daemon."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(WAIT_S)
            self._process = None

    def _run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            env=os.environ | self.environment,
            capture_output=True,
            text=True,
            check=check,
            timeout=WAIT_S,
        )

    def load(self, module: str, **options: object) -> int:
        """Load a module and return its number."""
        pairs = [f"{name}={value}" for name, value in options.items()]
        return int(self._run("pactl", "load-module", module, *pairs).stdout)

    def unload(self, number: int) -> None:
        """Unload a module: its sources vanish, as when a microphone is pulled out."""
        self._run("pactl", "unload-module", str(number))

    def null_sink(self, name: str, *, rate_hz: int = 48000, channels: int = 2) -> int:
        """A speaker that plays to nobody; its monitor `{name}.monitor` becomes the default microphone."""
        number = self.load("module-null-sink", sink_name=name, rate=rate_hz, channels=channels)
        self._run("pactl", "set-default-source", f"{name}.monitor")
        return number

    @contextlib.contextmanager
    def playing(self, sink: str, pcm: NDArray[np.float32], rate_hz: int) -> Iterator[None]:
        """Play float32 (S,) mono again and again into a sink, at no known latency."""
        process = subprocess.Popen(
            [
                "pacat",
                f"--device={sink}",
                "--format=float32le",
                "--channels=1",
                f"--rate={rate_hz}",
            ],
            env=os.environ | self.environment,
            stdin=subprocess.PIPE,
        )
        ended = threading.Event()

        def feed() -> None:
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                while not ended.is_set():
                    process.stdin.write(pcm.tobytes())

        thread = threading.Thread(target=feed)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            process.kill()
            process.wait()
            thread.join()
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()


class PipeMicrophone:
    """A microphone whose sound is captured at known times: a PulseAudio source that reads a pipe.

    `sound(index)` returns float32 (N,) for int64 (N,) sample indices; sample i is captured at `start_s + i / rate_hz`
    of `time.perf_counter`, as it is written when its 10 ms block is over. `stall` stops the samples, `resume` goes on
    with those of then.
    """

    def __init__(
        self,
        server: SoundServer,
        sound: Callable[[NDArray[np.int64]], NDArray[np.float32]],
        *,
        name: str = "mic",
        rate_hz: int = 48000,
    ) -> None:
        self._server = server
        self._sound = sound
        self.name = name
        self.rate_hz = rate_hz
        self._path = server._directory / f"{name}.pipe"
        self._running = threading.Event()
        self._stalled = threading.Event()
        self.start_s = 0.0

    def __enter__(self) -> "PipeMicrophone":
        self._module = self._server.load(
            "module-pipe-source",
            source_name=self.name,
            file=self._path,
            format="s16le",
            rate=self.rate_hz,
            channels=1,
        )
        self._server._run("pactl", "set-default-source", self.name)
        self._running.set()
        self._thread = threading.Thread(target=self._feed)
        self.start_s = time.perf_counter()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.clear()
        self._thread.join()
        self._server.unload(self._module)

    def stall(self) -> None:
        """Deliver nothing, as a driver that hangs."""
        self._stalled.set()

    def resume(self) -> None:
        """Deliver again."""
        self._stalled.clear()

    def _feed(self) -> None:
        import fcntl

        # Read-write, so that opening waits for nobody; small, so that a reader that sleeps finds no old sound.
        pipe = os.open(self._path, os.O_RDWR | os.O_NONBLOCK)
        fcntl.fcntl(pipe, PIPE_CAPACITY, 4096)
        block = self.rate_hz // 100
        at = 0
        try:
            while self._running.is_set():
                wait_s = self.start_s + (at + block) / self.rate_hz - time.perf_counter()
                time.sleep(max(0.0, wait_s))
                if not self._stalled.is_set():
                    pcm = self._sound(np.arange(at, at + block)) * 32767
                    with contextlib.suppress(BlockingIOError):
                        os.write(pipe, pcm.astype("<i2").tobytes())
                at += block
        finally:
            os.close(pipe)
