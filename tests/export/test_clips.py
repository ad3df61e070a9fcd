"""Windows of clips for `verify`."""

import pytest

from emostream.media import probe
from export.clips import stretches
from tests.media_factory import Audio, Video, write_media


def test_a_clip_whose_container_names_no_length_is_read_to_its_end(tmp_path):
    """As a browser's MediaRecorder writes WebM."""
    path = write_media(
        tmp_path / "recorded.webm",
        Video(duration_s=6.0, codec="libvpx-vp9"),
        Audio(duration_s=6.0, codec="libopus"),
        {"live": "1"},
    )
    assert probe(path).duration_s is None
    found = stretches(path, 64)
    assert [stretch.start_s for stretch in found] == [0.0, 1.0, 2.0]
    assert found[-1].end_s == pytest.approx(6.0, abs=0.05)
