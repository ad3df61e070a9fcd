"""`emostream-train sft`: supervised fine-tuning, the cold start before GRPO or the label-only baseline.

OUT/model/          the trained checkpoint, in the published layout
OUT/best/           the one with the best label accuracy on the validation clips, with `keep_best`
OUT/checkpoint-N/   the model after N steps, with what training needs to go on from there
OUT/runs/           tensorboard
OUT/run.json        what is trained on what, so that only the same run goes on from here
OUT/features/       the frozen towers' features of the clips, unless `features` names another folder

SigLIP, Whisper and BERT are frozen; connector, audio projector and language model (or adapters on it) are trained.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import TrainingArguments

from emostream.errors import ConfigError
from emostream.labels import DEFAULT_LABELS, validate_labels
from emostream.model.modeling import EmostreamForCausalLM
from emostream.model.processor import EmostreamProcessor
from training.data.features import FeatureStore
from training.data.manifest import Key, Row, read_manifest
from training.data.prompts import ClipPrompts
from training.evaluation.predict import EvalSettings
from training.progress import Progress, unseen
from training.sft.answers import AnswerWriter
from training.sft.batches import SftBatches
from training.sft.compose import Claimed
from training.sft.trainer import SftTrainer, Validation
from training.tuning.resume import claim_run
from training.tuning.settings import read_settings
from training.tuning.setup import (
    cache_clips,
    fixed_settings,
    open_start,
    prepare_weights,
    report_left_out,
    train_and_save,
    usable_rows,
)
from training.tuning.watch import ProgressLines, StopOnNonFinite

#: Key of the trainer's log -> what a line of progress calls it.
FIGURES = {
    "loss": "loss",
    "grad_norm": "grad",
    "learning_rate": "lr",
    "eval_loss": "validation loss",
    "eval_label_accuracy": "label first",
    "eval_answer_accuracy": "answer",
    "eval_format": "format",
}


@dataclass
class SftSettings:
    """What is trained on what; transformers' `TrainingArguments` say how."""

    manifest: str = field(metadata={"help": "Clips with cues, reasons, answers or labels."})
    split: str = field(default="train", metadata={"help": "Rows of the manifest that are used."})
    limit: int | None = field(default=None, metadata={"help": "Only the first so many clips."})
    validation: str | None = field(
        default=None, metadata={"help": "Manifest of labelled clips to validate on."}
    )
    validation_split: str | None = field(
        default=None, metadata={"help": "Its rows that are used; all if omitted."}
    )
    validation_limit: int = field(default=512, metadata={"help": "At most so many of them."})
    keep_best: bool = field(
        default=False, metadata={"help": "Keep the model with the best label accuracy as well."}
    )
    model: str = field(
        default="tiny",
        metadata={
            "help": "Checkpoint folder, hub id, `tiny` or `small`; `preset:NAME` has random weights."
        },
    )
    features: str | None = field(
        default=None, metadata={"help": "Folder of the towers' cached features."}
    )
    answers: str = field(
        default="reasoned", metadata={"help": "reasoned, or label for the label alone."}
    )
    answer_style: str | None = field(
        default=None,
        metadata={"help": "reasoned (with tags) or bare; the model's own if omitted."},
    )
    label_first: float = field(
        default=0.25,
        metadata={"help": "Share of reasoned clips that are asked for the label first as well."},
    )
    wordings: int = field(
        default=1, metadata={"help": "Wordings of a clip's reasons that are trained at once."}
    )
    clear_from: float = field(
        default=0.0,
        metadata={
            "help": "Probability with which a classifier has to tell a cue from the clip's tokens for it to be "
            "mentioned; 0 mentions the strongest."
        },
    )
    drop_video: float = field(
        default=0.1, metadata={"help": "Share of clips whose pictures are hidden."}
    )
    drop_audio: float = field(
        default=0.1, metadata={"help": "Share of clips whose sound is hidden."}
    )
    labels: list[str] = field(
        default_factory=lambda: list(DEFAULT_LABELS), metadata={"help": "Label set of answers."}
    )
    instruction: str | None = field(default=None, metadata={"help": "Question of the prompt."})
    dtype: str = field(default="float32", metadata={"help": "Of the weights."})
    media_learning_rate: float | None = field(
        default=None,
        metadata={"help": "Of connector and audio projector; learning_rate if omitted."},
    )
    train_gate: bool = field(
        default=False, metadata={"help": "Also train the gate that BERT's features go through."}
    )
    lora_rank: int = field(
        default=0, metadata={"help": "Adapters on the language model instead of its weights."}
    )
    lora_alpha: float = field(default=32.0, metadata={"help": "Scale of the adapters."})
    max_new_tokens: int = field(
        default=128, metadata={"help": "Longest answer that validation lets the model write."}
    )

    def __post_init__(self) -> None:
        validate_labels(self.labels)
        for name, known in (
            ("answers", ("reasoned", "label")),
            ("answer_style", (None, "reasoned", "bare")),
            ("dtype", ("float32", "bfloat16")),
        ):
            if (value := getattr(self, name)) not in known:
                wanted = " or ".join(str(k) for k in known if k)
                raise ConfigError(f"sft: {name} is {value!r}; wanted {wanted}")
        for name in ("label_first", "clear_from", "drop_video", "drop_audio"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"sft: {name} is {getattr(self, name)}; wanted a share in 0..1")
        if self.drop_video + self.drop_audio > 1:
            raise ConfigError("sft: drop_video and drop_audio together are more than 1")
        for name, least in (("wordings", 1), ("lora_rank", 0), ("validation_limit", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"sft: {name} is {getattr(self, name)}; wanted {least} or more")
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"sft: limit is {self.limit}; wanted 1 or more")


def sft(
    config: Path | None,
    out: Path,
    flags: Sequence[str] = (),
    *,
    progress: Progress = unseen,
) -> Path | None:
    """Train, from the last checkpoint in `out` if there is one.

    Args:
        config: YAML over the recipe in `training/configs/cold_start.yaml`, or the name of another recipe there.
        out: Output folder.
        flags: `--name value` over both.
        progress: Shows how far caching features is, by name, clips done and all.

    Returns:
        The folder of the trained model; None on all processes but the main one.
    """
    fixed = fixed_settings(out) | {
        "metric_for_best_model": "label_accuracy",
        "greater_is_better": True,
    }
    settings, args = read_settings(
        (SftSettings, TrainingArguments),
        recipe="cold_start.yaml",
        config=config,
        flags=flags,
        fixed=fixed,
    )
    model, processor = open_start(settings.model, getattr(torch, settings.dtype))
    if settings.answer_style:
        model.config.answer_style = settings.answer_style
    writer = _writer(model, settings)
    rows = _training_rows(settings, writer)
    held_out = _validation_rows(settings)
    claim_run(out, model, rows, settings, args)
    model.to(args.device)
    store = cache_clips(
        model, processor, [*rows, *held_out], settings.features or out / "features", progress
    )
    usable, usable_held_out = usable_rows(rows, store), usable_rows(held_out, store)
    return train_and_save(
        lambda: make_trainer(model, processor, usable, usable_held_out, store, settings, args), out
    )


def make_trainer(
    model: EmostreamForCausalLM,
    processor: EmostreamProcessor,
    rows: Sequence[Row],
    held_out: Sequence[Row],
    store: FeatureStore,
    settings: SftSettings,
    args: TrainingArguments,
) -> SftTrainer:
    """A trainer of clips whose features are in the store; freezes the towers, adds adapters if wanted.

    Args:
        model: To be trained, on its device.
        processor: Its processor.
        rows: Clips to train on.
        held_out: Clips to validate on; without any, nothing is validated.
        store: Holds the features of both.
        settings: What is trained.
        args: How.
    """
    if not settings.train_gate:
        model.model.bert_gate.requires_grad_(False)
    prepare_weights(model, rank=settings.lora_rank, alpha=settings.lora_alpha, seed=args.seed)
    instruction = settings.instruction or processor.instruction
    gate = None
    if not settings.train_gate:
        with torch.no_grad():
            gate = model.model.gate(*processor.gate_inputs(instruction))[0].cpu()

    clear = None
    if settings.clear_from and settings.answers == "reasoned":
        from training.sft.clarity import (
            clear_cues,  # and so scikit-learn, which other runs do without
        )

        clear = clear_cues(
            model, processor, store, [*rows, *held_out], settings.clear_from, args.seed
        )

    def batches(clips: Sequence[Row], **hiding: float) -> SftBatches:
        return SftBatches(
            clips,
            store,
            ClipPrompts(clips, store, processor, instruction),
            _writer(model, settings, clear),
            processor.tokenizer,
            gate=gate,
            seed=args.seed,
            **hiding,
        )

    if args.world_size > 1 and args.ddp_find_unused_parameters is None:
        # A batch may lack a modality, and so leave its part of the model without gradients.
        args.ddp_find_unused_parameters = True
    if not held_out:
        args.eval_strategy = "no"
    return SftTrainer(
        model,
        processor,
        batches(rows, drop_video=settings.drop_video, drop_audio=settings.drop_audio),
        args,
        validation=Validation(
            batches=batches(held_out),
            settings=EvalSettings(
                labels=tuple(settings.labels),
                conditions=("both",),
                batch_size=64,
                max_new_tokens=settings.max_new_tokens,
                instruction=instruction,
            ),
            keep_best=settings.keep_best,
        )
        if held_out
        else None,
        media_learning_rate=settings.media_learning_rate,
        callbacks=[StopOnNonFinite(), ProgressLines(FIGURES)],
    )


def _writer(
    model: EmostreamForCausalLM,
    settings: SftSettings,
    clear: Mapping[Key, Collection[Claimed]] | None = None,
) -> AnswerWriter:
    style = model.config.answer_style
    if style == "bare" and settings.answers != "label":
        raise ConfigError(
            "sft: bare answers hold no reasons; set answers to label, or answer_style to reasoned"
        )
    return AnswerWriter(
        "label" if settings.answers == "label" else "reasoned",
        style,  # type: ignore[arg-type]
        label_first=settings.label_first,
        wordings=settings.wordings,
        clear=clear,
    )


def _training_rows(settings: SftSettings, writer: AnswerWriter) -> list[Row]:
    everything = read_manifest(settings.manifest, settings.labels)
    rows = [row for row in everything if row.split == settings.split]
    problems = [writer.problem(row) for row in rows]
    report_left_out(rows, problems)
    rows = [row for row, problem in zip(rows, problems, strict=True) if problem is None]
    if not rows:
        splits = sorted({row.split for row in everything})
        raise ConfigError(
            f"{settings.manifest}: no rows to train on in split {settings.split}; it has {', '.join(splits)}."
        )
    return rows[: settings.limit]


def _validation_rows(settings: SftSettings) -> list[Row]:
    if settings.validation is None:
        return []
    chosen = [
        row
        for row in read_manifest(settings.validation, settings.labels)
        if row.label is not None and settings.validation_split in (None, row.split)
    ]
    if not chosen:
        raise ConfigError(
            f"{settings.validation}: no labelled rows to validate on; check validation_split."
        )
    # Evenly spread, since corpora come sorted.
    count = min(len(chosen), settings.validation_limit)
    return [chosen[place * len(chosen) // count] for place in range(count)]
