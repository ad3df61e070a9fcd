"""Trainer checkpoints that are models of the published layout, with the trainer's state beside them."""

from pathlib import Path
from typing import Any

from emostream.checkpoint.files import read_tensors, tensor_names, weight_files
from emostream.model.processor import EmostreamProcessor
from emostream.model.save import save_model
from training.tuning.lora import has_lora, load_trained, merged, save_trained
from training.tuning.sharded import fill


class PublishedCheckpoints:
    """Saving, loading and going on for a transformers Trainer; stands before it among the bases.

    Attributes:
        processor: Is saved with the model.
    """

    args: Any
    accelerator: Any
    model: Any
    state: Any
    control: Any
    processor: EmostreamProcessor

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """As the trainer's own; all processes wait, since they add to a checkpoint's folder what is theirs."""
        super().save_model(output_dir, _internal_call)  # type: ignore[misc]
        self.accelerator.wait_for_everyone()

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        # Of a sharded model, `state_dict` is the whole.
        if self.args.should_save:
            folder = Path(output_dir or self.args.output_dir)
            model = self.accelerator.unwrap_model(self.model)
            save_model(merged(model, state_dict), self.processor, folder)
            if has_lora(model):
                save_trained(model, folder, state_dict)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        folder, model = Path(resume_from_checkpoint), model or self.model
        if has_lora(model):
            load_trained(model, folder)
            return
        state = model.state_dict()
        shapes = {name: tensor.shape for name, tensor in state.items()}
        for file in weight_files(folder):
            for name, tensor in read_tensors(file, {n: n for n in tensor_names(file)}, shapes):
                if name in state:
                    fill(state[name], tensor)

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        # Of a run that is done, transformers would take one more step where it ended amid an epoch.
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return
        super()._run_epoch(*args, **kwargs)  # type: ignore[misc]
