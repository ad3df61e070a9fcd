"""Cameras and microphones of this host, by name."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from emostream.errors import DeviceError
from stream.capture.microphone_driver import SoundInput, inputs

V4L2_NAMES = Path("/sys/class/video4linux")
LISTING_TIMEOUT_S = 15.0  # Windows' and macOS' listings take seconds


@dataclass(frozen=True, kw_only=True, slots=True)
class CameraInfo:
    """One local camera.

    Attributes:
        index: what `--video` takes.
        name: as the system calls it.
        problem: why it cannot be used and what to do; empty if it can, as far as can be told without opening it.
        is_default: whether it is used when none is chosen.
    """

    index: int
    name: str
    problem: str = ""
    is_default: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceList:
    """What this host can capture from.

    Attributes:
        cameras: in the order of their index.
        microphones: PortAudio's inputs, and the sources of a PulseAudio or PipeWire server.
        problems: what kept devices from being listed.
    """

    cameras: tuple[CameraInfo, ...]
    microphones: tuple[SoundInput, ...]
    problems: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For `--json`: plain lists of objects."""
        return asdict(self)

    def as_text(self) -> str:
        """For a person: what to pass, and what it is; a star marks the default."""
        lines = ["Cameras (--video):"]
        for camera in self.cameras:
            lines.append(_line(str(camera.index), camera.name, camera.is_default))
            if camera.problem:
                lines.append(f"      {camera.problem}")
        if not self.cameras:
            lines.append("    none found; a network camera is chosen by its URL: --video rtsp://…")
        lines.append("Microphones (--audio):")
        width = max((len(microphone.option) for microphone in self.microphones), default=0)
        for microphone in self.microphones:
            kind = f"{microphone.api}, {microphone.channels} ch, {microphone.rate_hz} Hz"
            if microphone.is_monitor:
                kind += ", what a speaker plays"
            text = f"{microphone.name} ({kind})"
            lines.append(_line(microphone.option.ljust(width), text, microphone.is_default))
        if not self.microphones:
            lines.append("    none found")
        return "\n".join([*lines, *self.problems])


def _line(option: str, text: str, is_default: bool) -> str:
    return f"  {'*' if is_default else ' '} {option}  {text}"


def list_devices() -> DeviceList:
    """Cameras and microphones that are connected now; nothing is opened.

    On Linux cameras come from sysfs, complete and in OpenCV's order. macOS and Windows have no listing that is numbered
    as OpenCV numbers; the system's own order is used, which agrees unless cameras were connected in the meantime.
    """
    problems: tuple[str, ...] = ()
    try:
        microphones = tuple(inputs())
    except DeviceError as error:
        microphones, problems = (), (str(error),)
    return DeviceList(cameras=tuple(cameras()), microphones=microphones, problems=problems)


def cameras() -> list[CameraInfo]:
    """Local cameras; the first that can be used is the default."""
    if sys.platform == "linux":
        found = linux_cameras()
    elif sys.platform == "darwin":
        found = _named(_macos_names())
    elif sys.platform == "win32":
        found = _named(_windows_names())
    else:
        found = []
    usable = [camera.index for camera in found if not camera.problem]
    return [
        CameraInfo(
            index=camera.index,
            name=camera.name,
            problem=camera.problem,
            is_default=camera.index in usable[:1],
        )
        for camera in found
    ]


def linux_cameras(names: Path = V4L2_NAMES, nodes: Path = Path("/dev")) -> list[CameraInfo]:
    """Cameras by the kernel's names, one for each device: further nodes of it carry metadata.

    Args:
        names: sysfs folder with an entry `videoN` for each node, holding files `name` and `index`.
        nodes: folder of the device nodes.
    """
    found = []
    for entry in sorted(names.glob("video[0-9]*"), key=lambda entry: int(entry.name[5:])):
        try:
            first_of_device = (entry / "index").read_text().strip() == "0"
            name = (entry / "name").read_text().strip()
        except OSError:
            continue  # it was disconnected meanwhile
        if first_of_device:
            node = nodes / entry.name
            found.append(
                CameraInfo(index=int(entry.name[5:]), name=name, problem=_node_problem(node))
            )
    return found


def _node_problem(node: Path) -> str:
    if not node.exists():
        return f"there is no {node}: this is a container or sandbox; let it have the device"
    if not os.access(node, os.R_OK | os.W_OK):
        return f"no permission for {node}: run `sudo usermod -aG video $USER` and log in again"
    return ""


def _named(names: list[str]) -> list[CameraInfo]:
    return [CameraInfo(index=index, name=name) for index, name in enumerate(names)]


def _macos_names() -> list[str]:
    listing = _json_of("system_profiler", "SPCameraDataType", "-json")
    entries = listing.get("SPCameraDataType", []) if isinstance(listing, dict) else []
    return [str(entry.get("_name", "camera")) for entry in entries]


def _windows_names() -> list[str]:
    query = (
        "@(Get-CimInstance Win32_PnPEntity | Where-Object { $_.PNPClass -in 'Camera', 'Image' } | "
        "ForEach-Object { $_.Name }) | ConvertTo-Json"
    )
    names = _json_of("powershell", "-NoProfile", "-Command", query)
    return [names] if isinstance(names, str) else [str(name) for name in names or []]


def _json_of(*command: str) -> Any:
    """What a program of the system prints as JSON, None if it fails."""
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=LISTING_TIMEOUT_S, check=True
        )
        return json.loads(done.stdout or "null")
    except (OSError, subprocess.SubprocessError, json.JSONDecodeError):
        return None
