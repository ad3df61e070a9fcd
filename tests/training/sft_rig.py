"""A small model, clips whose features and cues are made up, and everything that a trainer of them needs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import TrainingArguments

from tests.training.grpo_rig import MadeUpFeatures, policy
from training.data.cues import Cues, Informative
from training.data.manifest import Row
from training.sft.train import SftSettings, make_trainer
from training.sft.trainer import SftTrainer

LABELS = ("happy", "sad", "angry")
CUES = (
    Cues({"AU12": 0.8, "AU6": 0.7}, {"pitch": 1.5, "rate": 1.2}),
    Cues({"AU15": 0.8, "AU1": 0.6, "AU2": 0.0}, {"loudness": -1.5}),
    Cues({"AU4": 0.8}, {}, Informative(True, False)),
)


class Store(MadeUpFeatures):
    """Features of any clip; those of a label have something in common."""

    def features(self, row: Row) -> dict[str, Tensor]:
        found = super().features(row)
        for value in found.values():
            value += 6 * torch.eye(value.shape[-1])[LABELS.index(row.label or "")]
        return found

    def __contains__(self, row: Row) -> bool:
        return True

    def problem(self, row: Row) -> str | None:
        return None

    def usable(self, rows: Sequence[Row]) -> list[Row]:
        return list(rows)


def rows(count: int) -> list[Row]:
    # Four clips of a label in a row, so that labels and missing modalities do not go together.
    return [
        Row(
            path=Path(f"{n}.mp4"),
            label=LABELS[n // 4 % 3],
            split="train",
            start_s=float(n),
            cues=CUES[n // 4 % 3],
        )
        for n in range(count)
    ]


def rig(
    out: Path,
    *,
    clips: int = 12,
    held_out: int = 0,
    seed: int = 0,
    changes: dict[str, Any] | None = None,
    **args: Any,
) -> SftTrainer:
    """A trainer; `changes` are of the settings, `args` of the training arguments."""
    model, processor = policy(seed)
    model.generation_config.eos_token_id = processor.tokenizer.eos_token_id
    settings = SftSettings(
        **{"manifest": "", "labels": list(LABELS), "max_new_tokens": 4, **(changes or {})}
    )
    values: dict[str, Any] = {
        "output_dir": str(out),
        "per_device_train_batch_size": 6,
        "learning_rate": 1e-3,
        "max_steps": 4,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "dataloader_pin_memory": False,
        "use_cpu": True,
        **args,
    }
    everything = rows(clips + held_out)
    if settings.answer_style:
        model.config.answer_style = settings.answer_style
    return make_trainer(
        model,
        processor,
        everything[:clips],
        everything[clips:],
        Store(processor),  # type: ignore[arg-type]
        settings,
        TrainingArguments(**values),
    )
