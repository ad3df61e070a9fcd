"""Whether this host can build and run TensorRT engines, found out in an order that never crashes.

Without a driver TensorRT makes objects that bring the process down later, so that the driver is asked first, by its own
library, and TensorRT is imported only when a GPU has answered.
"""

import ctypes
import sys
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Final

from export.errors import ExportError

PACKAGE = "tensorrt-cu13"
MAJOR = 11
LEAST_CUDA: Final = 13000  # of the driver, as it counts: 1000 * major + 10 * minor
INSTALL = "Install it: pip install 'emostream[tensorrt]'"
WITHOUT = "Use the ONNX Runtime backend, or a host with an NVIDIA GPU."

# Of cuda.h.
CUDA_ERRORS: Final = {
    35: "the driver is older than its library",
    100: "no GPU is visible",
    101: "there is no GPU of this number",
    802: "the GPUs' fabric is not up yet",
    803: "the driver's library and the kernel module are of different versions",
    804: "the driver's library is for another kind of GPU",
    999: "the driver does not say why",
}
CAPABILITY_MAJOR, CAPABILITY_MINOR = 75, 76


@dataclass(frozen=True, kw_only=True, slots=True)
class Gpu:
    """What a plan is tied to.

    Attributes:
        name: As the driver says it.
        compute_capability: For instance `9.0`.
        cuda: That the driver supports, for instance `13.0`.
    """

    name: str
    compute_capability: str
    cuda: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Host:
    """A GPU and the TensorRT that runs on it.

    Attributes:
        gpu: The GPU.
        tensorrt: The module.
    """

    gpu: Gpu
    tensorrt: Any

    @property
    def version(self) -> str:
        """Of TensorRT, in full."""
        return str(self.tensorrt.__version__)


def probe(device_index: int = 0) -> Host:
    """The GPU and TensorRT of this host.

    Args:
        device_index: Of the GPU.

    Raises:
        ExportError: There is no driver, no GPU or no TensorRT, or one is too old for another.
    """
    gpu = probe_gpu(device_index)
    return Host(gpu=gpu, tensorrt=import_tensorrt())


def probe_gpu(device_index: int = 0) -> Gpu:
    """The GPU, by the driver's own library.

    Raises:
        ExportError: There is no driver or no GPU, or the driver is too old.
    """
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(name)
    except OSError as error:
        raise ExportError(
            f"tensorrt: wanted an NVIDIA driver, found none ({name} cannot be loaded). {WITHOUT}"
        ) from error
    _call(driver, "cuInit", 0)
    version, count, device = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    _call(driver, "cuDriverGetVersion", ctypes.byref(version))
    if version.value < LEAST_CUDA:
        raise ExportError(
            f"tensorrt: the driver supports CUDA {_cuda(version.value)}, TensorRT {MAJOR} wants {_cuda(LEAST_CUDA)} or "
            "later. Update the NVIDIA driver to 580 or later."
        )
    _call(driver, "cuDeviceGetCount", ctypes.byref(count))
    if device_index >= count.value:
        raise ExportError(
            f"tensorrt: wanted GPU {device_index}, found {count.value or 'no'} GPU{'s' if count.value > 1 else ''}. "
            f"Choose another with --device cuda:N (see nvidia-smi -L; CUDA_VISIBLE_DEVICES hides GPUs). {WITHOUT}"
        )
    _call(driver, "cuDeviceGet", ctypes.byref(device), device_index)
    title = ctypes.create_string_buffer(256)
    _call(driver, "cuDeviceGetName", title, len(title), device)
    capability = []
    for attribute in (CAPABILITY_MAJOR, CAPABILITY_MINOR):
        value = ctypes.c_int()
        _call(driver, "cuDeviceGetAttribute", ctypes.byref(value), attribute, device)
        capability.append(str(value.value))
    return Gpu(
        name=title.value.decode(),
        compute_capability=".".join(capability),
        cuda=_cuda(version.value),
    )


def import_tensorrt() -> Any:
    """The tensorrt module.

    Raises:
        ExportError: It is not installed, cannot be loaded, or has another major version.
    """
    try:
        import tensorrt
    except ModuleNotFoundError as error:
        raise ExportError(f"tensorrt: {error.name} is not installed. {INSTALL}") from error
    except (ImportError, OSError) as error:
        raise ExportError(
            f"tensorrt: {PACKAGE} {_installed()} cannot be loaded: {_first_line(error)}. Remedy: pip install "
            f"--force-reinstall '{PACKAGE}>={MAJOR},<{MAJOR + 1}'"
        ) from error
    if int(tensorrt.__version__.split(".")[0]) != MAJOR:
        raise ExportError(
            f"tensorrt: wanted version {MAJOR}, found {tensorrt.__version__}. Remedy: pip install "
            f"'{PACKAGE}>={MAJOR},<{MAJOR + 1}'"
        )
    return tensorrt


def _call(driver: ctypes.CDLL, function: str, *arguments: Any) -> None:
    code = getattr(driver, function)(*arguments)
    if code:
        reason = CUDA_ERRORS.get(code, "see nvidia-smi")
        raise ExportError(
            f"tensorrt: the NVIDIA driver refuses {function}: error {code}, {reason}. {WITHOUT}"
        )


def _cuda(version: int) -> str:
    return f"{version // 1000}.{version % 1000 // 10}"


def _installed() -> str:
    try:
        return metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        return "(of unknown version)"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
