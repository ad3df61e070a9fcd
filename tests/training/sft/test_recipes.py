from pathlib import Path

import pytest
from transformers import TrainingArguments

from emostream.errors import ConfigError
from training.sft.train import SftSettings
from training.tuning.settings import RECIPES, read_settings

SFT = sorted(p.stem for p in RECIPES.glob("*.yaml") if not p.stem.startswith("grpo"))


def read(tmp_path, config, *flags):
    fixed = {"output_dir": str(tmp_path)}
    return read_settings(
        (SftSettings, TrainingArguments),
        recipe="cold_start.yaml",
        config=config and Path(config),
        flags=["--manifest", "m.jsonl", "--bf16", "false", *flags],
        fixed=fixed,
    )


@pytest.mark.parametrize("name", SFT)
def test_every_recipe_is_read_by_its_name(tmp_path, name):
    settings, args = read(tmp_path, name)
    assert settings.answers == ("label" if name.startswith("label") else "reasoned")
    paper = name.endswith("_paper")
    assert (args.learning_rate == 2e-5 and args.num_train_epochs == 5) == paper
    assert args.lr_scheduler_type == "cosine"


def test_flags_go_over_files_and_files_over_the_recipe(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("wordings: 3\nlearning_rate: 0.5\n")
    settings, args = read(tmp_path, file, "--learning_rate", "0.25")
    assert (settings.wordings, args.learning_rate, args.warmup_steps) == (3, 0.25, 0.03)


def test_a_recipe_that_is_not_there_is_told(tmp_path):
    with pytest.raises(ConfigError, match="unheard: cannot read the settings"):
        read(tmp_path, "unheard")
