"""Models whose weights FSDP spreads over the processes of a run: what of it training, saving and reading must know."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import TrainerCallback, TrainingArguments

from emostream.errors import ConfigError


class Sharding(TrainerCallback):
    """Makes sharded training right for batches that lack a modality, and refuses where it would not be sharded."""

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: Any,
        control: Any,
        model: nn.Module | None = None,
        **_: Any,
    ) -> None:
        """Have processes agree on which gradients they add up.

        Raises:
            ConfigError: `fsdp` is set where accelerate passes over it, or torch is too old.
        """
        if not args.fsdp:
            return
        if not isinstance(model, FSDPModule):
            raise ConfigError(
                "settings: fsdp is set, but nothing was sharded: accelerate does so on GPUs alone, and by version 2."
            )
        if not hasattr(model, "set_reduce_scatter_unused_params"):
            raise ConfigError(
                f"settings: fsdp needs torch 2.13 or newer; this is {torch.__version__}."
            )
        model.set_reduce_scatter_unused_params(True)


@contextmanager
def whole_weights(model: nn.Module, args: TrainingArguments) -> Iterator[None]:
    """Every process holds all weights, for code that reads them outside the model's own forward; all must enter.

    Args:
        model: Sharded or not.
        args: Say whether layers give their weights up again after their forward.
    """
    parts = [module for module in model.modules() if isinstance(module, FSDPModule)]
    if parts:
        # Else the first part that is used, not the model, would take itself for the root.
        parts[0]._get_fsdp_state()._lazy_init()
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            gives_up = (args.fsdp_config or {}).get("reshard_after_forward", True)
            part.set_reshard_after_forward(gives_up, recurse=False)
            part.reshard()


def local(tensor: Tensor) -> Tensor:
    """This process's part of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def fill(tensor: Tensor, value: Tensor) -> None:
    """Write a whole value, the same on every process, into a tensor that may be sharded."""
    if isinstance(tensor, DTensor):
        value = distribute_tensor(
            value.to(tensor.device), tensor.device_mesh, tensor.placements, src_data_rank=None
        )
    tensor.copy_(value)
