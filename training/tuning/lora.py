"""Low-rank adapters on the language model, without changing what a checkpoint looks like.

Adapters go into the language model's linear layers only: SigLIP, Whisper and BERT have layers of the same names.
Checkpoints hold the merged weights in the published layout; the adapters themselves lie beside them, so that training
goes on from exactly where it was.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from torch import Tensor

from emostream.errors import CheckpointError
from emostream.model.modeling import EmostreamForCausalLM
from training.tuning.sharded import fill

ADAPTERS = "adapters.safetensors"
_LANGUAGE_MODEL = r"model\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)"
_BASE, _ADAPTER = ".base_layer.", ".lora_"


def add_lora(model: EmostreamForCausalLM, rank: int, alpha: float) -> None:
    """Freeze the language model and train adapters of its linear layers, in float32; the connector trains as before."""
    trained = {
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
        and not name.startswith(("model.layers.", "model.embed_tokens.", "model.norm.", "lm_head."))
    }
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=_LANGUAGE_MODEL)
    inject_adapter_in_model(config, model)
    for name, parameter in model.named_parameters():
        if name in trained:
            parameter.requires_grad_(True)
        if _ADAPTER in name:
            parameter.data = parameter.data.float()


def has_lora(model: EmostreamForCausalLM) -> bool:
    """Whether `add_lora` was called on a model."""
    return any(isinstance(module, LoraLayer) for module in model.modules())


@torch.no_grad()
def merged(
    model: EmostreamForCausalLM, whole: Mapping[str, Tensor] | None = None
) -> EmostreamForCausalLM:
    """A model without adapters that computes the same, for saving.

    Args:
        model: Without adapters and `whole`, it is what is returned.
        whole: Its state where it is sharded.
    """
    if whole is None and not has_lora(model):
        return model
    whole = model.state_dict() if whole is None else whole
    state = {
        name.replace(_BASE, "."): tensor for name, tensor in whole.items() if _ADAPTER not in name
    }
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            weight = state[f"{name}.weight"]
            down, up = (whole[f"{name}.lora_{which}.default.weight"] for which in "AB")
            delta = (up @ down) * module.scaling["default"]
            state[f"{name}.weight"] = (weight.float() + delta.float()).to(weight.dtype)
    with torch.device("meta"):
        plain = EmostreamForCausalLM(model.config)
    plain.load_state_dict(state, assign=True)
    plain.tie_weights()
    plain.unused_tensors = model.unused_tensors
    plain.generation_config = model.generation_config
    return plain


def save_trained(
    model: EmostreamForCausalLM, folder: Path, whole: Mapping[str, Tensor] | None = None
) -> None:
    """Write what adapter training changes, exactly; `whole` is the state of a sharded model."""
    trained = _trained(model)
    save_file(
        trained if whole is None else {name: whole[name] for name in trained}, folder / ADAPTERS
    )


@torch.no_grad()
def load_trained(model: EmostreamForCausalLM, folder: Path) -> None:
    """Read what `save_trained` wrote into a model that was prepared in the same way.

    Raises:
        CheckpointError: The folder has no adapters, or others.
    """
    file = folder / ADAPTERS
    wanted = _trained(model)
    stored = load_file(file) if file.is_file() else {}
    shapes = {name: tensor.shape for name, tensor in wanted.items()}
    if {name: tensor.shape for name, tensor in stored.items()} != shapes:
        raise CheckpointError(
            f"{file}: its adapters are not those of this run's settings. Resume with the settings that it was written "
            "with, or choose another output folder."
        )
    for name, tensor in wanted.items():
        fill(tensor, stored[name])


def _trained(model: EmostreamForCausalLM) -> dict[str, Tensor]:
    return {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}
