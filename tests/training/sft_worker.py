"""One process of a distributed run: trains the small model on answers. Started by torchrun.

    sft_worker.py OUT [--fsdp]

With `--fsdp` it is done again in OUT/sharded with weights that are spread over the processes, and the last step once
more, from a checkpoint.
"""

import os
import sys
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from tests.training.distributed import SHARDED, TRAINED, cpus_as_gpus
from tests.training.sft_rig import rig
from training.sft.trainer import SftTrainer
from training.tuning.setup import leave_process_group

STEPS = 3  # an epoch has two


def main() -> None:
    out = Path(sys.argv[1])
    train(out)
    if "--fsdp" in sys.argv:
        out /= SHARDED
        for folder, begun in ((out, None), (out / "again", out / f"checkpoint-{STEPS - 1}")):
            state = cpus_as_gpus()
            trainer = made(folder, fsdp=True, save_steps=STEPS - 1, accelerator_config=state)
            trainer.train(resume_from_checkpoint=begun and str(begun))
            trainer.save_model(str(folder / "model"))
    leave_process_group()


def train(out: Path) -> None:
    """Writes the weights that were trained, with the loss on what is held out, to `out / TRAINED`."""
    trainer = made(out)
    trainer.train()
    if trainer.accelerator.is_main_process:
        trained = {n: p.detach() for n, p in trainer.model.named_parameters() if p.requires_grad}
        losses = [log["eval_loss"] for log in trainer.state.log_history if "eval_loss" in log]
        save_file(trained, out / TRAINED, metadata={"loss": repr(losses[-1])})


def made(out: Path, **more: Any) -> SftTrainer:
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    return rig(
        out,
        held_out=6,
        changes={"drop_video": 0.2, "drop_audio": 0.2, "label_first": 0.5},
        per_device_train_batch_size=6 // processes,
        max_steps=STEPS,
        learning_rate=5e-2,  # so far that what float32 rounds is little beside it
        adam_epsilon=1.0,  # a gradient that rounding makes 1e-9 is no step of the learning rate then
        eval_strategy="steps",
        eval_steps=STEPS,
        ddp_backend="gloo" if processes > 1 else None,
        **{"save_strategy": "steps" if "save_steps" in more else "no", **more},
    )


if __name__ == "__main__":
    main()
