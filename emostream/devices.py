"""The torch device that a user named, or a line that says why it cannot be used."""

import torch

from emostream.errors import ConfigError


def resolve_device(name: str | None = None) -> torch.device:
    """A device that tensors can be put on.

    Args:
        name: As torch writes it, such as `cpu`, `cuda`, `cuda:1` or `mps`; None is a CUDA GPU if there is one, else
            the CPU.

    Raises:
        ConfigError: There is no such device, or this torch cannot use it.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = parse_device(name)
    if device.type == "cuda":
        # Counted without a context, which would hold memory of the GPU even where another process is to use it.
        problem = "finds no CUDA GPU here" if not torch.cuda.is_available() else ""
        if not problem and (device.index or 0) >= torch.cuda.device_count():
            problem = f"finds {torch.cuda.device_count()} CUDA GPUs here, counted from 0"
    else:
        problem = "" if _holds_tensors(device) else f"cannot use {device.type} here"
    if problem:
        raise ConfigError(
            f"--device {name}: torch {torch.__version__} {problem}. Run `emostream doctor`, or use --device cpu."
        )
    return device


def parse_device(name: str) -> torch.device:
    """A device by its name, whether or not it can be used.

    Raises:
        ConfigError: It is no name of a device.
    """
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"--device {name}: {str(error).splitlines()[0]}") from error


def _holds_tensors(device: torch.device) -> bool:
    try:
        return torch.ones(1, device=device).cpu().item() == 1
    # Which one depends on what torch was built with: the kind is unknown, not compiled in, or without a driver.
    except (RuntimeError, AssertionError, NotImplementedError, ImportError):
        return False
