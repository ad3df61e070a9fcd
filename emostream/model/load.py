"""Published checkpoints into memory: `load_model`, and the errors that users meet on the way."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from transformers import GenerationConfig
from transformers.initialization import no_init_weights

from emostream.checkpoint.files import read_json, read_tensors, tensor_names
from emostream.checkpoint.resolve import find_checkpoint
from emostream.errors import CheckpointError
from emostream.model.configuration import EmostreamConfig
from emostream.model.front_ends import read_front_ends
from emostream.model.modeling import EmostreamForCausalLM
from emostream.model.processor import EmostreamProcessor


def load_model(
    path_or_id: str | Path,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    *,
    towers: Mapping[str, str | Path] | None = None,
) -> tuple[EmostreamForCausalLM, EmostreamProcessor]:
    """Load a checkpoint in the published HumanOmni / R1-Omni layout.

    Args:
        path_or_id: A folder, a hub id, or `small` or `tiny`, which ship in the package.
        device: Where the model goes.
        dtype: float32, bfloat16 or float16, of every parameter.
        towers: Folders that override where `vision`, `audio` and `gate` parts are looked for.

    Returns:
        The model in eval mode and its processor.

    Raises:
        CheckpointError: Something is missing, truncated, of another shape or not safetensors; the message names the
            file, what was wanted and the remedy.
        ConfigError: config.json has a value of another model family.
    """
    checkpoint = find_checkpoint(path_or_id, towers)
    root = checkpoint.root
    config = EmostreamConfig.from_dict(
        dict(checkpoint.published), parts=checkpoint.parts, name_or_path=str(root)
    )
    model = _skeleton(config, dtype)
    wanted = {name: tensor.shape for name, tensor in model.state_dict().items()}
    if config.tie_word_embeddings:
        wanted.pop("lm_head.weight")

    sources = [(file, {name: name for name in names}) for file, names in checkpoint.stored.items()]
    homes = {}
    for found in checkpoint.parts:
        for file in found.weights():
            homes[found.part.prefix] = file.parent
            renamed = {name: found.part.rename(name) for name in tensor_names(file)}
            sources.append((file, {name: ours for name, ours in renamed.items() if ours}))
    state: dict[str, Tensor] = {}
    unused: dict[str, Tensor] = {}
    for file, names in sources:
        for name, tensor in read_tensors(file, names, wanted):
            # Copies: what was read is a view of the file, which somebody may write again while the model lives.
            if name in wanted:
                state[name] = tensor.to(device=device, dtype=dtype, copy=True)
            elif name != "lm_head.weight":
                unused[name] = tensor.clone()
    _refuse_missing(sorted(wanted.keys() - state.keys()), root, homes)
    # `assign` keeps the tensors just read instead of copying them into a second allocation.
    model.load_state_dict(state, strict=False, assign=True)
    model.tie_weights()
    model.unused_tensors = unused
    config.dtype = dtype
    config.name_or_path = str(path_or_id)
    if (root / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_dict(
            read_json(root / "generation_config.json")
        )
    processor = EmostreamProcessor(*read_front_ends(checkpoint, config), config=config)
    return model.to(device).eval(), processor


def _skeleton(config: EmostreamConfig, dtype: torch.dtype) -> EmostreamForCausalLM:
    """The model with its buffers computed and its parameters allocated but not initialised."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with no_init_weights():
            return EmostreamForCausalLM(config)
    finally:
        torch.set_default_dtype(default)


def _refuse_missing(missing: list[str], root: Path, homes: Mapping[str, Path]) -> None:
    if missing:
        home = next((home for prefix, home in homes.items() if missing[0].startswith(prefix)), root)
        raise CheckpointError(
            f"load_model: {home} lacks {len(missing)} tensors that its config.json asks for, the first {missing[0]}. "
            "The download is incomplete or the configuration belongs to another model: download or copy it again."
        )
