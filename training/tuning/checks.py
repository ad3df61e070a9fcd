"""Refuses, before any clip is encoded, settings with which a trainer would fail later."""

from collections.abc import Mapping
from typing import Any, Final

import torch
from transformers import Trainer, TrainingArguments, get_scheduler
from transformers.integrations import get_reporting_integration_callbacks

from emostream.errors import ConfigError

_AT_LEAST: Final = {
    **dict.fromkeys(
        (
            *("per_device_train_batch_size", "per_device_eval_batch_size"),
            *("gradient_accumulation_steps", "max_completion_length", "num_iterations"),
            *("steps_per_generation", "generation_batch_size"),
        ),
        1,
    ),
    "num_generations": 2,
    **dict.fromkeys(("learning_rate", "weight_decay", "beta", "max_grad_norm", "warmup_steps"), 0),
}
_ABOVE_0: Final = (
    *("temperature", "num_train_epochs", "media_learning_rate"),
    *("logging_steps", "save_steps", "eval_steps"),
)
_NEED_THE_MODEL: Final = ("galore", "apollo", "lomo", "adalomo")


def check_numbers(values: Mapping[str, Any]) -> None:
    """Refuse numbers that no run can have.

    Args:
        values: Settings by name; those that are unknown or no numbers are let pass.

    Raises:
        ConfigError: One is out of range.
    """
    for name, value in values.items():
        if not isinstance(value, int | float):
            continue
        least = _AT_LEAST.get(name)
        if least is not None and not value >= least:
            raise ConfigError(f"settings: {name} is {value}; wanted {least} or more")
        if name in _ABOVE_0 and not value > 0:
            raise ConfigError(f"settings: {name} is {value}; wanted more than 0")


def check_arguments(args: TrainingArguments) -> None:
    """Make what a trainer will make of its arguments, and drop it.

    Raises:
        ConfigError: A library is missing, or an optimizer or schedule does not take what it is given.
    """
    try:
        for report in get_reporting_integration_callbacks(args.report_to):
            report()
        if not args.optim.startswith(_NEED_THE_MODEL):
            kind, options = Trainer.get_optimizer_cls_and_kwargs(args)
            optimizer = kind([torch.zeros(1, requires_grad=True)], **options)
            get_scheduler(
                args.lr_scheduler_type,
                optimizer,
                num_warmup_steps=1,
                num_training_steps=2,
                scheduler_specific_kwargs=args.lr_scheduler_kwargs,
            )
    except (ImportError, RuntimeError, ValueError, TypeError, AssertionError) as error:
        raise ConfigError(f"settings: {' '.join(str(error).split())}") from error
