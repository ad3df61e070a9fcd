"""A person's baseline in a file: safetensors, with what everybody's statistics were to the tower that heard him."""

import os
from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from emostream.errors import ConfigError
from emostream.people.voice_baseline import VoiceBaseline

FORMAT: Final = "emostream voice baseline 1"
_NAMES: Final = ("mean", "variance", "everybody_mean", "everybody_std")
#: Statistics of everybody, in their standard deviations, that may differ by the rounding of a tower's weights.
_SAME: Final = 0.05


def load_baseline(path: str | Path, mean: Tensor, std: Tensor) -> VoiceBaseline:
    """What a file knows of a person; an empty baseline if there is no such file yet.

    Args:
        path: The file.
        mean: (D,) everybody's, to the tower that is to go on from it.
        std: (D,) everybody's standard deviation, likewise.

    Raises:
        ConfigError: It is no such file or of another tower, or its folder is missing, so that it could not be saved.
    """
    path, baseline = Path(path), VoiceBaseline()
    if not path.parent.is_dir():
        raise ConfigError(f"--baseline {path}: there is no folder {path.parent}; make it first.")
    if not path.exists():
        return baseline
    try:
        with safe_open(str(path), "pt") as file:
            about = file.metadata() or {}
            found = {name: file.get_tensor(name) for name in _NAMES}
        if about.get("format") != FORMAT:
            raise KeyError("format")
        heard_s = float(about["heard_s"])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise ConfigError(
            f"--baseline {path}: wanted a baseline that emostream saved, found something else ({error}). Name another "
            "file, or one that is not there yet."
        ) from error
    mean, std = mean.detach().float().cpu(), std.detach().float().cpu()
    theirs, spread = found["everybody_mean"], found["everybody_std"]
    if theirs.shape != mean.shape or not (
        ((theirs - mean).abs() <= _SAME * std).all() and ((spread - std).abs() <= _SAME * std).all()
    ):
        raise ConfigError(
            f"--baseline {path} was heard by another model's audio tower, to whom voices sound different. Name another "
            "file for this model."
        )
    baseline.add(found["mean"], found["variance"], heard_s)
    return baseline


def save_baseline(path: str | Path, baseline: VoiceBaseline, mean: Tensor, std: Tensor) -> None:
    """Write a baseline that has heard something, in one step, readable by its owner alone.

    Args:
        path: The file; one that is there is replaced.
        baseline: Whose.
        mean: (D,) everybody's, to the tower that heard it.
        std: (D,) everybody's standard deviation, likewise.

    Raises:
        ConfigError: It cannot be written.
    """
    if not baseline.heard_s:
        return
    values = (baseline.mean, baseline.variance, mean, std)
    tensors = {
        name: value.detach().to("cpu", torch.float32).contiguous()
        for name, value in zip(_NAMES, values, strict=True)
    }
    data = save(tensors, {"format": FORMAT, "heard_s": repr(baseline.heard_s)})
    path = Path(path)
    part = path.with_name(f".{path.name}.part")
    try:
        part.unlink(missing_ok=True)
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
        part.replace(path)
    except OSError as error:
        raise ConfigError(f"--baseline {path}: cannot be written: {error.strerror}.") from error
