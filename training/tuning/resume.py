"""Going on with a run: whether it is the same one, and from which checkpoint."""

import json
import logging
import re
import zipfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from accelerate import PartialState
from safetensors import SafetensorError, safe_open
from transformers import TrainingArguments

from emostream.model.modeling import EmostreamForCausalLM
from training.data.manifest import Row
from training.data.same_run import claim, training_digest, weights_digest

logger = logging.getLogger(__name__)

RUN: Final = "run.json"
_STATE: Final = "trainer_state.json"

#: Settings that a run may go on without: how long, how often, where, and what is only looked at.
_FREE: Final = re.compile(
    r"(logging|log|eval|save|hub|push|dataloader|ddp|torch_compile|trackio|fsdp|validation|do)_.*"
    r"|(gradient|activation)_checkpointing.*|(bf16|fp16)_full_eval|.*_to_print"
    r"|manifest|model|validation|split|limit|features|keep_best|max_new_tokens"  # weights and clips stand for these
    r"|output_dir|num_train_epochs|max_steps|report_to|run_name|project|disable_tqdm|per_device_eval_batch_size"
    r"|use_cpu|use_cache|local_rank|debug|skip_memory_metrics|resume_from_checkpoint|remove_unused_columns"
    r"|metric_for_best_model|greater_is_better|load_best_model_at_end|prediction_loss_only|batch_eval_metrics"
    r"|include_.*|fsdp|deepspeed|accelerator_config|parallelism_config|auto_find_batch_size|tf32"
)


def claim_run(
    out: Path,
    model: EmostreamForCausalLM,
    rows: Sequence[Row],
    settings: Any,
    args: TrainingArguments,
) -> None:
    """Write down what is trained in a folder, or check that it is what was begun there.

    Args:
        out: The folder.
        model: As training starts from it.
        rows: What it is trained on.
        settings: What is trained, a dataclass.
        args: How.

    Raises:
        ConfigError: Another run was begun there.
    """
    given = {**asdict(settings), **args.to_dict()}
    run = {
        "weights": weights_digest(model),
        "clips": training_digest(rows),
        **{name: value for name, value in given.items() if not _FREE.fullmatch(name)},
    }
    if PartialState().is_main_process:
        claim(out / RUN, run, "run")


def last_checkpoint(out: Path) -> Path | None:
    """The newest checkpoint in a folder that is whole; what an interruption left behind is named and passed over."""
    numbered = {
        int(path.name.rpartition("-")[2]): path
        for path in out.glob("checkpoint-*")
        if re.fullmatch(r"checkpoint-\d+", path.name) and path.is_dir()
    }
    for _, folder in sorted(numbered.items(), reverse=True):
        problem = _problem(folder)
        if problem is None:
            return folder
        if PartialState().is_main_process:
            logger.warning("%s is passed over: %s; an interrupted save left it", folder, problem)
    return None


def _problem(folder: Path) -> str | None:
    """What a checkpoint lacks. The trainer writes its state last."""
    try:
        json.loads((folder / _STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return f"no whole {_STATE}"
    tensors = sorted(folder.glob("*.safetensors"))
    if not tensors:
        return "no weights"
    for file in tensors:
        try:
            with safe_open(file, framework="pt"):
                pass
        except (SafetensorError, OSError):
            return f"{file.name} is cut short"
    for file in sorted(folder.glob("*.pt*")):  # optimizer, schedule, random numbers
        if not zipfile.is_zipfile(file):
            return f"{file.name} is cut short"
    return None
