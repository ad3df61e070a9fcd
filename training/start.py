"""What training starts from: a checkpoint, or a preset with random weights."""

import torch

from emostream import load_model
from emostream.errors import ConfigError
from emostream.modeling import EmostreamForCausalLM
from emostream.presets import PRESETS, from_preset
from emostream.processor import EmostreamProcessor

PRESET = "preset:"


def open_start(name: str, dtype: torch.dtype) -> tuple[EmostreamForCausalLM, EmostreamProcessor]:
    """A model on the CPU and its processor.

    Args:
        name: Checkpoint folder, hub id or `tiny`; `preset:NAME` has random weights.
        dtype: Of the weights.

    Raises:
        ConfigError: There is no such preset.
        CheckpointError: There is no such checkpoint.
    """
    if not name.startswith(PRESET):
        return load_model(name, dtype=dtype)
    preset = name.removeprefix(PRESET)
    if preset not in PRESETS:
        raise ConfigError(f"model: there is no preset {preset!r}; wanted {', '.join(PRESETS)}.")
    model, processor = from_preset(preset)
    return model.to(dtype), processor
