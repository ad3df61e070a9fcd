"""A small policy on clips whose features are made up, and rewards that even random weights earn."""

import copy
import functools
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from trl import GRPOConfig

from emostream.model.modeling import EmostreamForCausalLM
from emostream.model.presets import from_preset
from emostream.model.processor import EmostreamProcessor
from training.data.manifest import Row
from training.data.prompts import ClipPrompts
from training.grpo.trainer import EmostreamGRPOTrainer
from training.tuning.settings import current_name


class MadeUpFeatures:
    """Every third clip lacks its sound, every third its pictures."""

    def __init__(self, processor: EmostreamProcessor):
        self._config = processor.config

    def features(self, row: Row) -> dict[str, Tensor]:
        number = int(row.start_s)
        generator = torch.Generator().manual_seed(number)
        config, found = self._config, {}
        if number % 3 != 2:
            shape = (2, config.patches_per_side**2, config.mm_hidden_size)
            found["vision_features"] = torch.randn(shape, generator=generator)
        if number % 3 != 1:
            found["audio_features"] = torch.randn(5, config.audio_hidden_size, generator=generator)
        return found

    def lengths(self, row: Row) -> dict[str, int]:
        return {name: len(features) for name, features in self.features(row).items()}


def rows(count: int) -> list[Row]:
    return [
        Row(path=Path(f"{n}.mp4"), label="happy", split="train", start_s=float(n))
        for n in range(count)
    ]


@functools.cache
def _made(seed: int) -> tuple[EmostreamForCausalLM, EmostreamProcessor]:
    _, processor = from_preset("tiny")
    config = copy.deepcopy(processor.config)
    config.num_hidden_layers, config.layer_types = 2, config.layer_types[:2]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = EmostreamForCausalLM(config).eval()
    return model, processor


def policy(seed: int = 0) -> tuple[EmostreamForCausalLM, EmostreamProcessor]:
    """Random weights that prefer some tokens to others, and end one completion in a few soon."""
    made, processor = _made(seed)
    model = copy.deepcopy(made)
    with torch.no_grad():
        model.lm_head.weight.mul_(2)
    model.generation_config.eos_token_id = list(range(0, model.config.vocab_size, 6))
    model.freeze_towers()
    return model, processor


def even_reward(*, completion_ids: list[list[int]], **_: Any) -> list[float | None]:
    """The share of even ids."""
    return [sum(i % 2 == 0 for i in ids) / len(ids) for ids in completion_ids]


def short_reward(*, completion_ids: list[list[int]], **_: Any) -> list[float | None]:
    return [1 / len(ids) for ids in completion_ids]


def settings(out: Path, **changes: Any) -> GRPOConfig:
    values: dict[str, Any] = {
        "output_dir": str(out),
        "per_device_train_batch_size": 12,
        "num_generations": 4,
        "max_completion_length": 6,
        "max_steps": 2,
        "learning_rate": 1e-2,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
        "loss_type": "dapo",
        "beta": 0.0,
        "epsilon_high": 0.28,
        "bf16": False,
        "gradient_checkpointing": False,
        "use_cpu": True,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }
    return GRPOConfig(**{current_name(name): v for name, v in {**values, **changes}.items()})


def trainer(
    args: GRPOConfig,
    *,
    clips: int = 6,
    kind: type[EmostreamGRPOTrainer] = EmostreamGRPOTrainer,
    model: EmostreamForCausalLM | None = None,
    reward_funcs: Any = (even_reward, short_reward),
    callbacks: Any = None,
    twins: Any = None,
) -> EmostreamGRPOTrainer:
    fresh, processor = policy()
    made = rows(clips + len(twins or ()))
    return kind(
        model or fresh,
        processor,
        ClipPrompts(made, MadeUpFeatures(processor), processor),
        reward_funcs=reward_funcs,
        args=args,
        train_dataset=Dataset.from_list(
            [
                {"prompt": row.path.name, "clip": n, "label": row.label}
                for n, row in enumerate(made[:clips])
            ]
        ),
        callbacks=callbacks,
        twins=twins,
    )


def plain_logps(
    model: EmostreamForCausalLM,
    prompts: ClipPrompts,
    clip: int,
    completion: list[int],
    temperature: float = 1.0,
) -> Tensor:
    """(C,) log-probabilities of one completion: the whole sequence, by itself, without any cache."""
    ids = prompts.ids(clip)
    media = prompts.media([clip], len(ids))
    logits = model(input_ids=torch.tensor([ids + completion]), use_cache=False, **media).logits[
        0, len(ids) - 1 : -1
    ]
    return (logits / temperature).log_softmax(-1)[range(len(completion)), completion]
