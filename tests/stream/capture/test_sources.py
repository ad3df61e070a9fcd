"""Sources as the command line names them."""

import os
from pathlib import Path

import pytest

from emostream.errors import ConfigError
from stream.capture.camera import CameraConfig
from stream.capture.sources import MediaSource, parse_sources
from stream.serve.run import captures


@pytest.mark.parametrize(
    ("on_disk", "given", "name"),
    [
        (b"clip.mp4", b"left=clip.mp4", "left"),
        (b"take=2.mp4", b"take=2.mp4", "take-2"),
        (b"take=2.mp4", b"left=take=2.mp4", "left"),
        (b"b\xe4r.mp4", b"b\xe4r.mp4", "b-r"),
        ("ba\u0308r.mp4".encode(), "b\u00e4r.mp4".encode(), "b-r"),
    ],
)
def test_a_file_is_found_whatever_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_disk: bytes, given: bytes, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(os.fsdecode(on_disk)).touch()
    [source] = parse_sources([os.fsdecode(given)], None, None, "cam0", 2)
    assert isinstance(source, MediaSource)
    assert (source.name, source.audio_track) == (name, 2)


def test_a_file_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"take=2\.mp4: there is no such file"):
        parse_sources(["take=2.mp4"], None, None, "cam0")


def test_how_long_a_camera_may_stand_still_is_the_users_to_say() -> None:
    for given, expected in ((None, []), (0.0, ["--frozen-after-s", "0.0"])):
        [source] = parse_sources([], "2", "none", "cam0", frozen_after_s=given)
        [camera] = captures(source)
        assert camera.arguments == ["--video", "2", *expected]
    assert CameraConfig().frozen_after_s == 5  # as the help says
    with pytest.raises(ConfigError, match="--frozen-after-s -1: wanted seconds"):
        parse_sources([], "2", "none", "cam0", frozen_after_s=-1)
