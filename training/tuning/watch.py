"""What watches a training run: progress with the time that is left, and an end to numbers that are none."""

import math
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from emostream.errors import TrainingError
from training.tuning.sharded import local

_REMEDY = "lower the learning rate, or train in float32. The last checkpoint is unharmed."


class ProgressLines(TrainerCallback):
    """One line for each log, and for the last step: step, the named figures, seconds a step and the time left.

    Args:
        figures: Key of the trainer's log -> what the line calls it.
        stream: Where lines go; stderr if None.
    """

    def __init__(self, figures: Mapping[str, str], stream: TextIO | None = None):
        self._figures = figures
        self._stream = stream or sys.stderr
        self._first = 0
        self._begun_s = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Start the clock."""
        self._first, self._begun_s = state.global_step, time.monotonic()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Have the last step logged, on whatever interval the others are."""
        if state.global_step >= state.max_steps:
            control.should_log = True

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Print a line, on the main process."""
        steps = state.global_step - self._first
        shown = [
            f"{name} {float(logs[key]):.4g}"
            for key, name in self._figures.items()
            if logs and logs.get(key) is not None
        ]
        if not state.is_world_process_zero or not steps or not shown:
            return
        step_s = (time.monotonic() - self._begun_s) / steps
        left_s = round(step_s * (state.max_steps - state.global_step))
        minutes, seconds = divmod(left_s, 60)
        print(
            f"step {state.global_step}/{state.max_steps}  {'  '.join(shown)}  {step_s:.2f} s/step  "
            f"{minutes // 60}:{minutes % 60:02}:{seconds:02} left",
            file=self._stream,
            flush=True,
        )


class StopOnNonFinite(TrainerCallback):
    """Ends training before a gradient that is no number reaches the weights."""

    def on_pre_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        **_: Any,
    ) -> None:
        """Look at every gradient.

        Raises:
            TrainingError: One is not finite.
        """
        assert model is not None
        grads = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        if not grads:
            return
        # One transfer from the device for all of them.
        norms = torch.stack([local(grad).norm().float() for grad in grads.values()])
        finite = norms.isfinite().tolist()
        if not all(finite):
            name = list(grads)[finite.index(False)]
            raise TrainingError(
                f"training: the gradient of {name} is {float(norms[finite.index(False)])} at step "
                f"{state.global_step + 1}; {_REMEDY}"
            )


def check_finite(name: str, value: float, step: int) -> None:
    """Refuse a loss or reward that is not a finite number.

    Raises:
        TrainingError: It is NaN or infinite.
    """
    if not math.isfinite(value):
        raise TrainingError(f"training: the {name} is {value} at step {step}; {_REMEDY}")


class FiniteLoss:
    """Ends training at a loss that is no number; stands before a transformers Trainer among the bases."""

    state: TrainerState

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """As the trainer's own.

        Raises:
            TrainingError: The loss is NaN or infinite.
        """
        loss: Tensor = super().training_step(*args, **kwargs)  # type: ignore[misc]
        check_finite("loss", float(loss), self.state.global_step + 1)
        return loss


def remove_printers(trainer: Trainer) -> None:
    """Take out the callbacks by which transformers itself prints or draws progress."""
    for printer in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(printer)


@contextmanager
def tensorboard_in(folder: Path) -> Iterator[None]:
    """Tensorboard files of a trainer made and run inside go into `folder`, unless the environment says where."""
    name = "TENSORBOARD_LOGGING_DIR"  # transformers 5 has no argument for it
    if name in os.environ:
        yield
        return
    os.environ[name] = str(folder)
    try:
        yield
    finally:
        del os.environ[name]
