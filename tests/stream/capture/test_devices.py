import json
from pathlib import Path

import numpy as np
import pytest

from stream.capture import microphone_driver
from stream.capture.devices import CameraInfo, DeviceList, linux_cameras, list_devices
from tests.stream.rigs import PipeMicrophone, SoundServer


@pytest.fixture
def sysfs(tmp_path: Path) -> tuple[Path, Path]:
    """A webcam with a metadata node, a capture card, a loopback whose node is missing."""
    names, nodes = tmp_path / "sys", tmp_path / "dev"
    nodes.mkdir()
    for node, name, index in [
        ("video0", "Integrated Camera: Integrated C", 0),
        ("video1", "Integrated Camera: Integrated C", 1),
        ("video10", "OBS Virtual Camera", 0),
        ("video2", "Cam Link 4K", 0),
    ]:
        (names / node).mkdir(parents=True)
        (names / node / "name").write_text(f"{name}\n")
        (names / node / "index").write_text(f"{index}\n")
        if node != "video10":
            (nodes / node).touch()
    (names / "video3").mkdir()  # vanishing
    return names, nodes


def test_linux_cameras_by_the_kernels_names(sysfs: tuple[Path, Path]) -> None:
    found = linux_cameras(*sysfs)
    assert [(camera.index, camera.name) for camera in found] == [
        (0, "Integrated Camera: Integrated C"),
        (2, "Cam Link 4K"),
        (10, "OBS Virtual Camera"),
    ]
    assert [bool(camera.problem) for camera in found] == [False, False, True]
    assert "video10" in found[2].problem


def test_camera_without_permission_says_so(
    sysfs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)
    assert "usermod -aG video" in linux_cameras(*sysfs)[0].problem


def test_host_without_cameras(tmp_path: Path) -> None:
    assert linux_cameras(tmp_path / "none", tmp_path) == []


def test_microphones_include_monitors_and_the_default(
    sound_server: SoundServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in sound_server.environment.items():
        monkeypatch.setenv(name, value)
    microphone_driver.rescan()
    number = sound_server.null_sink("speaker", rate_hz=32000)
    try:
        with PipeMicrophone(sound_server, lambda i: np.zeros(len(i), np.float32), name="desk"):
            found = list_devices()
    finally:
        sound_server.unload(number)
    by_option = {microphone.option: microphone for microphone in found.microphones}
    monitor, desk = by_option["pulse:speaker.monitor"], by_option["pulse:desk"]
    assert (monitor.is_monitor, monitor.is_default) == (True, False)
    assert (monitor.channels, monitor.rate_hz) == (2, 32000)
    assert (desk.is_monitor, desk.is_default) == (False, True)
    assert (desk.channels, desk.rate_hz) == (1, 48000)
    assert "ALSA" in {microphone.api for microphone in found.microphones}
    assert found.problems == ()
    text = found.as_text()
    assert "* pulse:desk" in text
    assert "what a speaker plays" in text


def test_listing_is_plain_json_and_readable_text() -> None:
    devices = DeviceList(
        cameras=(
            CameraInfo(index=0, name="Integrated Camera", is_default=True),
            CameraInfo(index=2, name="Cam Link", problem="no permission for /dev/video2"),
        ),
        microphones=(),
        problems=("microphone: PortAudio cannot be loaded",),
    )
    assert json.loads(json.dumps(devices.as_dict()))["cameras"][1]["index"] == 2
    assert devices.as_text().splitlines() == [
        "Cameras (--video):",
        "  * 0  Integrated Camera",
        "    2  Cam Link",
        "      no permission for /dev/video2",
        "Microphones (--audio):",
        "    none found",
        "microphone: PortAudio cannot be loaded",
    ]
    assert "--video rtsp://" in DeviceList(cameras=(), microphones=()).as_text()
