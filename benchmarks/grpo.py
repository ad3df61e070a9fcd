"""Speed and memory of GRPO: sampling groups of completions and updating on them.

    python benchmarks/grpo.py --preset tiny
    python benchmarks/grpo.py --preset 0.5b --device cuda --lora-rank 16 --checkpointing

Clips are random features in the shapes that the towers give, weights are random, so completions run to their limit. The
towers never run (training caches what they give) and are cut to two layers. The floor is the arithmetic of the same
tokens (two operations a weight and token, six where it is trained, each prompt once) at the rate of a large matrix
product measured in the same run. The last line of output is the result as JSON.
"""

import argparse
import copy
import resource
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from model import ceilings
from provenance import write_result
from torch import Tensor
from trl import GRPOConfig

from emostream.model.modeling import EmostreamForCausalLM
from emostream.model.presets import (
    BASE_TEXT,
    OWN_SIZES,
    PRESETS,
    build_tokenizers,
    preset_config,
    processor_for,
)
from emostream.model.processor import EmostreamProcessor
from training.data.manifest import Row
from training.data.prompts import ClipPrompts
from training.grpo.trainer import EmostreamGRPOTrainer
from training.tuning.lora import add_lora

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class RandomFeatures:
    """Features of the right shape, the same for a clip whenever it is asked for."""

    def __init__(self, processor: EmostreamProcessor):
        config = processor.config
        mel_frames = 2 * config.audio_config.max_source_positions
        self._shapes = {
            "vision_features": (
                config.num_frames,
                config.patches_per_side**2,
                config.mm_hidden_size,
            ),
            "audio_features": (config.audio_tokens(mel_frames), config.audio_hidden_size),
        }

    def features(self, row: Row) -> dict[str, Tensor]:
        """Of a clip."""
        generator = torch.Generator().manual_seed(int(row.start_s))
        return {n: torch.randn(s, generator=generator) for n, s in self._shapes.items()}


class Timed(EmostreamGRPOTrainer):
    """Keeps how long each step and its sampling took."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.step_s: list[float] = []
        self.sampling_s: list[float] = []
        self.sampled: list[int] = []

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """Timed."""
        begun = time.perf_counter()
        loss = super().training_step(*args, **kwargs)
        self._wait()
        self.step_s.append(time.perf_counter() - begun)
        return loss

    def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
        begun = time.perf_counter()
        completions, logps = super()._generate_single_turn(*args, **kwargs)
        self._wait()
        self.sampling_s.append(time.perf_counter() - begun)
        self.sampled.append(sum(map(len, completions)))
        return completions, logps

    def _wait(self) -> None:
        if self.accelerator.device.type == "cuda":
            torch.cuda.synchronize()


def some_reward(*, completion_ids: list[list[int]], **_: Any) -> list[float | None]:
    """Anything that differs within a group."""
    return [sum(i % 2 == 0 for i in ids) / len(ids) for ids in completion_ids]


def random_model(name: str, dtype: torch.dtype) -> tuple[EmostreamForCausalLM, EmostreamProcessor]:
    """A preset with towers of two layers, in `dtype` from the start: at 7B twice the memory is not there."""
    tokenizer, gate_tokenizer = build_tokenizers(BASE_TEXT)
    config = preset_config(name, **({"vocab_size": len(tokenizer)} if name in OWN_SIZES else {}))
    config.vision_config.num_hidden_layers = config.audio_config.encoder_layers = 2
    config.eos_token_id, config.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    torch.manual_seed(0)
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        model = EmostreamForCausalLM(copy.deepcopy(config))
    finally:
        torch.set_default_dtype(default)
    return model, processor_for(config, tokenizer, gate_tokenizer)


def measure(options: argparse.Namespace, folder: str) -> dict[str, Any]:
    """Train a few steps; the first is a warm-up."""
    device, dtype = torch.device(options.device), DTYPES[options.dtype]
    model, processor = random_model(options.preset, dtype)
    model.to(device).freeze_towers()
    if options.lora_rank:
        add_lora(model, options.lora_rank, 2 * options.lora_rank)
    if options.autocast:
        for parameter in model.parameters():
            if parameter.requires_grad:  # as `training.grpo.train` has it
                parameter.data = parameter.data.float()
    count = options.prompts * options.accumulation * (options.steps + 1)
    rows = [
        Row(path=Path(f"{n}.mp4"), label="happy", split="train", start_s=float(n))
        for n in range(count)
    ]
    prompts = ClipPrompts(rows, RandomFeatures(processor), processor)
    args = GRPOConfig(
        output_dir=folder,
        per_device_train_batch_size=options.prompts * options.generations,
        gradient_accumulation_steps=options.accumulation,
        num_generations=options.generations,
        max_completion_length=options.tokens,
        max_steps=options.steps + 1,
        learning_rate=1e-6,
        beta=options.beta,
        use_cpu=device.type == "cpu",
        bf16=options.autocast,
        gradient_checkpointing=options.checkpointing,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    trainer = Timed(
        model,
        processor,
        prompts,
        reward_funcs=[some_reward],
        args=args,
        train_dataset=Dataset.from_list(
            [{"prompt": row.path.name, "clip": n} for n, row in enumerate(rows)]
        ),
    )
    trainer.train()
    weights = sum(p.numel() for p in model.model.layers.parameters()) + model.lm_head.weight.numel()
    length = len(prompts.ids(0))
    a_step = (
        options.accumulation * options.prompts * (length + options.generations * options.tokens)
    )
    backward = 2 if options.lora_rank == 0 else 1  # frozen weights need no gradients of their own
    recomputed = 1 if options.checkpointing else 0
    flops = 2 * weights * a_step * (1 + 1 + backward + recomputed + bool(options.beta))
    group = options.accumulation
    steps_s = [sum(trainer.step_s[i : i + group]) for i in range(0, len(trainer.step_s), group)][1:]
    step_s = statistics.median(steps_s)
    ceiling = ceilings(device, torch.bfloat16 if options.autocast else dtype)["flops_per_s"]
    peak = (
        torch.cuda.max_memory_allocated()
        if device.type == "cuda"
        else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    )
    return {
        "language_model_weights": weights,
        "trained_weights": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "prompt_tokens": length,
        "completions_a_step": group * options.prompts * options.generations,
        "mean_completion_tokens": sum(trainer.sampled) / len(trainer.sampled)
        / (group * options.prompts * options.generations),
        "step_s": step_s,
        "sampling_s": statistics.median(trainer.sampling_s[1:]),
        "steps_per_s": 1 / step_s,
        "completion_tokens_per_s": statistics.median(trainer.sampled[1:]) / step_s,
        "floor_s": flops / ceiling,
        "flops_per_s_ceiling": ceiling,
        "peak_memory_gib": peak / 2**30,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--preset", choices=PRESETS, default="tiny")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=DTYPES, help="of the weights (default: by the preset)")
    parser.add_argument("--autocast", action="store_true", help="compute in bfloat16")
    parser.add_argument("--lora-rank", type=int, default=0)
    parser.add_argument("--checkpointing", action="store_true", help="recompute activations")
    parser.add_argument("--prompts", type=int, default=16, help="of a batch")
    parser.add_argument("--accumulation", type=int, default=1, help="batches of a step")
    parser.add_argument("--generations", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=48, help="of a completion")
    parser.add_argument("--beta", type=float, default=0.0, help="above 0 with a reference model")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--threads", type=int, help="of torch on the CPU")
    parser.add_argument(
        "--out", type=Path, help="result file, if not results/grpo_PRESET_DEVICE.json"
    )
    options = parser.parse_args()
    options.dtype = options.dtype or ("fp32" if options.preset in OWN_SIZES else "bf16")
    if options.threads:
        torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        measured = measure(options, folder)
    name = f"grpo_{options.preset}_{options.device.partition(':')[0]}"
    setting = {k: v for k, v in vars(options).items() if k != "out"}
    write_result(name, {"settings": setting, **measured}, options.out)


if __name__ == "__main__":
    main()
