"""One process of a distributed run: trains the small policy and writes its weights. Started by torchrun.

    grpo_worker.py OUT [--fsdp]

With `--fsdp` it is done again in OUT/sharded with weights that are spread over the processes.
"""

import os
import sys
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from tests.training.distributed import SHARDED, TRAINED, cpus_as_gpus
from tests.training.grpo_rig import settings, trainer
from training.grpo.trainer import EmostreamGRPOTrainer
from training.tuning.setup import leave_process_group


def main() -> None:
    out = Path(sys.argv[1])
    train(out)
    if "--fsdp" in sys.argv:
        run = made(out / SHARDED, fsdp=True, accelerator_config=cpus_as_gpus())
        run.train()
        run.save_model(str(out / SHARDED / "model"))
    leave_process_group()


def train(out: Path) -> None:
    """Writes the weights that were trained to `out / TRAINED`."""
    run = made(out)
    run.train()
    if run.accelerator.is_main_process:
        trained = {n: p.detach() for n, p in run.model.named_parameters() if p.requires_grad}
        save_file(trained, out / TRAINED)


def made(out: Path, **more: Any) -> EmostreamGRPOTrainer:
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    # 16 completions a step, however many processes share them; a small rate keeps rounding small.
    args = settings(
        out,
        per_device_train_batch_size=16 // processes,
        num_generations=4,
        learning_rate=1e-3,
        optim="sgd",
        mask_truncated_completions=True,
        ddp_backend="gloo" if processes > 1 else None,
        ddp_find_unused_parameters=True if processes > 1 else None,
        **more,
    )
    return trainer(args)


if __name__ == "__main__":
    main()
