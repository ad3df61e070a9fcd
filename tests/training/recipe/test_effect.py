"""The study of GRPO's effect: its sets of clips, and that every row is trained by settings that there are."""

from pathlib import Path

from transformers import TrainingArguments
from trl import GRPOConfig

from emostream.labels import DEFAULT_LABELS
from training.data.manifest import Row
from training.grpo.train import GrpoSettings
from training.recipe.effect import COLD_START, FULL, REASONING, SETS, Recipe, mislabelled
from training.sft.train import SftSettings
from training.tuning.settings import read_settings
from training.tuning.setup import fixed_settings


def test_a_share_of_the_labels_is_wrong_and_nothing_else():
    rows = [
        Row(path=Path(f"/{n}.mp4"), label=DEFAULT_LABELS[n % 7], split="train", actor=str(n))
        for n in range(50)
    ]
    wrong = mislabelled(rows, 0.2)
    assert sum(a.label != b.label for a, b in zip(rows, wrong, strict=True)) == 10
    assert [row.path for row in wrong] == [row.path for row in rows]
    assert {row.label for row in wrong} <= set(DEFAULT_LABELS)
    assert mislabelled(rows, 0.2) == wrong
    assert mislabelled(rows, 0.0) == rows


def test_rows_are_trained_by_settings_that_there_are(tmp_path):
    rows = Recipe(tmp_path).tuned()
    assert {part for _, part, _, _ in rows.values()} == set(SETS)
    rows["cold_start"] = ("sft", "cold_start", "base", COLD_START)
    assert {f"{row}{suffix}" for row, suffix in REASONING.items()} <= set(rows)
    for command, part, _, flags in rows.values():
        kinds = {"sft": (SftSettings, TrainingArguments), "grpo": (GrpoSettings, GRPOConfig)}
        settings, args = read_settings(
            kinds[command],
            recipe={"sft": "cold_start.yaml", "grpo": "grpo.yaml"}[command],
            config=None,
            flags=("--manifest", f"{part}.jsonl", *map(str, flags)),
            fixed=fixed_settings(tmp_path),
        )
        assert settings.manifest == f"{part}.jsonl"
        if part == FULL and "intervention" in getattr(settings, "rewards", ()):
            assert settings.twins == str(tmp_path / "corpora" / "labelled" / "twins.jsonl")
            assert len(settings.rewards) == len(args.reward_weights)
