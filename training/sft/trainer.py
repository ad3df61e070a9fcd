"""Supervised fine-tuning on transformers' Trainer: loss on answers only, validation that also reads labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset, Sampler
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_pt_utils import BatchRebalanceSampler

from emostream.answers import parse_answer
from emostream.model.modeling import EmostreamForCausalLM
from emostream.model.processor import EmostreamProcessor
from training.data.manifest import Row
from training.data.shared_prompt import IGNORED
from training.evaluation.predict import EvalSettings, predict
from training.sft.batches import SftBatches
from training.tuning.checkpoints import PublishedCheckpoints
from training.tuning.sharded import Sharding, whole_weights
from training.tuning.watch import FiniteLoss, remove_printers

_MEDIA = ("model.mm_projector.", "model.audio_projector.", "model.bert_gate.")
BEST = "best"


class _Numbers(Dataset[int]):
    """Row numbers; the collator makes batches of them."""

    def __init__(self, count: int):
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> int:
        return index


class _Epochs(TrainerCallback):
    """Tells the collator which epoch it is."""

    def __init__(self, batches: SftBatches):
        self._batches = batches

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._batches.epoch = int(state.epoch or 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """What is validated, and how.

    Attributes:
        batches: Labelled clips.
        settings: Of reading labels and answers.
        keep_best: Whether the model with the best label accuracy is kept apart.
    """

    batches: SftBatches
    settings: EvalSettings
    keep_best: bool = False


class SftTrainer(FiniteLoss, PublishedCheckpoints, Trainer):
    """Trains what is not frozen on the answers of `batches`.

    Args:
        model: Its towers frozen; may carry adapters of `training.tuning.lora`.
        processor: The model's.
        batches: What is trained.
        args: transformers' settings.
        validation: What is validated, where `args.eval_strategy` asks for it.
        media_learning_rate: Of connector, audio projector and gate; the language model's if None.
        callbacks: Further callbacks.
    """

    optimizer: Any
    control: Any

    def __init__(
        self,
        model: EmostreamForCausalLM,
        processor: EmostreamProcessor,
        batches: SftBatches,
        args: TrainingArguments,
        *,
        validation: Validation | None = None,
        media_learning_rate: float | None = None,
        callbacks: Sequence[TrainerCallback] = (),
    ):
        self.processor = processor
        self._batches = batches
        self._validation = validation
        self._media_learning_rate = media_learning_rate
        super().__init__(
            model=model,
            args=args,
            data_collator=batches,
            train_dataset=_Numbers(len(batches.rows)),
            eval_dataset=validation and _Numbers(len(validation.batches.rows)),
            callbacks=[Sharding(), _Epochs(batches), *callbacks],
        )
        remove_printers(self)

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[Any]:
        """Of a step's clips, those that are about as long are padded together, on each process and in each part."""
        del train_dataset
        parts = self.args.gradient_accumulation_steps
        return BatchRebalanceSampler(
            self._batches.prompt_lengths(),
            self.args.train_batch_size * parts * self.args.world_size,
            self.args.world_size,
            parts,
            seed=self.args.seed,
            rank=self.args.process_index,
            drop_last=self.args.dataloader_drop_last,
        )

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Mean over the answers' tokens of all processes and accumulated batches."""
        assert not return_outputs
        total, tokens = _summed_loss(model, inputs)
        loss = total / (tokens if num_items_in_batch is None else num_items_in_batch)
        if num_items_in_batch is not None and self.args.average_tokens_across_devices:
            loss = loss * self.accelerator.num_processes  # which then take the mean of gradients
        return loss

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Two learning rates, weight decay on matrices only."""
        if self.optimizer is None:
            decayed = set(self.get_decay_parameter_names(self.model))
            groups: dict[tuple[bool, bool], list[Tensor]] = {}
            for name, parameter in self.model.named_parameters():
                if parameter.requires_grad:
                    kind = (name.startswith(_MEDIA), name in decayed)
                    groups.setdefault(kind, []).append(parameter)
            kind_of, options = self.get_optimizer_cls_and_kwargs(self.args, self.model)
            media_lr = self._media_learning_rate or self.args.learning_rate
            self.optimizer = kind_of(
                [
                    {
                        "params": parameters,
                        "lr": media_lr if media else self.args.learning_rate,
                        "weight_decay": self.args.weight_decay if decays else 0.0,
                    }
                    # The language model's first: the trainer logs the first one's learning rate.
                    for (media, decays), parameters in sorted(groups.items())
                ],
                **options,
            )
        return self.optimizer

    @torch.no_grad()
    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Loss in fixed wording, and how often the label scored first and the written answer's are right."""
        assert self._validation is not None
        model = self.accelerator.unwrap_model(self.model)
        training = model.training
        model.eval()
        try:
            with whole_weights(model, self.args):
                sums = self._validate(model, self._validation)
        finally:
            model.train(training)
        loss, tokens, labels, answers, formed, clips = self.accelerator.reduce(sums, "sum").tolist()
        metrics = {
            f"{metric_key_prefix}_loss": loss / tokens,
            f"{metric_key_prefix}_label_accuracy": labels / clips,
            f"{metric_key_prefix}_answer_accuracy": answers / clips,
            f"{metric_key_prefix}_format": formed / clips,
        }
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def _validate(self, model: EmostreamForCausalLM, validation: Validation) -> Tensor:
        """This process's share: summed loss, tokens, right labels, right answers, well-formed ones, clips."""
        batches, settings = validation.batches, validation.settings
        mine = range(self.args.process_index, len(batches.rows), self.args.world_size)
        sums = torch.zeros(6, dtype=torch.float32, device=self.args.device)
        size = self.args.per_device_eval_batch_size
        for start in range(0, len(mine), size):
            inputs = self._prepare_inputs(batches.validation(mine[start : start + size]))
            with self.accelerator.autocast():
                total, tokens = _summed_loss(model, inputs)
            sums[0] += total
            sums[1] += tokens
        bare = model.config.answer_style == "bare"
        rows: list[Row] = list(batches.rows)
        for predictions in predict(
            model, self.processor, rows, list(mine), settings, batches.store
        ):
            for prediction in predictions:
                scores = prediction.scores["both"]
                label = rows[prediction.index].label
                written = parse_answer(prediction.text or "", settings.labels, bare=bare)
                right = max(scores, key=scores.__getitem__) == label
                found = (right, written.label == label, written.well_formed, True)
                sums[2:] += torch.tensor(found, dtype=sums.dtype, device=sums.device)
        return sums

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        best = super()._determine_best_metric(metrics, trial)
        if best and self._validation is not None and self._validation.keep_best:
            self.save_model(str(Path(self.args.output_dir) / BEST), _internal_call=True)
        return best


def _summed_loss(model: Any, inputs: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Cross entropy of all targets together, and their number."""
    targets = inputs["shift_labels"]
    rest = {key: value for key, value in inputs.items() if key not in ("labels", "shift_labels")}
    logits = model(**rest, use_cache=False, logits_to_keep=targets.shape[1]).logits
    scored = targets != IGNORED
    total = F.cross_entropy(logits[scored].float(), targets[scored], reduction="sum")
    return total, scored.sum()
