"""A browser's camera and microphone, made of files, through WebRTC to the pipeline."""

import json
import threading
import urllib.error
import urllib.request
import wave
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
import pytest
from playwright.sync_api import Browser, expect

from stream.pubsub.messages import Label, Status
from stream.pubsub.publisher import Publisher
from stream.transport.protocol import FrameHeader, PcmHeader
from stream.transport.receiver import Receiver
from stream.web.config import WebConfig
from stream.web.serve import serving
from tests.stream.live_rig import live
from tests.stream.rigs import until
from tests.stream.web.test_server import get

PERIOD_S = 2.0  # a flash and a beep begin together every so often


@pytest.fixture(scope="module")
def fake_devices(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A camera that flashes and a microphone that beeps, at once, over and over."""
    folder = tmp_path_factory.mktemp("fake")
    video, sound = folder / "camera.mjpeg", folder / "microphone.wav"
    with av.open(str(video), "w", format="mjpeg") as out:
        stream = out.add_stream("mjpeg", rate=20)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuvj420p"
        for number in range(int(PERIOD_S * 20)):
            level = 250 if number < 6 else 10
            frame = av.VideoFrame.from_ndarray(np.full((240, 320, 3), level, np.uint8), "rgb24")
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    times_s = np.arange(int(PERIOD_S * 48000)) / 48000
    beep = np.where(times_s < 0.3, 0.5 * np.sin(2 * np.pi * 1000 * times_s), 0)
    with wave.open(str(sound), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(48000)
        out.writeframes((beep * 32767).astype("<i2").tobytes())
    return video, sound


@pytest.fixture
def visitor_browser(
    fake_devices: tuple[Path, Path], start_browser: Callable[..., Browser]
) -> Iterator[Browser]:
    video, sound = fake_devices
    browser = start_browser(
        "--autoplay-policy=no-user-gesture-required",
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-video-capture={video}",
        f"--use-file-for-fake-audio-capture={sound}",
    )
    yield browser
    browser.close()


# A camera and a microphone that flash and beep at once: files begin when Chromium likes, each by itself.
FLASH_AND_BEEP = """
navigator.mediaDevices.getUserMedia = async () => {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [320, 240];
  const pen = canvas.getContext("2d");
  const sound = new AudioContext();
  await sound.resume();
  const [tone, volume, out] = [sound.createOscillator(), sound.createGain(), sound.createMediaStreamDestination()];
  tone.frequency.value = 1000;
  volume.gain.value = 0;
  tone.connect(volume).connect(out);
  tone.start();
  let on = false;
  setInterval(() => {
    const now = performance.now() % 2000 < 300;
    if (now !== on) volume.gain.setValueAtTime(now ? 0.5 : 0, sound.currentTime);
    on = now;
    pen.fillStyle = on ? "#fff" : "#000";
    pen.fillRect(0, 0, 320, 240);
    pen.fillStyle = `rgb(${Math.random() * 20}, 0, 0)`;
    pen.fillRect(0, 0, 8, 8);
  }, 20);
  return new MediaStream([...canvas.captureStream(25).getTracks(), ...out.stream.getTracks()]);
};
"""


@contextmanager
def visiting(browser: Browser, link: str, script: str = "") -> Iterator:
    """A page whose visitor has pressed the button."""
    page = browser.new_context().new_page()
    page.add_init_script(script)
    page.goto(link)
    page.get_by_role("button", name="Use this camera").click()
    expect(page.get_by_role("button", name="Stop this camera")).to_be_visible(timeout=60_000)
    yield page
    page.context.close()


def test_a_visitor_is_recognised_and_leaves(visitor_browser: Browser, tmp_path: Path) -> None:
    quiet = ("--video", "none", "--audio", "none", "--reason-every-s", "0")
    with live(*quiet, "--web", "0") as running:
        link = running._said(r"page on (\S+)")
        with (
            visiting(visitor_browser, link) as first,
            visiting(visitor_browser, link),
        ):
            for source in ("visitor-1", "visitor-2"):
                running.until(
                    lambda e, source=source: (
                        isinstance(e, Label)
                        and e.source == source
                        and "missing" not in (e.modalities.video, e.modalities.audio)
                    )
                )
            expect(first.locator('[data-source="visitor-1"] .name')).not_to_be_empty()
            first.get_by_role("button", name="Stop this camera").click()
            gone = ("visitor-1", "stopped")
            running.until(lambda e: isinstance(e, Status) and (e.source, e.state) == gone)
        gone = ("visitor-2", "stopped")
        running.until(lambda e: isinstance(e, Status) and (e.source, e.state) == gone)
        running.send()
        assert running.wait() == 0


class Captured:
    """What reaches the inference process, received in a thread as there."""

    def __init__(self) -> None:
        self.receiver = Receiver(step_s=0.1)
        self.address = self.receiver.bind_local()
        self.flashes: list[float] = []
        self.beeps: list[float] = []
        self._over = False
        self._thread = threading.Thread(target=self._receive)

    def __enter__(self) -> "Captured":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        self._thread.join()
        self.receiver.close()

    def _receive(self) -> None:
        bright = loud = True
        self.receiver.start()
        while not self._over:
            for event in self.receiver.poll(50):
                match event.message:
                    case FrameHeader(time_s=time_s):
                        before, bright = bright, float(event.data.mean()) > 120
                        if bright and not before:
                            self.flashes.append(time_s)
                    case PcmHeader(start_s=start_s):
                        for at in range(0, len(event.data), 160):
                            peak = float(np.abs(event.data[at : at + 160]).max())
                            before, loud = loud, peak > 0.1
                            if loud and not before:
                                self.beeps.append(start_s + at / 16000)


@pytest.fixture
def captured() -> Iterator[Captured]:
    with Captured() as captured:
        yield captured


@pytest.fixture
def open_link(publisher: Publisher, captured: Captured) -> Iterator[str]:
    """A page that takes visitors."""
    with serving(WebConfig(connect=publisher.endpoint, port=0), captured.address) as link:
        yield link


def test_picture_and_sound_stay_together(
    visitor_browser: Browser, captured: Captured, open_link: str
) -> None:
    """Flash and beep begin within a grid step of the pipeline, half a second."""
    with visiting(visitor_browser, open_link, FLASH_AND_BEEP):
        until(lambda: len(captured.flashes) >= 4 and len(captured.beeps) >= 4)
        flashes, beeps = captured.flashes[1:], list(captured.beeps)
    apart_s = [min(abs(flash - beep) for beep in beeps) for flash in flashes]
    assert np.median(apart_s) < 0.5


KEEP_PEERS = """
window.peers = [];
const Peer = RTCPeerConnection;
window.RTCPeerConnection = class extends Peer {
  constructor(...given) {
    super(...given);
    window.peers.push(this);
  }
};
"""


def test_a_visitor_who_falls_silent_is_gone(
    visitor_browser: Browser, captured: Captured, open_link: str, monkeypatch
) -> None:
    """A connection may outlive what it was for: nothing comes, and nobody says that it is over."""
    monkeypatch.setattr("stream.web.visitors.SILENT_S", 3.0)

    def room() -> int:
        return json.loads(get(f"{open_link}visit")[2])["room"]

    with visiting(visitor_browser, open_link, FLASH_AND_BEEP + KEEP_PEERS) as page:
        until(lambda: len(captured.flashes) >= 3)
        assert room() == 3
        page.evaluate("peers.flatMap(p => p.getSenders()).forEach(s => s.replaceTrack(null))")
        until(lambda: room() == 4)
        again = page.get_by_role("button", name="Use this camera")
        expect(again).to_be_visible(timeout=60_000)


@pytest.mark.parametrize("sdp", ["", "garbage", "v=0\r\n", "\x00" * 70000])
def test_an_offer_that_is_none_is_refused_and_leaves_nobody(open_link: str, sdp: str) -> None:
    request = urllib.request.Request(
        f"{open_link}visit", data=sdp.encode(), headers={"Origin": open_link.rstrip("/")}
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=60)
    with refused.value as answer:
        assert answer.code in (409, 413)
        assert b"offer" in answer.read()
    assert json.loads(get(f"{open_link}visit")[2]) == {"room": 4}


def test_a_foreign_page_brings_no_camera(open_link: str) -> None:
    request = urllib.request.Request(
        f"{open_link}visit", data=b"v=0", headers={"Origin": "http://evil.example"}
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=60)
    with refused.value as answer:
        assert answer.code == 403


def test_one_too_many_is_told(
    visitor_browser: Browser, captured: Captured, publisher: Publisher, monkeypatch
) -> None:
    monkeypatch.setattr("stream.web.server.MAX_VISITORS", 1)
    with serving(WebConfig(connect=publisher.endpoint, port=0), captured.address) as link:
        second = visitor_browser.new_context().new_page()
        second.goto(link)
        button = second.get_by_role("button", name="Use this camera")
        expect(button).to_be_visible()
        with visiting(visitor_browser, link):
            button.click()
            expect(second.locator("#link-text")).to_contain_text("which is the limit")
        second.context.close()
