"""What tests need of the system beyond Python, and the Debian packages that bring it.

`python -m tests.system_packages` says which packages would add which tests here; nothing is installed.
"""

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from emostream.errors import DeviceError


@dataclass(frozen=True, kw_only=True, slots=True)
class SystemPackage:
    """Something that only the system's package manager brings.

    Attributes:
        packages: As apt-get takes them.
        tests: What is tested only with it.
        lacks: Says what this host lacks of it; empty if nothing.
    """

    packages: str
    tests: str
    lacks: Callable[[], str]

    @property
    def missing(self) -> str | None:
        """Why tests that need it are skipped, with the packages that would add them; None if it is there."""
        lacks = self.lacks()
        return f"{lacks} (apt-get install {self.packages})" if lacks else None

    def skip_if_missing(self) -> None:
        """Skip the test that calls this where the system lacks it."""
        if reason := self.missing:
            pytest.skip(reason)


@cache
def _portaudio() -> str:
    from stream.capture.microphone_driver import load_portaudio

    try:
        load_portaudio()
    except DeviceError:
        return "no PortAudio"
    return ""


@cache
def _sound_server() -> str:
    if lacks := _portaudio():
        return lacks
    for program in ("pulseaudio", "pactl", "pacat"):
        if shutil.which(program) is None:
            return f"no {program}"
    plugins = [*Path("/usr/lib").glob("*/alsa-lib/libasound_module_pcm_pulse.so")]
    return "" if plugins else "no ALSA plugin for PulseAudio"


@cache
def _rtsp_server() -> str:
    script = (
        "import gi; gi.require_version('Gst', '1.0');"
        "gi.require_version('GstRtspServer', '1.0');"
        "from gi.repository import Gst, GstRtspServer; Gst.init(None);"
        "names = ('openh264enc', 'h264parse', 'rtph264pay');"
        "print(*(n for n in names if not Gst.ElementFactory.find(n)))"
    )
    if shutil.which("/usr/bin/python3") is None:
        return "no /usr/bin/python3"
    done = subprocess.run(["/usr/bin/python3", "-c", script], capture_output=True, text=True)
    if done.returncode:
        return "no GStreamer RTSP server"
    return f"no GStreamer {done.stdout.strip()}" if done.stdout.strip() else ""


@cache
def _node() -> str:
    missing = [program for program in ("node", "npm") if shutil.which(program) is None]
    return f"no {' and '.join(missing)}" if missing else ""


@cache
def _chromium() -> str:
    return "" if shutil.which("chromium") else "no chromium"


PORTAUDIO = SystemPackage(
    packages="libportaudio2", tests="finding and opening sound inputs", lacks=_portaudio
)
SOUND_SERVER = SystemPackage(
    packages="libportaudio2 pulseaudio pulseaudio-utils libasound2-plugins",
    tests="microphones, by a PulseAudio server of the tests' own",
    lacks=_sound_server,
)
RTSP_SERVER = SystemPackage(
    packages="gir1.2-gst-rtsp-server-1.0 python3-gi gstreamer1.0-plugins-base gstreamer1.0-plugins-good "
    "gstreamer1.0-plugins-bad",
    tests="RTSP cameras, by GStreamer's server",
    lacks=_rtsp_server,
)
NODE = SystemPackage(packages="nodejs npm", tests="the JavaScript subscriber", lacks=_node)
CHROMIUM = SystemPackage(packages="chromium", tests="the page, in a browser", lacks=_chromium)
ALL = (PORTAUDIO, SOUND_SERVER, RTSP_SERVER, NODE, CHROMIUM)


def main() -> None:
    """Say what would add which tests."""
    missing = [package for package in ALL if package.missing]
    if missing:
        print("Some tests will be skipped. Debian packages that would add them:")  # noqa: T201
    for package in missing:
        print(f"  {package.tests}: apt-get install {package.packages}")  # noqa: T201


if __name__ == "__main__":
    main()
