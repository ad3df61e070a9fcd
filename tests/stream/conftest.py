from collections.abc import Iterator

import pytest

from tests.stream.rigs import RtspCamera, SoundServer


@pytest.fixture(scope="session")
def sound_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoundServer]:
    """One PulseAudio daemon for the whole run; without PulseAudio its tests are skipped."""
    if reason := SoundServer.missing():
        pytest.skip(reason)
    with SoundServer(tmp_path_factory.mktemp("pulse")) as server:
        yield server


@pytest.fixture
def rtsp_available() -> None:
    """Skip without an RTSP server."""
    if reason := RtspCamera.missing():
        pytest.skip(reason)
