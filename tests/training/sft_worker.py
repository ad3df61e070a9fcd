"""One process of a distributed run: trains the small model on answers. Started by torchrun or alone."""

import os
import sys
from pathlib import Path

from safetensors.torch import save_file

from tests.training.distributed import TRAINED
from tests.training.sft_rig import rig
from training.tuning.setup import leave_process_group


def main() -> None:
    out = Path(sys.argv[1])
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    trainer = rig(
        out,
        held_out=6,
        changes={"drop_video": 0.2, "drop_audio": 0.2, "label_first": 0.5},
        per_device_train_batch_size=6 // processes,
        max_steps=3,  # an epoch has two
        learning_rate=1e-2,
        optim="sgd",
        eval_strategy="steps",
        eval_steps=3,
        ddp_backend="gloo" if processes > 1 else None,
    )
    trainer.train()
    if trainer.accelerator.is_main_process:
        trained = {n: p.detach() for n, p in trainer.model.named_parameters() if p.requires_grad}
        losses = [log["eval_loss"] for log in trainer.state.log_history if "eval_loss" in log]
        save_file(trained, out / TRAINED, metadata={"loss": repr(losses[-1])})
    leave_process_group()


if __name__ == "__main__":
    main()
