"""Cameras that speak HTTP in ways of their own, and addresses that give no picture, from real servers on loopback."""

import base64
import contextlib
import http.server
import threading
import time
from collections.abc import Callable, Iterator
from typing import ClassVar

import cv2
import numpy as np
import pytest

from stream.capture.device import DeviceStatus
from stream.capture.network import NetworkConfig, NetworkStream
from stream.capture.picture import CameraFrame
from tests.stream.rigs import WAIT_S, noisy_picture, stamp_of, stamped_picture, until

STEP_S = 0.2
MULTIPART = "multipart/x-mixed-replace;boundary=123456789000000000000987654321"
BOUNDARY = b"\r\n--123456789000000000000987654321\r\n"
LOGIN = "Basic " + base64.b64encode(b"me:pass word").decode()


def jpeg(picture: np.ndarray) -> bytes:
    ok, data = cv2.imencode(".jpg", picture[..., ::-1])
    assert ok
    return data.tobytes()


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = False
    block_on_close = True

    def __init__(self, picture: Callable[[float], np.ndarray]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.picture = picture
        self.running = True
        self.asked_s: list[float] = []

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # a client that went away

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"  # as the firmware does, in chunks
    PAGES: ClassVar = {
        "/page": (200, "text/html", b"<html>camera</html>"),
        "/notes": (200, "text/plain", b"nothing to see " * 100),
        "/empty": (200, "video/mp4", b""),
        "/away": (503, "text/html", b"busy"),
        "/forbidden": (403, "text/html", b"no"),
    }

    def do_GET(self) -> None:
        self.server.asked_s.append(time.perf_counter())
        path = self.path.partition("?")[0]
        if path.startswith("/guarded") and self.headers.get("Authorization") != LOGIN:
            self._answer(401, "text/html", b"who?", ("WWW-Authenticate", 'Basic realm="camera"'))
        elif path in ("/snapshot.jpg", "/guarded.jpg"):
            self._answer(200, "image/jpeg", jpeg(self.server.picture(time.perf_counter())))
        elif path in ("/behind", "/guarded"):
            with contextlib.suppress(ConnectionError):
                self._send_boundary_behind()
        else:
            self._answer(*self.PAGES.get(path, (404, "text/html", b"where?")))

    def _answer(self, code: int, kind: str, body: bytes, *headers: tuple[str, str]) -> None:
        self.send_response(code)
        for name, value in (("Content-Type", kind), ("Content-Length", str(len(body))), *headers):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _send_boundary_behind(self) -> None:
        """As CameraWebServer for the ESP32-CAM: head, picture, boundary, each a chunk of its own."""
        self.send_response(200)
        self.send_header("Content-Type", MULTIPART)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        while self.server.running:
            data = jpeg(self.server.picture(time.perf_counter()))
            head = f"Content-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n".encode()
            for part in (head, data, BOUNDARY):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
            time.sleep(0.04)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextlib.contextmanager
def serving(picture: Callable[[float], np.ndarray] = noisy_picture) -> Iterator[Server]:
    server = Server(picture)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.running = False
        server.shutdown()
        thread.join()
        server.server_close()


def camera(url: str, **config: float) -> NetworkStream:
    return NetworkStream(NetworkConfig(url=url, modalities=("video",), step_s=STEP_S, **config))


def frames(stream: NetworkStream, count: int) -> list[CameraFrame]:
    out = []
    while len(out) < count:
        item = stream.read(timeout_ms=1000 * WAIT_S)
        assert isinstance(item, CameraFrame)
        out.append(item)
    return out


def test_a_boundary_behind_each_part_is_read() -> None:
    with serving(stamped_picture) as server, camera(f"http://{server.host}/behind") as stream:
        got = frames(stream, 20)
        assert stream.status() == DeviceStatus(state="live")
        ages_s = [frame.time_s - stamp_of(frame.rgb) for frame in got]
        assert min(ages_s) > -0.001
        assert np.median(ages_s) < 0.5
        server.running = False  # the camera is switched off
        until(lambda: stream.status().state == "lost")
        assert "no picture" in stream.status().detail
        server.running = True
        until(lambda: stream.status().state == "live")
        assert stream.status().restarts == 1


def test_an_address_of_single_pictures_is_asked_once_a_step() -> None:
    with serving(stamped_picture) as server, camera(f"http://{server.host}/snapshot.jpg") as stream:
        got = frames(stream, 8)
        assert stream.status() == DeviceStatus(state="live")  # nothing was lost, or opened anew
        asked_s = list(server.asked_s)
    for frame in got:
        assert frame.time_s - stamp_of(frame.rgb) > -0.001
    # Besides the first, one in the middle of each step that has passed, or fewer where the machine is slow.
    assert len(asked_s) <= 1 + (asked_s[-1] - asked_s[0]) / STEP_S + 1


def test_single_pictures_that_stop_coming_are_a_loss() -> None:
    with (
        serving() as server,
        camera(f"http://{server.host}/snapshot.jpg", lost_after_s=1.0) as stream,
    ):
        frames(stream, 2)
        server.picture = lambda _: 1 / 0  # the handler fails: it hangs up without an answer
        until(lambda: stream.status().state in ("lost", "retrying"))
        server.picture = noisy_picture
        until(lambda: stream.status().state == "live")
        assert stream.status().restarts == 1


def test_a_frozen_single_picture_is_withheld() -> None:
    picture = noisy_picture(1.0)
    with serving(lambda _: picture) as server:
        url = f"http://{server.host}/snapshot.jpg"
        with camera(url, lost_after_s=0.5, frozen_after_s=0.6) as stream:
            frames(stream, 1)
            until(lambda: stream.status().state == "lost")
            assert "has not changed" in stream.status().detail


@pytest.mark.parametrize("path", ["guarded", "guarded.jpg"])
def test_name_and_password_of_the_url_are_used(path: str) -> None:
    with serving() as server:
        with camera(f"http://me:pass%20word@{server.host}/{path}") as stream:
            frames(stream, 3)
        with camera(f"http://me:guess@{server.host}/{path}?token=guess") as stream:
            until(lambda: stream.status().state == "lost")
            detail = stream.status().detail
    assert f"http://…@{server.host}/{path}?token=…: answers 401 Unauthorized" in detail
    assert "NAME:PASSWORD@HOST" in detail
    assert "guess" not in detail


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("page", "answers 200 with text/html, a web page"),
        ("notes", "answers 200 with text/plain"),
        ("empty", "answers 200 with video/mp4"),
        ("away", "answers 503 Service Unavailable"),
        ("forbidden", "answers 403 Forbidden"),
        ("nowhere", "answers 404 Not Found; check the path"),
    ],
)
def test_what_an_address_gives_is_said_exactly(path: str, said: str) -> None:
    with serving() as server, camera(f"http://{server.host}/{path}") as stream:
        until(lambda: stream.status().state == "lost")
        assert stream.status().detail.startswith(f"http://{server.host}/{path}: {said}")


def test_nobody_there() -> None:
    with camera("http://127.0.0.1:9/") as stream:
        until(lambda: stream.status().state == "lost")
        assert "does not answer" in stream.status().detail
        assert "refused" in stream.status().detail
