"""What this host would build and run engines with: packages, GPU, driver, and what is wrong with them.

Manifests need some of it, and are read before torch is imported, which takes seconds.
"""

import platform
from importlib import metadata
from typing import TYPE_CHECKING, Any

from export.errors import ExportError

if TYPE_CHECKING:
    import torch

PACKAGES = (
    "torch",
    "transformers",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "onnxruntime-gpu",
    "tensorrt-cu13",
)
RUNTIMES = ("onnxruntime", "onnxruntime-gpu")


def installed_versions() -> dict[str, str]:
    """Versions of the packages that matter, those that are installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """CPU, and the GPU with its driver and compute capability, None without one."""
    import torch

    gpu = None
    if torch.cuda.is_available():
        major, minor = torch.cuda.get_device_capability()
        gpu = {
            "name": torch.cuda.get_device_name(),
            "compute_capability": f"{major}.{minor}",
            "driver": _driver(),
            "cuda": torch.version.cuda,
        }
    return {
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "cpu": _cpu(),
        "gpu": gpu,
    }


def environment_rows() -> list[tuple[str, str]]:
    """For a table that a person reads."""
    found = machine()
    gpu = found["gpu"]
    rows = [("system", f"{found['system']}, Python {found['python']}"), ("cpu", found["cpu"])]
    rows.append(
        (
            "gpu",
            "none"
            if gpu is None
            else f"{gpu['name']}, sm_{gpu['compute_capability'].replace('.', '')}, driver {gpu['driver']}, "
            f"CUDA {gpu['cuda']}",
        )
    )
    return rows + list(installed_versions().items())


def engine_device(named: str | None, target: str, precision: str) -> "torch.device":
    """Where engines and torch run: where the user says, else the GPU if the runtime can use it.

    Raises:
        ConfigError: This torch cannot use the device that the user named.
    """
    from emostream.devices import resolve_device

    return resolve_device(named or _default_device(target, precision))


def _default_device(target: str, precision: str) -> str:
    import torch

    if not torch.cuda.is_available() or precision == "int8":
        return "cpu"
    if target == "tensorrt":
        return "cuda"
    return (
        "cuda"
        if "CUDAExecutionProvider" in import_onnxruntime().get_available_providers()
        else "cpu"
    )


def import_onnxruntime() -> Any:
    """The onnxruntime module.

    Raises:
        ExportError: It is not installed, cannot be loaded, or two distributions of it lie over one another.
    """
    versions = installed_versions()
    found = [name for name in RUNTIMES if name in versions]
    if len(found) > 1:
        both = " and ".join(f"{name} {versions[name]}" for name in found)
        raise ExportError(
            f"onnxruntime: {both} are installed over one another, and the last one wins. "
            "Remedy: pip uninstall -y onnxruntime onnxruntime-gpu && pip install "
            "'emostream[gpu]' (or [onnx] without a GPU)"
        )
    try:
        import onnxruntime
    except ImportError as error:
        if not found:
            raise ExportError(
                "onnxruntime is not installed. Install it: pip install 'emostream[onnx]' (or [gpu] with a CUDA GPU)"
            ) from error
        raise ExportError(
            f"{found[0]} {versions[found[0]]} cannot be loaded: {error}. Remedy: pip install --force-reinstall "
            f"{found[0]}"
        ) from error
    return onnxruntime


def import_onnx() -> Any:
    """The onnx module, with onnxscript at hand for torch's exporter.

    Raises:
        ExportError: One of them is not installed.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ExportError(
            f"{error.name} is not installed, which exporting needs. Install it: pip install 'emostream[onnx]' (or "
            "[gpu], [tensorrt])"
        ) from error
    return onnx


def _driver() -> str:
    """Of the NVIDIA kernel module, as it says itself."""
    try:
        with open("/proc/driver/nvidia/version", encoding="utf-8") as file:
            words = file.readline().split()
    except OSError:
        return "unknown"
    return next((word for word in words if word[0].isdigit() and "." in word), "unknown")


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
