"""`emostream-train grpo` on real clips, and what its settings come to."""

from pathlib import Path

import pytest
from trl import GRPOConfig

from emostream import load_model
from emostream.errors import ConfigError
from tests.training.clips import write_clip
from training.cli import main
from training.data.manifest import Row, write_manifest
from training.grpo.train import GrpoSettings, grpo
from training.tuning.settings import RECIPES, read_settings, read_yaml


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    clips = [
        write_clip(folder / f"{name}.mp4", video=video, audio=audio)
        for name, video, audio in (("both", True, True), ("seen", True, False))
    ]
    clips.append(write_clip(folder / "heard.wav", video=False))
    (folder / "broken.mp4").write_bytes(b"")
    clips.append(folder / "broken.mp4")
    made = [Row(path=clip, label="happy", split="train") for clip in clips]
    write_manifest(folder / "manifest.jsonl", made)
    return folder / "manifest.jsonl"


SMALL = ("--per_device_train_batch_size", "6", "--num_generations", "2", "--use_cpu")
SHORT = ("--max_completion_length", "4", "--max_steps", "2", "--save_steps", "1")


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning")
def test_the_command_trains_logs_and_goes_on(manifest, tmp_path, capsys, caplog):
    config = tmp_path / "run.yaml"
    config.write_text("model: preset:tiny\nrewards: [accuracy, format]\nreward_weights: [1, 0.5]\n")
    out = tmp_path / "out"
    words = ["grpo", "--config", str(config), "--out", str(out), "--manifest", str(manifest)]
    assert main([*words, *SMALL, *SHORT]) == 0
    printed = capsys.readouterr()
    assert f"{out / 'model'}: the trained checkpoint" in printed.out
    assert "1 of 4 clips are left out" in caplog.text
    assert "step 2/2  reward 0  accuracy 0" in printed.err
    assert printed.err.rstrip().endswith("0:00:00 left")
    assert "  alike 1  " in printed.err
    assert "in the last 2 steps all answers of each group earned the same" in caplog.text
    model, _ = load_model(out / "model")
    assert model.config.use_cache
    assert {p.name for p in out.iterdir()} == {
        "checkpoint-1", "checkpoint-2", "completions", "features", "model", "run.json", "runs",
    }  # fmt: skip
    assert len(list((out / "completions").iterdir())) == 2
    assert len(list((out / "runs").iterdir())) == 1

    # The same command with more to do goes on from the last checkpoint.
    longer = [*SHORT[:3], "3", *SHORT[4:]]
    assert main([*words, *SMALL, *longer]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("step")]
    assert [line.split()[1] for line in lines] == ["3/3"]


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning")
def test_adapters_on_bfloat16_with_recomputed_activations(manifest, tmp_path):
    flags = ("--model", "preset:tiny", "--manifest", str(manifest), "--rewards", "format")
    larger = ("--dtype", "bfloat16", "--bf16", "true", "--lora_rank", "4")
    flags = (*flags, "--reward_weights", "1", *larger, "--gradient_checkpointing", "true")
    folder = grpo(None, tmp_path / "out", [*flags, *SMALL, *SHORT])
    assert folder is not None
    model, _ = load_model(folder)
    assert not any("lora" in name for name, _ in model.named_parameters())
    assert (tmp_path / "out" / "checkpoint-2" / "adapters.safetensors").is_file()


def read(*flags, paper=False, config=None):
    return read_settings(
        (GrpoSettings, GRPOConfig),
        recipe="grpo.yaml",
        config=config,
        flags=("--manifest", "m.jsonl", *flags, "--use_cpu"),
        fixed={"output_dir": "somewhere"},
        over=read_yaml(RECIPES / "grpo_paper.yaml") if paper else {},
    )


def test_the_default_recipe():
    settings, args = read()
    assert settings.rewards == ["accuracy", "format", "grounding"]
    assert (args.loss_type, args.beta, args.epsilon_high) == ("dapo", 0.0, 0.28)
    assert not args.mask_truncated_completions
    assert args.temperature == 1.0


def test_the_papers_settings_go_over_the_users_file_and_flags_over_them(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("beta: 0.5\nrewards: [grounding]\nlearning_rate: 1e-6\n")
    settings, args = read(paper=True, config=file)
    assert settings.rewards == ["paper_accuracy", "paper_format"]
    assert args.reward_weights == [1.0, 1.0]
    assert (args.loss_type, args.beta, args.num_generations) == ("grpo", 0.04, 8)
    assert (args.max_completion_length, args.num_train_epochs) == (512, 2)
    assert (args.num_iterations, args.scale_rewards) == (1, "group")
    assert not args.use_bias_correction_kl
    assert not args.mask_truncated_completions
    assert args.learning_rate == 1e-6
    _, args = read("--max_completion_length", "96", paper=True)
    assert args.max_completion_length == 96


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--rewards", "kindness"), "unknown 'kindness'"),
        (("--split", "nowhere"), "no labelled rows in split nowhere; it has train"),
        (("--rewards", "grounding"), "no row has cues"),
        (("--nonsense", "1"), "nonsense"),
        (("--output_dir", "elsewhere"), "output_dir is"),
        (("--dtype", "int3"), "dtype is 'int3'"),
        (("--dtype", "bfloat16"), "set bf16: true"),
        (("--reward_weights", "1", "1"), "1 rewards have 2 reward_weights"),
        (("--limit", "1"), "1 clips are fewer than the 3 prompts"),
    ],
)
def test_mistakes_are_one_line(manifest, tmp_path, words, message, capsys):
    fixed = ("--model", "preset:tiny", "--manifest", str(manifest))
    rewards = () if "--rewards" in words else ("--rewards", "accuracy")
    weights = ("--reward_weights", "1")
    flags = [*fixed, *SMALL, *SHORT, *rewards, *weights, *words]
    with pytest.raises(ConfigError, match=message):
        grpo(None, tmp_path / "out", flags)


@pytest.mark.parametrize(
    "mistake",
    [
        ("--rewards", "kindness"),
        ("--contradiction_cost", "-1"),
        ("--dtype", "bfloat16"),
        ("--reward_weights", "1", "1"),
    ],
)
def test_settings_are_refused_before_any_clip_is_encoded(manifest, tmp_path, mistake):
    fixed = ("--model", "preset:tiny", "--manifest", str(manifest), "--rewards", "format")
    with pytest.raises(ConfigError):
        grpo(None, tmp_path / "out", [*fixed, *SMALL, *SHORT, *mistake])
    assert not (tmp_path / "out").exists()


def test_settings_that_are_no_text_are_refused(tmp_path):
    file = tmp_path / "latin.yaml"
    file.write_bytes("instruction: wie fühlt er sich?\n".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"latin\.yaml: no YAML"):
        read_yaml(file)


def test_a_mistake_is_exit_code_2(tmp_path, capsys):
    assert main(["grpo", "--out", str(tmp_path), "--manifest", str(Path("no.jsonl"))]) == 2
    assert capsys.readouterr().err.count("\n") == 1
