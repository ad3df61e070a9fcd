"""`emostream-train grpo`: reinforcement learning of a reasoning checkpoint with verifiable rewards.

OUT/model/          the trained checkpoint, in the published layout
OUT/checkpoint-N/   the same after N steps, with what training needs to go on from there
OUT/completions/    what was sampled and what it earned, a Parquet file for each log
OUT/runs/           tensorboard
OUT/run.json        what is trained on what, so that only the same run goes on from here
OUT/features/       the frozen towers' features of the clips, unless `features` names another folder
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from trl import GRPOConfig

from emostream.errors import ConfigError
from emostream.labels import DEFAULT_LABELS, validate_labels
from emostream.model.modeling import EmostreamForCausalLM
from emostream.model.processor import EmostreamProcessor
from training.data.features import FeatureStore
from training.data.manifest import Row, read_manifest
from training.data.prompts import ClipPrompts
from training.grpo.rewards import GroundingSettings, RewardFunction, reward_functions
from training.grpo.signal import ALIKE, WatchSignal
from training.grpo.trainer import EmostreamGRPOTrainer, check_sampling
from training.progress import Progress, unseen
from training.synth.twins import TWIN_OF, clip_of, gone
from training.tuning.resume import claim_run
from training.tuning.settings import RECIPES, read_settings, read_yaml
from training.tuning.setup import (
    cache_clips,
    fixed_settings,
    open_start,
    prepare_weights,
    train_and_save,
    usable_rows,
)
from training.tuning.watch import ProgressLines, StopOnNonFinite, remove_printers

#: Key of the trainer's log -> what a line of progress calls it.
FIGURES = {
    "reward": "reward",
    "rewards/accuracy_reward/mean": "accuracy",
    "rewards/paper_accuracy_reward/mean": "accuracy",
    "rewards/format_reward/mean": "format",
    "rewards/paper_format_reward/mean": "format",
    "rewards/grounding_reward/mean": "grounding",
    "rewards/intervention_reward/mean": "intervention",
    "completions/mean_length": "length",
    "entropy": "entropy",
    "kl": "kl",
    "grad_norm": "grad",
    ALIKE: "alike",
}


@dataclass
class GrpoSettings:
    """What is trained on what; TRL's `GRPOConfig` says how."""

    manifest: str = field(metadata={"help": "Clips with labels, and with cues for grounding."})
    model: str = field(
        default="tiny",
        metadata={
            "help": "Checkpoint folder, hub id, `tiny` or `small`; `preset:NAME` has random weights."
        },
    )
    split: str = field(default="train", metadata={"help": "Rows of the manifest that are used."})
    features: str | None = field(
        default=None, metadata={"help": "Folder of the towers' cached features."}
    )
    rewards: list[str] = field(
        default_factory=lambda: ["accuracy", "format", "grounding"],
        metadata={
            "help": "Of accuracy, format, grounding, intervention, paper_accuracy, paper_format."
        },
    )
    twins: str | None = field(
        default=None,
        metadata={"help": "Manifest of the clips' twins; half of each group answers the twin."},
    )
    contradiction_cost: float = field(
        default=1.0,
        metadata={"help": "What a false claim costs in grounding, where a true one pays 1."},
    )
    least_claims: int = field(
        default=3,
        metadata={"help": "Fewer claims than this, or than the clip offers, earn nothing."},
    )
    grounding_floor: float = field(
        default=0.0,
        metadata={"help": "Least that grounding pays; -1 makes a guess cost more than silence."},
    )
    labels: list[str] = field(
        default_factory=lambda: list(DEFAULT_LABELS), metadata={"help": "Label set of answers."}
    )
    instruction: str | None = field(default=None, metadata={"help": "Question of the prompt."})
    limit: int | None = field(default=None, metadata={"help": "Only the first so many clips."})
    dtype: str = field(default="float32", metadata={"help": "Of the frozen weights."})
    lora_rank: int = field(
        default=0, metadata={"help": "Adapters on the language model instead of its weights."}
    )
    lora_alpha: float = field(default=32.0, metadata={"help": "Scale of the adapters."})

    def __post_init__(self) -> None:
        validate_labels(self.labels)
        if self.dtype not in ("float32", "bfloat16"):
            raise ConfigError(f"grpo: dtype is {self.dtype!r}; wanted float32 or bfloat16")
        if self.lora_rank < 0:
            raise ConfigError(f"grpo: lora_rank is {self.lora_rank}; wanted 0 or more")
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"grpo: limit is {self.limit}; wanted 1 or more")
        self.reward_functions()  # refuses what it cannot make
        if "intervention" in self.rewards and self.twins is None:
            raise ConfigError(
                "grpo: the intervention reward compares clips with their twins; name their manifest, twins: "
                "CORPUS/twins.jsonl (emostream-train corpus synth --twins face_cue,voice_cue)."
            )

    def reward_functions(self) -> list[RewardFunction]:
        """The rewards, as TRL calls them.

        Raises:
            ConfigError: One is unknown, or `contradiction_cost` is out of range.
        """
        return reward_functions(
            self.rewards,
            tuple(self.labels),
            GroundingSettings(
                contradiction_cost=self.contradiction_cost,
                least_claims=self.least_claims,
                floor=self.grounding_floor,
            ),
        )


def grpo(
    config: Path | None,
    out: Path,
    flags: Sequence[str] = (),
    *,
    paper: bool = False,
    progress: Progress = unseen,
) -> Path | None:
    """Train, from the last checkpoint in `out` if there is one.

    Args:
        config: YAML over the recipe in `training/configs/grpo.yaml`.
        out: Output folder.
        flags: `--name value` over both.
        paper: Take R1-Omni's settings and rewards, whatever `config` says; flags go over them.
        progress: Shows how far caching features is, by name, clips done and all.

    Returns:
        The folder of the trained model; None on all processes but the main one.
    """
    settings, args = read_settings(
        (GrpoSettings, GRPOConfig),
        recipe="grpo.yaml",
        config=config,
        flags=flags,
        fixed=fixed_settings(out),
        over=read_yaml(RECIPES / "grpo_paper.yaml") if paper else {},
    )
    _check_together(settings, args)
    model, processor = open_start(settings.model, getattr(torch, settings.dtype))
    rows = _rows(settings)
    _check_enough(rows, args)
    claim_run(out, model, rows, settings, args)
    model.to(args.device)
    twins = [] if settings.twins is None else twin_rows(rows, settings, args.seed)
    folder = settings.features or out / "features"
    store = cache_clips(model, processor, [*rows, *twins], folder, progress)
    usable = usable_rows(rows, store)
    of_usable = usable_rows(twins, store) if twins else []
    return train_and_save(
        lambda: make_trainer(model, processor, usable, store, settings, args, of_usable), out
    )


def make_trainer(
    model: EmostreamForCausalLM,
    processor: EmostreamProcessor,
    rows: Sequence[Row],
    store: FeatureStore,
    settings: GrpoSettings,
    args: GRPOConfig,
    twins: Sequence[Row] = (),
) -> EmostreamGRPOTrainer:
    """A trainer of clips whose features are in the store; freezes the towers, adds adapters if wanted.

    Args:
        model: To be trained, on its device.
        processor: Its processor.
        rows: Clips to train on.
        store: Holds their features.
        settings: What is trained.
        args: How.
        twins: Of some of the clips, from `twin_rows`; the store holds their features too.

    Raises:
        ConfigError: There are fewer clips than a batch takes, or `args` cannot be served.
    """
    prepare_weights(model, rank=settings.lora_rank, alpha=settings.lora_alpha, seed=args.seed)
    for parameter in model.parameters():
        if parameter.requires_grad:  # small steps vanish in bfloat16
            parameter.data = parameter.data.float()
    _check_enough(rows, args)
    everything = [*rows, *twins]
    prompts = ClipPrompts(everything, store, processor, settings.instruction)
    if args.world_size > 1 and args.ddp_find_unused_parameters is None:
        # A batch may lack a modality, and so leave its part of the model without gradients.
        modalities = {tuple(sorted(store.features(row))) for row in everything}
        args.ddp_find_unused_parameters = len(modalities) > 1 or len(min(modalities)) < 2
    records, changed = _with_twins(rows, twins)
    trainer = EmostreamGRPOTrainer(
        model,
        processor,
        prompts,
        reward_funcs=settings.reward_functions(),
        args=args,
        train_dataset=Dataset.from_list(records),
        callbacks=[StopOnNonFinite(), ProgressLines(FIGURES), WatchSignal()],
        twins=changed,
    )
    remove_printers(trainer)
    return trainer


def _check_together(settings: GrpoSettings, args: GRPOConfig) -> None:
    """Refuse, before the clips are encoded, what contradicts itself."""
    check_sampling(args)
    if settings.dtype != "float32" and not args.bf16:
        raise ConfigError(
            "grpo: dtype is bfloat16 but what is trained stays float32; set bf16: true to compute both alike."
        )
    if args.reward_weights and len(args.reward_weights) != len(settings.rewards):
        raise ConfigError(
            f"grpo: {len(settings.rewards)} rewards have {len(args.reward_weights)} reward_weights; give one for each."
        )


def _check_enough(rows: Sequence[Row], args: GRPOConfig) -> None:
    per_batch = args.generation_batch_size // args.num_generations
    if len(rows) < per_batch:
        raise ConfigError(
            f"grpo: {len(rows)} clips are fewer than the {per_batch} prompts of a batch; lower "
            "per_device_train_batch_size."
        )


def _rows(settings: GrpoSettings) -> list[Row]:
    """The labelled clips of the split."""
    rows = read_manifest(settings.manifest, settings.labels)
    chosen = [row for row in rows if row.split == settings.split and row.label is not None]
    if not chosen:
        splits = sorted({row.split for row in rows})
        raise ConfigError(
            f"{settings.manifest}: no labelled rows in split {settings.split}; it has {', '.join(splits)}."
        )
    if "grounding" in settings.rewards and not any(row.cues for row in chosen):
        raise ConfigError(
            f"{settings.manifest}: no row has cues, which the grounding reward needs; take grounding out of rewards."
        )
    return chosen[: settings.limit]


def twin_rows(rows: Sequence[Row], settings: GrpoSettings, seed: int) -> list[Row]:
    """A twin of each clip that has one of which a marked cue is gone; of several, one by the seed.

    Raises:
        ConfigError: The manifest cannot be read, holds no twins, or none of these clips.
    """
    assert settings.twins is not None
    found: dict[Path, list[Row]] = {}
    for twin in read_manifest(settings.twins, settings.labels):
        if TWIN_OF not in twin.meta:
            raise ConfigError(
                f"{settings.twins}: {twin.path.name} is no twin; wanted the twins.jsonl of corpus synth --twins."
            )
        found.setdefault(clip_of(twin), []).append(twin)
    chosen = []
    for index, row in enumerate(rows):
        offered = [t for t in found.get(row.path, ()) if _gone(row, t)]
        if offered:
            number = int(np.random.default_rng([seed, index]).integers(len(offered)))
            chosen.append(offered[number])
    if not chosen:
        raise ConfigError(
            f"{settings.twins}: no twin in it is of a clip of {settings.manifest}; make both by one corpus synth "
            "--twins face_cue,voice_cue."
        )
    return chosen


def _gone(row: Row, twin: Row) -> list[tuple[str, str, int]]:
    return [] if row.cues is None or twin.cues is None else sorted(gone(row.cues, twin.cues))


def _record(index: int, row: Row) -> dict[str, Any]:
    end = "" if row.end_s is None else f"{row.end_s:g}"
    return {
        "prompt": f"{row.path.name} {row.start_s:g}-{end}",
        "clip": index,
        "label": row.label,
        "cues": None if row.cues is None else json.dumps(row.cues.to_json()),
    }


def _with_twins(
    rows: Sequence[Row], twins: Sequence[Row]
) -> tuple[list[dict[str, Any]], dict[int, dict[str, Any]]]:
    """Rows of the dataset, and those of the twins by the clip's index, which is the `pair` of both."""
    of = {clip_of(twin): len(rows) + at for at, twin in enumerate(twins)}
    records, changed = [], {}
    for index, row in enumerate(rows):
        at = of.get(row.path)
        pair = None if at is None else index
        records.append({**_record(index, row), "pair": pair, "gone": None})
        if at is not None:
            twin = twins[at - len(rows)]
            lost = json.dumps(_gone(row, twin))
            changed[index] = {**_record(at, twin), "pair": pair, "gone": lost}
    return records, changed
