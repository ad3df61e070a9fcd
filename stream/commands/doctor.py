"""`emostream doctor`: what of this installation works, what does not, and what to do about it."""

import json
import os
import re
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path

from emostream.checkpoint.shipped import SHIPPED
from emostream.errors import DeviceError
from emostream.people.weights import FACES, SPEECH
from stream.commands.doctor_environment import (
    Check,
    check_gpu,
    check_onnxruntime,
    check_opencv,
    check_packages,
    check_python,
    check_shadowing,
    check_zeromq,
)
from stream.pubsub.messages import DEFAULT_ENDPOINT

DEFAULT_ENGINES = Path("engines")


def checks(engines: Path | None = None) -> list[Check]:
    """Look at everything; takes some seconds, as torch is loaded to see the GPU.

    Args:
        engines: folder of exported encoders; by default `engines` if it exists.
    """
    looks: dict[str, Callable[[], Check]] = {
        "python": check_python,
        "shadowing": check_shadowing,
        "packages": check_packages,
        "opencv": check_opencv,
        "portaudio": check_portaudio,
        "cameras": check_cameras,
        "microphones": check_microphones,
        "gpu": check_gpu,
        "onnxruntime": check_onnxruntime,
        "zeromq": check_zeromq,
        "model": check_model,
        "engines": lambda: check_engines(engines),
        "port": check_port,
    }
    return [_look(name, look) for name, look in looks.items()]


def _look(name: str, look: Callable[[], Check]) -> Check:
    try:
        return look()
    except Exception as error:  # whatever it is, the other checks are still worth having
        detail = f"{type(error).__name__}: {error}"
        return Check(name=name, outcome="fail", detail=detail, remedy="please report this")


def report(as_json: bool = False, engines: Path | None = None) -> int:
    """Print every check; returns the exit code, 1 if any failed."""
    found = checks(engines)
    if as_json:
        sys.stdout.write(json.dumps([asdict(check) for check in found], indent=1) + "\n")
    else:
        sys.stdout.write(as_text(found) + "\n")
    return int(any(check.outcome == "fail" for check in found))


def as_text(found: Sequence[Check]) -> str:
    """For a person: a line for each check, and one for each remedy."""
    width = max(len(check.name) for check in found)
    lines = []
    for check in found:
        mark = {"ok": "ok  ", "warn": "warn", "fail": "FAIL"}[check.outcome]
        lines.append(f"{mark}  {check.name.ljust(width)}  {check.detail}")
        if check.remedy:
            lines.append(f"      {' ' * width}  → {check.remedy}")
    return "\n".join(lines)


def check_portaudio() -> Check:
    """The library that sounddevice needs and its Linux wheel does not bring."""
    from stream.capture.microphone_driver import load_portaudio

    try:
        version = load_portaudio().get_portaudio_version()[1]
    except DeviceError as error:
        return Check(
            name="portaudio",
            outcome="fail",
            detail=str(error),
            remedy="sudo apt install libportaudio2 (Debian, Ubuntu), brew install portaudio (macOS)",
        )
    return Check(name="portaudio", outcome="ok", detail=version.split(",")[0])


def check_cameras() -> Check:
    """Local cameras, and whether this user may use them."""
    from stream.capture.devices import cameras

    found = cameras()
    names = ", ".join(f"{camera.index} {camera.name}" for camera in found)
    usable = [camera for camera in found if not camera.problem]
    if not found:
        return Check(
            name="cameras",
            outcome="warn",
            detail="none",
            remedy="connect one, or watch a network camera (--video URL) or a file (--source FILE)",
        )
    if not usable:
        problem, _, remedy = found[0].problem.partition(": ")
        return Check(
            name="cameras", outcome="fail", detail=f"{names}; {problem}", remedy=remedy or problem
        )
    return Check(name="cameras", outcome="ok", detail=names)


def check_microphones() -> Check:
    """Inputs for sound."""
    from stream.capture.microphone_driver import inputs

    try:
        found = inputs()
    except DeviceError:
        found = []
    if not found:
        return Check(
            name="microphones",
            outcome="warn",
            detail="none",
            remedy="connect one; on Linux start the sound server, or join the group audio; "
            "see `emostream devices`",
        )
    names = [device.name + (" (default)" if device.is_default else "") for device in found]
    return Check(name="microphones", outcome="ok", detail=", ".join(names))


def check_model() -> Check:
    """The model and the clip that ship in the package."""
    assets = {
        **{f"the {name} model": folder / "config.json" for name, folder in SHIPPED.items()},
        "the face detector": files("emostream").joinpath("assets", "people", FACES.name),
        "the speech detector": files("emostream").joinpath("assets", "people", SPEECH.name),
        "the clip of `emostream demo`": files("stream").joinpath("assets", "demo.mp4"),
    }
    missing = [what for what, file in assets.items() if not file.is_file()]
    if missing:
        detail = f"missing: {' and '.join(missing)}"
        return Check(name="model", outcome="fail", detail=detail, remedy="install emostream again")
    return Check(name="model", outcome="ok", detail=f"{', '.join(assets)} are there")


def check_engines(folder: Path | None = None) -> Check:
    """Exported encoders: whether they are whole, and whether what runs them is here."""
    asked = folder is not None
    folder = folder or DEFAULT_ENGINES
    if not asked and not folder.is_dir():
        return Check(name="engines", outcome="ok", detail="none; torch runs the encoders")
    from export.environment import import_onnxruntime
    from export.errors import ExportError
    from export.manifest import Manifest

    try:
        manifest = Manifest.read(folder)
        if manifest.backend == "tensorrt":
            from export.tensorrt.probe import probe

            probe()
        else:
            import_onnxruntime()
    except ExportError as error:
        detail, _, remedy = str(error).partition(" Rebuild: ")
        remedy = remedy or f"emostream-export build CKPT --out {folder}"
        return Check(name="engines", outcome="fail", detail=detail, remedy=remedy)
    detail = (
        f"{folder}: {manifest.checkpoint}, {'+'.join(manifest.precisions)} for {manifest.backend}"
    )
    return Check(name="engines", outcome="ok", detail=detail)


def check_port(endpoint: str = DEFAULT_ENDPOINT) -> Check:
    """Whether the default endpoint can be bound."""
    found = re.fullmatch(r"tcp://([\d.]+):(\d+)", endpoint)
    assert found, f"not an endpoint of IPv4 and a port: {endpoint}"
    with socket.socket() as probe:
        if os.name == "posix":  # as libzmq does: a port in TIME_WAIT is free
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((found[1], int(found[2])))
        except OSError as error:
            return Check(
                name="port",
                outcome="warn",
                detail=f"{endpoint}: {error.strerror}",
                remedy="another `emostream run` may be up; stop it, or choose a port: --bind "
                "tcp://127.0.0.1:5557",
            )
    return Check(name="port", outcome="ok", detail=f"{endpoint} is free")
