"""What SFT and GRPO runs share: the initial model, cached features of the clips, training and saving."""

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from transformers import Trainer

from emostream import load_model
from emostream.errors import ConfigError
from emostream.model.modeling import EmostreamForCausalLM
from emostream.model.presets import PRESETS, from_preset
from emostream.model.processor import EmostreamProcessor
from training.data.features import FeatureStore, cache_features
from training.data.manifest import Row
from training.progress import Progress, unseen
from training.tuning.lora import add_lora
from training.tuning.resume import last_checkpoint
from training.tuning.watch import tensorboard_in

logger = logging.getLogger(__name__)

PRESET = "preset:"
_LAST_TENSORS_S = 0.5


def open_start(name: str, dtype: torch.dtype) -> tuple[EmostreamForCausalLM, EmostreamProcessor]:
    """A model on the CPU and its processor.

    Args:
        name: Checkpoint folder, hub id, `tiny` or `small`; `preset:NAME` has random weights.
        dtype: Of the weights.

    Raises:
        ConfigError: There is no such preset.
        CheckpointError: There is no such checkpoint.
    """
    if not name.startswith(PRESET):
        return load_model(name, dtype=dtype)
    preset = name.removeprefix(PRESET)
    if preset not in PRESETS:
        raise ConfigError(f"model: there is no preset {preset!r}; wanted {', '.join(PRESETS)}.")
    model, processor = from_preset(preset)
    return model.to(dtype), processor


def fixed_settings(out: Path) -> dict[str, Any]:
    """What no recipe, file or flag of a trainer may change."""
    return {
        "output_dir": str(out),
        "remove_unused_columns": False,
        "use_cache": True,  # the trainer would write what it finds into the model's configuration
    }


def prepare_weights(model: EmostreamForCausalLM, *, rank: int, alpha: float, seed: int) -> None:
    """Freeze the towers and, with a `rank`, put adapters drawn from `seed` in place of the language model's weights."""
    model.freeze_towers()
    if rank:
        torch.manual_seed(seed)
        add_lora(model, rank, alpha)


def train_and_save(make_trainer: Callable[[], Trainer], out: Path) -> Path | None:
    """Train, from the last checkpoint in `out` if there is one.

    Args:
        make_trainer: Called once tensorboard knows its folder, which a trainer asks for when it is made.
        out: Output folder; gets `model` and `runs`.

    Returns:
        The folder of the trained model; None on all processes but the main one.
    """
    begun = last_checkpoint(out)
    with tensorboard_in(out / "runs"):
        trainer = make_trainer()
        trainer.train(resume_from_checkpoint=begun and str(begun))
    steps = trainer.state.global_step
    if begun and begun.name == f"checkpoint-{steps}" and PartialState().is_main_process:
        logger.warning(
            "%s: had its %d steps before; raise num_train_epochs or max_steps to train on",
            out,
            steps,
        )
    trainer.save_model(str(out / "model"))
    return out / "model" if PartialState().is_main_process else None


def leave_process_group() -> None:
    """Part from the other processes of a run, if any: gloo's threads abort an interpreter that ends before."""
    state = PartialState()
    if state.num_processes > 1:
        # They need the interpreter's lock to drop their last tensors; whoever frees the group holds it and joins them.
        time.sleep(_LAST_TENSORS_S)
    state.destroy_process_group()


def cache_clips(
    model: EmostreamForCausalLM,
    processor: EmostreamProcessor,
    rows: Sequence[Row],
    folder: str | Path,
    progress: Progress,
) -> FeatureStore:
    """The towers' features of all clips; the main process of a run computes them, the others read them."""
    state = PartialState()
    shown = progress() if state.is_main_process else unseen()
    with state.main_process_first(), shown as step:
        return cache_features(
            model,
            processor,
            rows,
            folder,
            on_progress=lambda done, total: step("clips encoded", done, total),
        )


def usable_rows(rows: Sequence[Row], store: FeatureStore) -> list[Row]:
    """Those rows whose clips could be decoded; the others are reported.

    Raises:
        ConfigError: There are rows, but none is usable.
    """
    report_left_out(rows, [store.problem(row) for row in rows])
    usable = store.usable(rows)
    if rows and not usable:
        raise ConfigError(
            f"none of {len(rows)} clips can be decoded; {store.problem(rows[0])}. Check the manifest's paths."
        )
    return usable


def report_left_out(rows: Sequence[Row], problems: Sequence[str | None]) -> None:
    """Say, on the main process, how many clips are left out and why the first one is."""
    left_out = [(row, problem) for row, problem in zip(rows, problems, strict=True) if problem]
    if left_out and PartialState().is_main_process:
        row, problem = left_out[0]
        logger.warning(
            "%d of %d clips are left out, the first %s: %s",
            len(left_out),
            len(rows),
            row.path,
            problem,
        )
