"""`make tiny`: the whole recipe on two cores, from rendering the corpus to the table of results.

OUT/corpora/{train,test,ood}/     rendered clips, as `emostream-train corpus synth` writes them
OUT/manifests/*.jsonl             cold_start, rl, validation (held-out actors): parts of corpora/train
OUT/towers/{data,video,audio}/    rendered examples and pre-trained towers
OUT/features/                     what the towers make of every clip, shared by all that follows
OUT/models/ROW-seedK/             base, cold_start, label_only, grpo_paper, grpo, clear, grpo_clear
OUT/eval/ROW-seedK/SPLIT/         evaluation, and eval/fused.json
OUT/logs/                         what each stage said
OUT/recipe.json                   how long each took

A stage whose result is there is not run again; an interrupted one continues where its command can. Seeds other
than 0 repeat what follows the towers, for the rows in HEADLINE. Label-only SFT and all GRPO runs start from the cold
start and see the same clips; grpo_clear is first shown reasons without what cannot be told (clear).
"""

import itertools
import json
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from emostream import load_model, save_model
from emostream.model.presets import from_preset
from training.data.features import cache_features
from training.data.manifest import read_manifest, write_manifest
from training.evaluation.probe import fused_classifier
from training.recipe.stages import CPU, Stage, Stages, encode_all, run_for_seeds, train_command
from training.recipe.tower_data import is_held_out, render
from training.sft.compose import corpus_texts

logger = logging.getLogger(__name__)

#: Clips of each corpus and its seed. The towers are trained on clips of another seed than the language model.
CORPORA = {"train": (9800, 1), "test": (2100, 0), "ood": (2100, 0)}
COLD_START_CLIPS = 6000
TOWER_CLIPS = 16_000
TOWER_SEED = 0
TOWERS = {"video": (1700, 48), "audio": (1300, 64)}  # steps, batch

SFT = (*CPU, "--learning_rate", "1e-3", "--label_first", "1.0", "--save_steps", "188")
COLD_START = (*SFT, "--num_train_epochs", "4", "--wordings", "2", "--eval_steps", "188")
LABEL_ONLY = (
    *(*SFT, "--answers", "label", "--learning_rate", "2e-4"),
    *("--num_train_epochs", "3", "--eval_steps", "93"),
)
#: As many minutes as label-only SFT. The rate falls to zero, so that the last few batches do not decide. R1-Omni's
#: weight of the divergence from the cold start keeps the text fluent.
GRPO = (
    *(*CPU, "--learning_rate", "1e-4", "--lr_scheduler_type", "cosine", "--temperature", "0.8"),
    *("--max_steps", "190", "--beta", "0.04"),
)
#: SFT on reasons that leave out what cannot be told, then fewer steps of GRPO: no longer than either alone.
CLEAR = (
    *(*SFT, "--learning_rate", "5e-4", "--wordings", "2", "--clear_from", "0.65"),
    *("--num_train_epochs", "2", "--eval_steps", "93"),
)
GRPO_CLEAR = (*GRPO, "--max_steps", "100")
REWARDS = {
    "grpo": (
        *("accuracy", "format", "grounding", "--reward_weights", "1", "0.5", "2"),
        *("--contradiction_cost", "3"),
    ),
    "grpo_paper": ("paper_accuracy", "paper_format", "--reward_weights", "1", "1"),
}
SPLITS = ("test", "ood")
ROWS = ("base", "cold_start", "label_only", "grpo_paper", "grpo", "grpo_clear")
HEADLINE = ("cold_start", "label_only", "grpo_paper", "grpo", "clear", "grpo_clear")


class Recipe(Stages):
    """The stages, by the folder that they fill.

    Args:
        out: Where everything goes.
    """

    def __init__(self, out: Path):
        super().__init__("tiny", out)

    def run(self, seeds: Sequence[int]) -> None:
        """Everything that is not there yet."""
        clips = sum(count for count, _ in CORPORA.values())
        with self.step("corpora", f"{clips:,} clips rendered and encoded as mp4"):
            self.corpora()
        steps = " and ".join(f"{name} {count:,} steps" for name, (count, _) in TOWERS.items())
        with self.step("towers", f"{TOWER_CLIPS:,} examples rendered; {steps}, a core each"):
            self.towers()
        for seed in seeds:
            self.base(seed)
        with self.step("features", f"{clips:,} clips decoded and encoded"):
            self.encode(seeds[0])
        with self.step("cold start", f"SFT on {COLD_START_CLIPS:,} clips, for each seed"):
            self.cold_start(seeds)
        with self.step("tuning", "SFT on labels alone, GRPO with either rewards, for each seed"):
            self.tune(seeds)
        with self.step("clear reasons", "SFT on what is clear, then GRPO, for each seed"):
            self.tune_clear(seeds)
        with self.step("evaluation", "all of them on both test sets"):
            self.evaluate(seeds)

    def corpora(self) -> None:
        """Render all clips and part the training corpus by actor and purpose."""
        for split, (clips, seed) in CORPORA.items():
            folder = self.out / "corpora" / split
            if not (folder / "manifest.jsonl").is_file():
                self.commands(
                    {
                        f"corpus-{split}": train_command(
                            "corpus", "synth", "--out", folder, "--clips", clips, "--seed", seed,
                            "--split", split,
                        )
                    }
                )  # fmt: skip
        rows = read_manifest(self.out / "corpora" / "train" / "manifest.jsonl")
        held_out = [replace(row, split="validation") for row in rows if is_held_out(row.actor)]
        others = [row for row in rows if not is_held_out(row.actor)]
        parts = {
            "cold_start": others[:COLD_START_CLIPS],
            "rl": others[COLD_START_CLIPS:],
            "validation": held_out,
        }
        for name, part in parts.items():
            write_manifest(self.manifest(name), part)

    def towers(self) -> None:
        """Render examples, then train both towers, a core each."""
        folder = self.out / "towers"
        if not all((folder / name / "config.json").is_file() for name in TOWERS):
            render(
                folder / "data",
                clips=TOWER_CLIPS,
                validation=1000,
                seed=TOWER_SEED,
                workers=os.cpu_count() or 1,
                say=logger.info,
            )
            model, processor = from_preset("tiny")
            save_model(model, processor, folder / "start")
        self.commands(
            {
                f"tower-{name}": (
                    sys.executable, "-m", "training.recipe.towers", name, "--model", folder / "start",
                    "--data", folder / "data", "--out", folder / name, "--steps", steps,
                    "--batch-size", size,
                )
                for name, (steps, size) in TOWERS.items()
                if not (folder / name / "config.json").is_file()
            }
        )  # fmt: skip

    def base(self, seed: int) -> None:
        """A language model with random weights behind the trained towers."""
        folder = self.model("base", seed)
        if (folder / "config.json").is_file():
            return
        model, processor = from_preset("tiny", seed=seed, texts=corpus_texts())
        for name, parts in (
            ("video", ("vision_tower", "mm_projector")),
            ("audio", ("audio_tower", "audio_projector")),
        ):
            trained, _ = load_model(self.out / "towers" / name)
            for part in parts:
                state = getattr(trained.model, part).state_dict()
                getattr(model.model, part).load_state_dict(state)
        save_model(model, processor, folder)

    def encode(self, seed: int) -> None:
        """Run the towers over all clips once, and see what a plain classifier makes of it."""
        result = self.out / "eval" / "fused.json"
        if result.is_file():
            return
        model, processor = load_model(self.model("base", seed))
        rows = {name: read_manifest(self.manifest(name)) for name in ("cold_start", "rl")}
        tests = {"validation": read_manifest(self.manifest("validation"))}
        tests |= {split: read_manifest(self.manifest(split)) for split in SPLITS}
        everything = [row for part in (*rows.values(), *tests.values()) for row in part]
        encode_all(self.model("base", seed), self.features, everything)
        store = cache_features(model, processor, everything, self.features)
        scores = fused_classifier(
            model, processor, store, [*rows["cold_start"], *rows["rl"]], tests
        )
        result.parent.mkdir(parents=True, exist_ok=True)
        result.write_text(json.dumps(scores, indent=1) + "\n")
        logger.info("towers' own fused classifier: %s", json.dumps(scores))

    def cold_start(self, seeds: Sequence[int]) -> None:
        """SFT on reasoned answers."""
        self.train_rows({"cold_start": ("sft", "cold_start", "base", COLD_START)}, seeds)

    def tune(self, seeds: Sequence[int]) -> None:
        """Label-only SFT and both kinds of GRPO from the cold start."""
        runs: dict[str, Stage] = {"label_only": ("sft", "rl", "cold_start", LABEL_ONLY)}
        for row, rewards in REWARDS.items():
            runs[row] = ("grpo", "rl", "cold_start", (*GRPO, "--rewards", *rewards))
        self.train_rows(runs, seeds)

    def tune_clear(self, seeds: Sequence[int]) -> None:
        """SFT on reasons without what cannot be told, then grounded GRPO."""
        grounded = (*GRPO_CLEAR, "--rewards", *REWARDS["grpo"])
        self.train_rows({"clear": ("sft", "rl", "cold_start", CLEAR)}, seeds)
        self.train_rows({"grpo_clear": ("grpo", "rl", "clear", grounded)}, seeds)

    def evaluate(self, seeds: Sequence[int]) -> None:
        """Every row on both test sets."""
        commands = {}
        for row, seed, split in itertools.product(ROWS, seeds, SPLITS):
            folder = self.out / "eval" / f"{row}-seed{seed}" / split
            if _in_table(row, seed) and not (folder / "eval.json").is_file():
                commands[f"eval-{row}-seed{seed}-{split}"] = train_command(
                    "eval", "--model", self.model(row, seed), "--manifest", self.manifest(split),
                    "--out", folder, "--features", self.features, "--max-new-tokens", 96,
                )  # fmt: skip
        self.commands(commands)

    def manifest(self, name: str) -> Path:
        """Manifest of a part of the training corpus, or of a test set."""
        if name in SPLITS:
            return self.out / "corpora" / name / "manifest.jsonl"
        return super().manifest(name)


def _in_table(row: str, seed: int) -> bool:
    return seed == 0 or row in HEADLINE


def main() -> None:
    """Command line of the recipe."""
    run_for_seeds(Recipe, __doc__, Path("runs/tiny"))


if __name__ == "__main__":
    main()
