from collections.abc import Iterator

import pytest

from tests.stream.rigs import SoundServer
from tests.system_packages import RTSP_SERVER, SOUND_SERVER


@pytest.fixture(scope="session")
def sound_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoundServer]:
    """One PulseAudio daemon for the whole run; without it its tests are skipped."""
    SOUND_SERVER.skip_if_missing()
    with SoundServer(tmp_path_factory.mktemp("pulse")) as server:
        yield server


@pytest.fixture
def rtsp_available() -> None:
    """Skip without an RTSP server."""
    RTSP_SERVER.skip_if_missing()
