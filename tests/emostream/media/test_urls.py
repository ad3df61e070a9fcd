"""Reading URLs, from a real HTTP server on the loopback interface."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from emostream.errors import MediaError
from emostream.media import MediaReader, PcmChunk, TimedFrame, probe
from tests.media_factory import Audio, Video, numbered, read_number, write_media

JPEGS = 12
WAIT_S = 60.0


class Server(ThreadingHTTPServer):
    """Serves `files` by name; `/camera` is an MJPEG stream that pauses where the test says."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.jpegs: list[bytes] = []
        self.stalled = threading.Event()  # set when the camera has sent all but keeps the line open
        self.go_on = threading.Event()  # lets the camera end

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        if self.path == "/camera":
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            try:
                for jpeg in self.server.jpegs:
                    head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                    self.wfile.write(head.encode() + jpeg + b"\r\n")
                self.wfile.flush()
                self.server.stalled.set()
                self.server.go_on.wait(WAIT_S)
            except (BrokenPipeError, ConnectionResetError):
                return  # the reader hung up first
        elif (name := self.path.strip("/")) in self.server.files:
            data = self.server.files[name]
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            try:
                self.wfile.write(data)
            except (BrokenPipeError, ConnectionResetError):
                return
        else:
            self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        for number in range(JPEGS):
            picture = Video(
                codec="mjpeg",
                duration_s=0.04,
                picture=lambda n, t, size, number=number: numbered(number, t, size),
            )
            server.jpegs.append(write_media(tmp_path / f"{number}.jpg", picture).read_bytes())
        yield server
        server.go_on.set()
        server.shutdown()
        thread.join()


def test_a_file_by_http_is_read_as_from_disk(server: Server, tmp_path: Path) -> None:
    path = write_media(tmp_path / "clip.mkv", Video(), Audio())
    server.files["clip.mkv"] = path.read_bytes()
    with MediaReader(path) as reader:
        local = list(reader)
    with MediaReader(f"{server.url}/clip.mkv") as reader:
        remote = list(reader)
    assert len(remote) == len(local)
    for a, b in zip(remote, local, strict=True):
        if isinstance(a, TimedFrame) and isinstance(b, TimedFrame):
            assert a.time_s == b.time_s
            assert (a.rgb == b.rgb).all()
        else:
            assert isinstance(a, PcmChunk)
            assert isinstance(b, PcmChunk)
            assert a.start_s == b.start_s
            assert (a.pcm == b.pcm).all()


def test_a_stream_that_turns_up_late_does_no_harm(server: Server, tmp_path: Path) -> None:
    """PyAV fails on it at the end."""
    silent = write_media(tmp_path / "silent.ts", Video())
    spoken = write_media(tmp_path / "spoken.ts", Video(start_s=3.0), Audio(start_s=3.0))
    server.files["joined.ts"] = silent.read_bytes() + spoken.read_bytes()
    probing = {"probesize": "5000", "analyzeduration": "100000"}
    with MediaReader(f"{server.url}/joined.ts", options=probing) as reader:
        assert reader.info.audio is None
        frames = [event for event in reader if isinstance(event, TimedFrame)]
    assert [read_number(frame.rgb) for frame in frames] == [*range(50), *range(50)]


def test_mjpeg_frames_have_their_time_of_arrival(server: Server) -> None:
    """A stream without timestamps would otherwise run at a made-up 25 frames a second."""
    server.go_on.set()
    frames: list[TimedFrame] = []
    # A camera does not end: when it hangs up, that is a failure, told after its last frame.
    with (
        MediaReader(f"{server.url}/camera", need={"video"}) as reader,
        pytest.raises(MediaError, match="/camera: reading failed"),
    ):
        frames.extend(reader)
    assert [read_number(frame.rgb) for frame in frames] == list(range(JPEGS))
    times_s = [frame.time_s for frame in frames]
    assert times_s[0] == 0.0
    assert times_s == sorted(times_s)
    assert times_s[-1] != pytest.approx((JPEGS - 1) / 25, abs=1e-6)
    assert reader.stats.guessed_times == 0


def test_a_silent_server_is_an_error_after_what_it_sent(server: Server) -> None:
    with MediaReader(f"{server.url}/camera", read_timeout_s=1.0) as reader:
        frames: list[object] = []
        with pytest.raises(MediaError, match=r"/camera: no data for 1\.0 s"):
            frames.extend(iter(reader))  # keeps those that came before the error
        assert len(frames) >= JPEGS - 1  # the last ends where the next would begin


def test_interrupting_a_reader_that_waits_for_the_network(server: Server) -> None:
    with MediaReader(f"{server.url}/camera", read_timeout_s=2.0) as reader:
        got: list[object] = []
        reading = threading.Thread(target=lambda: got.extend(reader))
        reading.start()
        assert server.stalled.wait(WAIT_S)
        reader.interrupt()
        reading.join(WAIT_S)
        assert not reading.is_alive()
        assert reader.interrupted


def test_closing_from_another_thread_waits_for_the_read_under_way(server: Server) -> None:
    reader = MediaReader(f"{server.url}/camera", read_timeout_s=2.0)
    reading = threading.Thread(target=lambda: list(reader))
    reading.start()
    assert server.stalled.wait(WAIT_S)
    reader.close()
    reading.join(WAIT_S)
    assert not reading.is_alive()


def test_servers_that_refuse_are_named(server: Server) -> None:
    with pytest.raises(MediaError, match=r"/nothing: cannot be opened: .*404"):
        MediaReader(f"{server.url}/nothing")
    with pytest.raises(MediaError, match="cannot be opened: Connection refused"):
        probe("http://127.0.0.1:9/clip.mp4")
    with pytest.raises(MediaError, match="cannot be opened: Protocol not found"):
        MediaReader("gopherx://127.0.0.1/clip.mp4")


def test_a_server_that_never_answers_is_given_up(tmp_path: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/clip.mp4"
        with pytest.raises(MediaError, match=r"no answer within 0\.5 s"):
            MediaReader(url, open_timeout_s=0.5)
