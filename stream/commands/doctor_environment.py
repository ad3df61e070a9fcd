"""What `emostream doctor` finds out about the software: interpreter, packages, GPU."""

import platform
import shutil
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from emostream.shadowing import describe, shadowed_packages

Outcome = Literal["ok", "warn", "fail"]

OPENCV = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)
RUNTIMES = ("onnxruntime", "onnxruntime-gpu")


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: what.
        outcome: `fail` keeps `emostream run` from working, `warn` limits it.
        detail: what was found.
        remedy: what to do; empty when ok.
    """

    name: str
    outcome: Outcome
    detail: str
    remedy: str = ""


def check_python() -> Check:
    """The interpreter, by what the package demands."""
    found = f"{platform.python_version()} on {platform.platform(terse=True)}"
    if (3, 11) <= sys.version_info[:2] <= (3, 13):
        return Check(name="python", outcome="ok", detail=found)
    return Check(
        name="python",
        outcome="fail",
        detail=found,
        remedy="use Python 3.11, 3.12 or 3.13 in a new virtual environment",
    )


def check_shadowing() -> Check:
    """Whether our packages are found, and not others of their names."""
    if shadowed := shadowed_packages():
        return Check(
            name="shadowing",
            outcome="fail",
            detail=", ".join(f"`{name}` is {place}" for name, place in shadowed.items()),
            remedy=describe(shadowed).split(". ", 1)[1],
        )
    return Check(name="shadowing", outcome="ok", detail="our packages are found where they belong")


def check_packages() -> Check:
    """Versions of what we depend on, against what our own metadata demands."""
    from packaging.requirements import Requirement

    try:
        wanted = [Requirement(line) for line in metadata.requires("emostream") or ()]
    except metadata.PackageNotFoundError:
        return Check(
            name="packages",
            outcome="fail",
            detail="emostream is not installed, only on Python's path",
            remedy="run `pip install -e .` in its folder",
        )
    wanted = [need for need in wanted if need.marker is None or need.marker.evaluate()]
    versions = {need.name: _version(need.name) for need in wanted}
    wrong = [
        f"{need.name} {versions[need.name] or 'missing'} (wanted {need.specifier})"
        for need in wanted
        if not need.specifier.contains(versions[need.name] or "0", prereleases=True)
    ]
    if wrong:
        needs = " ".join(f"'{need}'" for need in wanted if _is_named(need.name, wrong))
        return Check(
            name="packages",
            outcome="fail",
            detail=", ".join(wrong),
            remedy=f"pip install {needs}",
        )
    shown = ("torch", "transformers", "av", "opencv-python", "sounddevice", "pyzmq")
    detail = ", ".join(f"{name} {versions[name]}" for name in shown if name in versions)
    return Check(name="packages", outcome="ok", detail=detail)


def _is_named(name: str, wrong: list[str]) -> bool:
    return any(text.split()[0] == name for text in wrong)


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def check_opencv() -> Check:
    """One OpenCV, and one that can be loaded: its wheels overwrite each other's files."""
    installed = [name for name in OPENCV if _version(name)]
    if len(installed) > 1:
        return Check(
            name="opencv",
            outcome="fail",
            detail=f"{' and '.join(installed)} are installed over one another",
            remedy=f"pip uninstall -y {' '.join(installed)} && pip install opencv-python",
        )
    try:
        import cv2
    except ImportError as error:
        return Check(
            name="opencv",
            outcome="fail",
            detail=str(error),
            remedy="sudo apt install libgl1 libglib2.0-0, or pip install opencv-python",
        )
    names = [cv2.videoio_registry.getBackendName(b) for b in cv2.videoio_registry.getBackends()]
    return Check(
        name="opencv",
        outcome="ok",
        detail=f"{cv2.__version__}, reads cameras by {', '.join(dict.fromkeys(names))}",
    )


def check_gpu() -> Check:
    """Whether torch can use the GPU, if there is one."""
    try:
        import torch
    except ImportError as error:
        return Check(
            name="gpu",
            outcome="fail",
            detail=f"torch cannot be loaded: {error}",
            remedy="pip install --force-reinstall torch",
        )
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        detail = f"{', '.join(names)}, CUDA {torch.version.cuda}"
        return Check(name="gpu", outcome="ok", detail=detail)
    if shutil.which("nvidia-smi") is None and not Path("/proc/driver/nvidia").exists():
        detail = "none; the models that ship need none, published checkpoints are slow without"
        return Check(name="gpu", outcome="ok", detail=detail)
    return Check(
        name="gpu",
        outcome="warn",
        detail=f"an NVIDIA driver is installed, but torch {torch.__version__} cannot use it",
        remedy="run nvidia-smi; if it works, install a CUDA build of torch from pytorch.org",
    )


def check_onnxruntime() -> Check:
    """One ONNX Runtime: the two distributions overwrite each other, and the last one wins."""
    found = {name: version for name in RUNTIMES if (version := _version(name))}
    if len(found) > 1:
        return Check(
            name="onnxruntime",
            outcome="fail",
            detail=" and ".join(f"{name} {version}" for name, version in found.items())
            + " are installed over one another",
            remedy="pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'emostream[gpu]' "
            "(or [onnx] without a GPU)",
        )
    if not found:
        return Check(name="onnxruntime", outcome="ok", detail="not installed; torch runs the model")
    [(name, version)] = found.items()
    try:
        import onnxruntime
    except ImportError as error:
        return Check(
            name="onnxruntime",
            outcome="fail",
            detail=f"{name} {version} cannot be loaded: {error}",
            remedy=f"pip install --force-reinstall {name}",
        )
    providers = onnxruntime.get_available_providers()
    detail = f"{name} {version}: {', '.join(providers)}"
    if name == "onnxruntime-gpu" and "CUDAExecutionProvider" not in providers:
        return Check(
            name="onnxruntime",
            outcome="warn",
            detail=f"{detail}; it would run on the CPU",
            remedy="pip install --force-reinstall 'onnxruntime-gpu[cuda,cudnn]'",
        )
    return Check(name="onnxruntime", outcome="ok", detail=detail)


def check_zeromq() -> Check:
    """Whether libzmq can encrypt, for subscribers and capture on other hosts."""
    import zmq

    detail = f"ZeroMQ {zmq.zmq_version()}"
    if zmq.has("curve"):
        return Check(name="zeromq", outcome="ok", detail=f"{detail} with CURVE")
    return Check(
        name="zeromq",
        outcome="warn",
        detail=f"{detail} without CURVE: other hosts can be served with --insecure only",
        remedy="pip install --force-reinstall --only-binary :all: pyzmq",
    )
