"""Towers in folders of their own, as their upstream repositories have them: what `load_model(towers=…)` takes."""

from pathlib import Path

import torch

from emostream.checkpoint.files import (
    read_tensors,
    tensor_names,
    weight_files,
    write_json,
    write_weights,
)
from emostream.checkpoint.parts import PARTS, Part
from emostream.errors import CheckpointError
from emostream.model.modeling import EmostreamForCausalLM
from emostream.model.processor import EmostreamProcessor


def write_tower(
    model: EmostreamForCausalLM, processor: EmostreamProcessor, name: str, folder: Path
) -> None:
    """Write one tower, its weights in float16, and what prepares its input.

    Args:
        model: That holds it.
        processor: The model's.
        name: `vision` or `audio`.
        folder: Made if it is not there.
    """
    part, inside = _part(name)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", getattr(model.config, part.sub_config).to_dict())
    owner = {"vision": processor.image_processor, "audio": processor.feature_extractor}[name]
    owner.save_pretrained(folder)
    tensors = {
        key.removeprefix(inside): value.detach().to(torch.float16).contiguous()
        for key, value in sorted(model.state_dict().items())
        if key.startswith(inside)
    }
    write_weights(folder, tensors)


def read_tower(model: EmostreamForCausalLM, name: str, folder: Path) -> None:
    """Give a model the weights of a tower of the same shape.

    Raises:
        CheckpointError: A file or a tensor is missing, has another shape, or is of another tower.
    """
    part, inside = _part(name)
    wanted = {key: value for key, value in model.state_dict().items() if key.startswith(inside)}
    shapes = {key: value.shape for key, value in wanted.items()}
    found = {}
    for file in weight_files(folder):
        names = {key: ours for key in tensor_names(file) if (ours := part.rename(key))}
        found.update({key: tensor.clone() for key, tensor in read_tensors(file, names, shapes)})
    if missing := sorted(wanted.keys() - found.keys()):
        raise CheckpointError(
            f"{folder}: lacks {len(missing)} tensors of the {name} tower, the first {missing[0]}. Train it anew."
        )
    if more := sorted(found.keys() - wanted.keys()):
        raise CheckpointError(
            f"{folder}: holds {len(more)} tensors that the {name} tower of this model has not, the first {more[0]}. "
            "Take the tower of the same preset."
        )
    model.load_state_dict(found, strict=False)


def _part(name: str) -> tuple[Part, str]:
    """A tower, and how its tensors' names begin inside a model, before what its own repository calls them."""
    part = next(part for part in PARTS if part.name == name)
    return part, f"{part.prefix}{name}_tower."
