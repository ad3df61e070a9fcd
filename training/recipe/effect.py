"""What GRPO brings over SFT on labels alone at equal compute: few clips, wrong labels, larger groups, other rewards.

    python -m training.recipe.effect --out runs/effect --seeds 0 1 2

OUT/corpora/    rendered clips: some with reasons, others with labels, tests, and those with all twins
OUT/manifests/  what each row is trained on
OUT/models/     ROW-seedK
OUT/eval/       ROW-seedK/SPLIT/, as `emostream-train table` reads them
OUT/faithful/   ROW-seedK/, what `emostream-train faithful` finds
OUT/runs/       logs and states that an interrupted run goes on from

As in R1-Omni, few clips have reasons and others a label alone. Every tuned row starts from the cold start of its seed,
behind towers and projectors of the shipped tiny model, and takes about as many minutes of a core. A stage whose result
is there is not run again. `benchmarks/effect.py` makes the tables.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from emostream import load_model, save_model
from emostream.labels import DEFAULT_LABELS
from emostream.model.presets import from_preset
from training.data.manifest import Row, read_manifest, write_manifest
from training.recipe.stages import CPU, Stage, Stages, encode_all, run_for_seeds, train_command
from training.recipe.tower_data import is_held_out
from training.sft.compose import corpus_texts
from training.synth.twins import MANIFEST

#: Clips with reasons; sets of clips with labels, of which a share is wrong.
REASONED = 1000
SETS: Mapping[str, tuple[int, float]] = {
    "300": (300, 0.0),
    "300_wrong": (300, 0.2),
    "1000": (1000, 0.0),
    "1000_wrong": (1000, 0.2),
}
#: The twins that GRPO sees, and all that reasons are tested on.
SEEN = ("face_cue", "voice_cue")
TESTED = (*SEEN, "face", "voice", "take")
#: Clips of each corpus, split, seed, twins. About a tenth of the training actors are held out.
CORPORA: Mapping[str, tuple[int, str, int, tuple[str, ...]]] = {
    "reasoned": (1200, "train", 1, ()),
    "labelled": (1200, "train", 2, SEEN),
    "test": (700, "test", 0, ()),
    "ood": (700, "ood", 0, ()),
    "twins": (200, "test", 3, TESTED),
}
TESTS = ("test", "ood")

COLD_START = (
    *(*CPU, "--learning_rate", "1e-3", "--label_first", "1.0", "--wordings", "2"),
    *("--num_train_epochs", "8", "--eval_steps", "500", "--save_steps", "500"),
    *("--validation_limit", "100"),
)
#: Of GRPO (128 completions), and of SFT on labels (32 clips): as long on a core without bfloat16.
STEPS, LABEL_STEPS = 46, 128
LABEL_ONLY = (
    *(*CPU, "--answers", "label", "--label_first", "1.0", "--learning_rate", "2e-4"),
    *("--max_steps", str(LABEL_STEPS), "--eval_steps", "500", "--save_steps", "500"),
    *("--validation_limit", "100"),
)
GRPO = (
    *(*CPU, "--learning_rate", "1e-4", "--lr_scheduler_type", "cosine", "--temperature", "0.8"),
    *("--max_steps", str(STEPS), "--beta", "0.04"),
)
PAPER = (*GRPO, "--rewards", "paper_accuracy", "paper_format", "--reward_weights", "1", "1")
GROUNDED = (*GRPO, "--contradiction_cost", "6", "--rewards", "accuracy", "format", "grounding")
WAYS = {"label_only": ("sft", LABEL_ONLY), "grpo_paper": ("grpo", PAPER)}
#: The set that larger groups and other rewards are tried on.
FULL = "1000"
#: Rows whose reasons are tested, and what follows in the names of their folders.
REASONING = {
    "cold_start": "",
    "grpo_paper": f"_{FULL}",
    "grpo": f"_{FULL}",
    "grpo_intervention": f"_{FULL}",
}


class Recipe(Stages):
    """The stages, by the folder that they fill.

    Args:
        out: Where everything goes.
    """

    def __init__(self, out: Path):
        super().__init__("effect", out)

    def run(self, seeds: Sequence[int]) -> None:
        """Everything that is not there yet."""
        with self.step("corpora", "clips rendered and encoded as mp4"):
            self.corpora()
        for seed in seeds:
            self.base(seed)
        with self.step("features", "clips decoded and encoded"):
            rows = [row for name in CORPORA for row in (*self.clips(name), *self.twins(name))]
            encode_all(self.model("base", seeds[0]), self.features, rows)
        with self.step("cold start", f"SFT on {REASONED:,} clips with reasons, for each seed"):
            self.train_rows({"cold_start": ("sft", "cold_start", "base", COLD_START)}, seeds)
        with self.step("tuning", "on labels, for each set of clips, way and seed"):
            self.train_rows(self.tuned(), seeds)
        with self.step("evaluation", "both test sets; by intervention, where rewards differ"):
            self.evaluate(seeds)

    def tuned(self) -> dict[str, Stage]:
        """What starts from the cold start."""
        rows: dict[str, Stage] = {
            f"{way}_{name}": (command, name, "cold_start", flags)
            for name, (way, (command, flags)) in itertools.product(SETS, WAYS.items())
        }
        wide = (*PAPER, "--num_generations", "16")
        rows[f"grpo_paper_16_{FULL}"] = ("grpo", FULL, "cold_start", wide)
        weights = ("--reward_weights", "1", "0.5", "2")
        twins = self.clips_file("labelled").with_name(MANIFEST)
        both = (*GROUNDED, "intervention", *weights, "1", "--twins", str(twins))
        rows[f"grpo_{FULL}"] = ("grpo", FULL, "cold_start", (*GROUNDED, *weights))
        rows[f"grpo_intervention_{FULL}"] = ("grpo", FULL, "cold_start", both)
        return rows

    def corpora(self) -> None:
        """Render all clips, and part those for training by actor and purpose."""
        for name, (clips, split, seed, twins) in CORPORA.items():
            words = ("--out", self.clips_file(name).parent, "--clips", clips, "--seed", seed)
            kinds = ("--twins", ",".join(twins)) if twins else ()
            if not self.clips_file(name).is_file():
                command = train_command("corpus", "synth", *words, "--split", split, *kinds)
                self.commands({f"corpus-{name}": command})
        reasoned, labelled = self.clips("reasoned"), self.clips("labelled")
        held_out = [row for row in (*reasoned, *labelled) if is_held_out(row.actor)]
        parts = {
            "validation": [replace(row, split="validation") for row in held_out],
            "cold_start": [row for row in reasoned if not is_held_out(row.actor)][:REASONED],
        }
        others = [row for row in labelled if not is_held_out(row.actor)]
        for name, (clips, wrong) in SETS.items():
            parts[name] = mislabelled(others[:clips], wrong)
        for name, part in parts.items():
            write_manifest(self.manifest(name), part)

    def base(self, seed: int) -> None:
        """A language model with random weights behind the towers and projectors of the tiny model."""
        folder = self.model("base", seed)
        if (folder / "config.json").is_file():
            return
        model, processor = from_preset("tiny", seed=seed, texts=corpus_texts())
        shipped, _ = load_model("tiny")
        for part in ("vision_tower", "mm_projector", "audio_tower", "audio_projector"):
            state = getattr(shipped.model, part).state_dict()
            getattr(model.model, part).load_state_dict(state)
        save_model(model, processor, folder)

    def evaluate(self, seeds: Sequence[int]) -> None:
        """Every row on both test sets; reasons by intervention, where rewards differ."""
        commands: dict[str, Sequence[object]] = {}
        reasoning = {f"{row}{suffix}" for row, suffix in REASONING.items()}
        for row, seed in itertools.product(("cold_start", *self.tuned()), seeds):
            name, words = f"{row}-seed{seed}", ("--model", self.model(row, seed), "--features")
            for test in TESTS:
                folder = self.out / "eval" / name / test
                if not (folder / "eval.json").is_file():
                    commands[f"eval-{name}-{test}"] = train_command(
                        "eval", *words, self.features, "--manifest", self.clips_file(test),
                        "--out", folder, "--max-new-tokens", 96, "--conditions", "both",
                    )  # fmt: skip
            folder = self.out / "faithful" / name
            if row in reasoning and not (folder / "faithful.json").is_file():
                commands[f"faithful-{name}"] = train_command(
                    "faithful", *words, self.features, "--manifest", self.clips_file("twins"),
                    "--out", folder, "--max-new-tokens", 96, "--edits", "mute,hidden",
                )  # fmt: skip
        self.commands(commands)

    def clips_file(self, corpus: str) -> Path:
        """Manifest of one of `CORPORA`."""
        return self.out / "corpora" / corpus / "manifest.jsonl"

    def clips(self, corpus: str) -> list[Row]:
        """Its clips."""
        return read_manifest(self.clips_file(corpus))

    def twins(self, corpus: str) -> list[Row]:
        """Their twins, if it has any."""
        file = self.clips_file(corpus).with_name(MANIFEST)
        return read_manifest(file) if file.is_file() else []


def mislabelled(rows: Sequence[Row], share: float) -> list[Row]:
    """Rows of which a share, drawn by a fixed seed, have another label than theirs."""
    rng = np.random.default_rng(0)
    wrong = set(rng.choice(len(rows), round(share * len(rows)), replace=False).tolist())

    def other(label: str | None) -> str:
        return str(rng.choice([known for known in DEFAULT_LABELS if known != label]))

    return [
        replace(row, label=other(row.label)) if at in wrong else row for at, row in enumerate(rows)
    ]


def main() -> None:
    """Command line of the recipe."""
    run_for_seeds(Recipe, __doc__, Path("runs/effect"))


if __name__ == "__main__":
    main()
