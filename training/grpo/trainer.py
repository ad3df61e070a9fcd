"""GRPO on TRL for a model whose prompts hold pictures and sound.

TRL samples, scores and clips; what is ours is how completions are sampled and how their log-probabilities are computed,
both with a prompt shared by its group (`training.grpo.rollout`, `training.data.shared_prompt`) and with the frozen
towers' features taken from a cache. GRPO is arXiv:2402.03300; the defaults follow DAPO (arXiv:2503.14476): no
reference model, token-level normalisation, clip-higher, truncated completions masked.
"""

import copy
import functools
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer
from trl.trainer.utils import RepeatSampler, add_fused_lm_head, split_tensor_dict

from emostream.errors import ConfigError
from emostream.model.modeling import EmostreamForCausalLM
from emostream.model.processor import EmostreamProcessor
from training.data.prompts import ClipPrompts
from training.data.shared_prompt import pack
from training.grpo.rewards import RewardFunction
from training.grpo.rollout import sample_completions, uniform_numbers
from training.grpo.signal import ALIKE, share_alike
from training.tuning.checkpoints import PublishedCheckpoints
from training.tuning.sharded import Sharding, whole_weights
from training.tuning.watch import FiniteLoss, check_finite

#: Settings of TRL that change the sampled distribution, and the value at which they do not.
_NEUTRAL = {"top_p": 1.0, "top_k": 0, "min_p": None, "repetition_penalty": 1.0, "use_vllm": False}


class _EpochSampler(RepeatSampler):
    """TRL's order of prompts, drawn anew from seed and epoch, so that a resumed run goes on in the same order."""

    def __init__(self, epoch: Callable[[], int], *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        if self.shuffle:
            self.generator.manual_seed((self.seed or 0) + self._epoch())
        return super().__iter__()


class EmostreamGRPOTrainer(FiniteLoss, PublishedCheckpoints, GRPOTrainer):
    """TRL's trainer with rollouts and log-probabilities of an audio-visual model.

    Rows of the dataset hold `prompt` (the clip's name, for the log), `clip` (its index in `prompts`) and the columns
    that the rewards read.

    Args:
        model: Its towers frozen; may carry adapters of `training.tuning.lora`.
        processor: The model's.
        prompts: The clips.
        reward_funcs: As TRL takes them.
        args: TRL's settings.
        train_dataset: One row a clip.
        callbacks: Further callbacks.
        twins: Index of a clip -> the row of its counterfactual twin, as those of the dataset. Half of the clip's group
            then answers the twin. A clip without one has two halves of its own.

    Raises:
        ConfigError: A setting cannot be served: sampling that is not the policy's own, a batch that splits a group,
            or a reference model beside sharded weights.
    """

    def __init__(
        self,
        model: EmostreamForCausalLM,
        processor: EmostreamProcessor,
        prompts: ClipPrompts,
        *,
        reward_funcs: Sequence[RewardFunction],
        args: GRPOConfig,
        train_dataset: Any,
        callbacks: list[TrainerCallback] | None = None,
        twins: Mapping[int, dict[str, Any]] | None = None,
    ):
        check_sampling(args)
        self._twins = twins or {}
        if self._twins and args.num_generations % 2:
            raise ConfigError(
                f"grpo: num_generations is {args.num_generations}; half of a group answers the twin, so choose an "
                "even number."
            )
        if args.fsdp and args.beta:
            raise ConfigError("grpo: a sharded model has no reference; with fsdp, leave beta at 0.")
        self._prompts = prompts
        self.processor = processor
        self._clips = torch.empty(0, dtype=torch.long)  # of the completions at hand
        # TRL would load a reference by the model's name. What is frozen is shared with the copy.
        beta, args.beta = args.beta, 0.0
        frozen = {id(p): p for p in model.parameters() if not p.requires_grad}
        reference = copy.deepcopy(model, frozen).requires_grad_(False) if beta else None
        super().__init__(
            model=model,
            reward_funcs=[self._watched(function) for function in reward_funcs],
            args=args,
            train_dataset=train_dataset,
            processing_class=processor.tokenizer,
            callbacks=[Sharding(), *(callbacks or ())],
        )
        args.beta = self.beta = beta
        if reference is not None:
            add_fused_lm_head(
                reference, temperature=self.temperature, outputs=("log_probs", "entropy")
            )
            self.ref_model = self.accelerator.prepare_model(reference.eval(), evaluation_mode=True)

    def _watched(self, function: RewardFunction) -> RewardFunction:
        @functools.wraps(function)
        def reward(**columns: Any) -> list[float | None]:
            values = function(**columns)
            for value in values:
                if value is not None:
                    check_finite(function.__name__, value, self.state.global_step + 1)
            return values

        return reward

    def _get_train_sampler(self, dataset: Any = None) -> RepeatSampler:
        return _EpochSampler(
            lambda: int(self.state.epoch or 0),
            self.train_dataset if dataset is None else dataset,
            mini_repeat_count=self.num_generations,
            batch_size=self.args.generation_batch_size // self.num_generations,
            repeat_count=self.num_iterations * self.args.steps_per_generation,
            shuffle=self.shuffle_dataset,
            seed=self.args.seed,
        )

    def _prepare_inputs(self, generation_batch: Any) -> dict[str, Any]:
        # As TRL's, but completions stay in their order: a group that is spread over batches cannot share its prompt.
        if not self.model.training:
            return self._generate_and_score_completions(generation_batch)
        steps = self.args.steps_per_generation
        if self._step % (steps * self.num_iterations) == 0 or self._buffered_inputs is None:
            batch = self._generate_and_score_completions(generation_batch)
            self._buffered_inputs: Any = split_tensor_dict(batch, steps)
        return self._buffered_inputs[self._step % steps]

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        if self._twins:
            group = self.num_generations
            inputs = [
                self._twins.get(row["clip"], row) if place % group >= group // 2 else row
                for place, row in enumerate(inputs)
            ]
        self._clips = torch.tensor([row["clip"] for row in inputs])
        with warnings.catch_warnings():
            # TRL 1.16 calls these by names that transformers 5.24 replaced.
            warnings.filterwarnings(
                "ignore", ".*gradient_checkpointing.* is deprecated", FutureWarning
            )
            batch = super()._generate_and_score_completions(inputs)
        batch["clips"] = self._clips
        alike = self.accelerator.gather(share_alike(batch["advantages"], self.num_generations))
        mode = "train" if self.model.training else "eval"
        self._metrics[mode][ALIKE].append(alike.mean().item())
        return batch

    def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
        known = {int(clip): self._prompts.ids(int(clip)) for clip in self._clips.unique()}
        return [known[int(clip)] for clip in self._clips], None, {}

    def _generate_single_turn(
        self,
        prompt_ids: list[list[int]],
        images: None,
        multimodal_fields: dict[str, Any],
        num_generations: int,
        *_: Any,
        **__: Any,
    ) -> tuple[list[list[int]], None]:
        if self._twins:
            num_generations //= 2
        clips = self._clips[::num_generations].tolist()
        ids = prompt_ids[::num_generations]
        length = max(map(len, ids))
        pad = self._tokenizer.pad_token_id
        inputs = {
            "input_ids": torch.tensor([[pad] * (length - len(row)) + row for row in ids]),
            "attention_mask": torch.tensor(
                [[0] * (length - len(row)) + [1] * len(row) for row in ids]
            ),
            **self._prompts.media(clips, length),
        }
        again = [at > 0 and clips[at - 1] == clip for at, clip in enumerate(clips)]
        uniform = uniform_numbers(
            [
                (self.args.seed, self.state.global_step, clip, *([1] if second else []))
                for clip, second in zip(clips, again, strict=True)
            ],
            num_generations,
            self.max_completion_length,
        )
        model = self.accelerator.unwrap_model(self.model)
        training = model.training
        model.eval()
        try:
            with whole_weights(model, self.args), self.accelerator.autocast():
                completions = sample_completions(
                    model,
                    self._to_device(inputs),
                    uniform,
                    stops=self.eos_token_ids,
                    temperature=self.temperature,
                )
        finally:
            model.train(training)
        return completions, None

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        self._clips = inputs["clips"]
        return super()._compute_loss(model, inputs)

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        **_: Any,
    ) -> tuple[Tensor, Tensor | None, None]:
        # Chunks start with a group, or the group's prompt is computed twice.
        rows = len(input_ids)
        size = min(batch_size or rows, rows)
        chunks = [
            self._score(
                model,
                input_ids[i : i + size],
                attention_mask[i : i + size],
                logits_to_keep,
                self._clips[i : i + size],
            )
            for i in range(0, rows, size)
        ]
        logps, entropies = (torch.cat(parts) for parts in zip(*chunks, strict=True))
        return logps, entropies if compute_entropy else None, None

    def _score(
        self, model: Any, ids: Tensor, mask: Tensor, completion_tokens: int, clips: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(B, C) log-probabilities of completions, and entropies of the distributions that they were drawn from."""
        length = ids.shape[1] - completion_tokens
        starts = torch.ones(len(clips), dtype=torch.bool)
        starts[1:] = clips[1:] != clips[:-1]
        first = starts.nonzero()[:, 0]
        prompt_B = (starts.cumsum(0) - 1).to(ids.device)
        packed = pack(
            ids[first, :length], mask[first, :length], ids[:, length:], mask[:, length:], prompt_B
        )
        media = self._to_device(self._prompts.media(clips[first].tolist(), length))
        with self.accelerator.autocast():
            out = model(
                input_ids=packed.input_ids,
                position_ids=packed.position_ids,
                attention_mask={"full_attention": packed.visible},
                shift_labels=packed.targets,
                fused_lm_head=True,
                **media,
            )
        return (
            packed.unpack(out.log_probs, completion_tokens),
            packed.unpack(out.entropy, completion_tokens),
        )

    def _to_device(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        return {key: value.to(self.accelerator.device) for key, value in inputs.items()}

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As TRL's, without figures of which there was no value: a batch without clipped or scored tokens has none."""
        figures = self._metrics["train" if self.model.training else "eval"]
        for name in [n for n, values in figures.items() if all(map(math.isnan, values))]:
            del figures[name]
        super().log(logs, start_time)

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Checkpoints hold what the published layout holds."""

    def _send_telemetry(self) -> None:
        """Nothing is sent anywhere."""


def check_sampling(args: GRPOConfig) -> None:
    """Refuse settings that cannot be served.

    Raises:
        ConfigError: Sampling is not the policy's own, or a batch splits a group.
    """
    for name, neutral in _NEUTRAL.items():
        if getattr(args, name) != neutral:
            raise ConfigError(
                f"grpo: {name} is {getattr(args, name)}; completions are sampled from the policy itself, so leave it "
                f"at {neutral}."
            )
    mine = args.per_device_train_batch_size * args.steps_per_generation
    if mine % args.num_generations:
        raise ConfigError(
            f"grpo: per_device_train_batch_size x steps_per_generation is {mine}, wanted a multiple of num_generations "
            f"{args.num_generations}: a process samples whole groups."
        )
