"""Going on with a run: only with the same one, only from a whole checkpoint, and not with settings that fail later."""

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file

from emostream.errors import ConfigError
from tests.training.clips import write_clip
from training.cli import main
from training.data.manifest import Row, read_manifest, write_manifest
from training.data.same_run import claim, training_digest
from training.tuning.checks import check_numbers
from training.tuning.resume import last_checkpoint


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A manifest, and the output folder of a run of one step on it."""
    folder = tmp_path_factory.mktemp("begun")
    clips = [write_clip(folder / f"{n}.mp4", brightness=50 * n) for n in range(2)]
    write_manifest(folder / "m.jsonl", [Row(path=c, label="sad", split="train") for c in clips])
    out = folder / "out"
    assert main(call("sft", folder / "m.jsonl", out)) == 0
    return folder / "m.jsonl", out


def call(command, manifest, out, *flags):
    steps = ("--max_steps", "1", "--save_steps", "1", "--per_device_train_batch_size", "2")
    model = ("--model", "preset:tiny", "--manifest", str(manifest))
    return [command, "--out", str(out), *model, *steps, *flags]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--model tiny", "other weights"),
        ("--learning_rate 0.5", "learning_rate (0.001 there, 0.5 here)"),
        ("--lora_rank 4", "lora_rank (0 there, 4 here)"),
        ("--limit 1", "other clips"),
    ],
)
def test_another_run_in_the_same_folder_is_refused(begun, capsys, flags, said):
    manifest, out = begun
    weights = (out / "model" / "model.safetensors").read_bytes()
    assert main(call("sft", manifest, out, *flags.split())) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"{out}: holds another run" in line
    assert said in line
    assert "choose another --out" in line
    assert (out / "model" / "model.safetensors").read_bytes() == weights


def test_the_same_run_says_that_it_had_its_steps(begun, capsys, caplog):
    manifest, out = begun
    assert main(call("sft", manifest, out, "--logging_steps", "7")) == 0
    assert "had its 1 steps before; raise num_train_epochs or max_steps" in caplog.text


def test_what_is_learned_tells_manifests_apart(begun):
    rows = read_manifest(begun[0])
    other = [Row(path=row.path, label="happy", split="train") for row in rows]
    assert training_digest(rows) == training_digest(list(rows)) != training_digest(other)


def test_a_claim_that_is_no_json_is_named(tmp_path):
    (tmp_path / "run.json").write_text('{"weights": ')
    with pytest.raises(ConfigError, match=r"run\.json: not JSON .*choose another --out"):
        claim(tmp_path / "run.json", {"weights": "1"}, "run")


def checkpoint(folder):
    folder.mkdir()
    save_file({"a": torch.zeros(100)}, folder / "model.safetensors")
    torch.save({"step": 1}, folder / "optimizer.pt")
    (folder / "trainer_state.json").write_text("{}")
    return folder


@pytest.mark.parametrize(
    ("file", "keep", "said"),
    [
        ("trainer_state.json", None, "no whole trainer_state.json"),
        ("trainer_state.json", 1, "no whole trainer_state.json"),
        ("model.safetensors", None, "no weights"),
        ("model.safetensors", 200, "model.safetensors is cut short"),
        ("optimizer.pt", 300, "optimizer.pt is cut short"),
    ],
)
def test_what_an_interrupted_save_left_is_passed_over(tmp_path, caplog, file, keep, said):
    whole = checkpoint(tmp_path / "checkpoint-9")
    broken = checkpoint(tmp_path / "checkpoint-10")
    assert last_checkpoint(tmp_path) == broken
    data = (broken / file).read_bytes()
    (broken / file).unlink()
    if keep is not None:
        (broken / file).write_bytes(data[:keep])
    assert last_checkpoint(tmp_path) == whole
    assert f"checkpoint-10 is passed over: {said}" in caplog.text
    shutil.rmtree(whole)
    assert last_checkpoint(tmp_path) is None


def test_the_same_command_goes_on_behind_an_interrupted_save(begun, tmp_path, caplog):
    manifest, made = begun
    out = shutil.copytree(made, tmp_path / "out")
    shutil.copytree(out / "checkpoint-1", out / "checkpoint-2")
    (out / "checkpoint-2" / "trainer_state.json").unlink()
    assert main(call("sft", manifest, out, "--max_steps", "2")) == 0
    assert "checkpoint-2 is passed over" in caplog.text
    assert json.loads((out / "checkpoint-2" / "trainer_state.json").read_text())["global_step"] == 2


@pytest.mark.parametrize(
    ("command", "flags", "said"),
    [
        ("sft", "--report_to no-such-service", "no-such-service is not supported"),
        ("sft", "--deepspeed ds.json", "deepspeed"),
        ("sft", "--optim adamw_8bit", "bitsandbytes"),
        ("sft", "--per_device_train_batch_size 0", "per_device_train_batch_size is 0; wanted 1"),
        ("sft", "--learning_rate nan", "learning_rate is nan; wanted 0 or more"),
        ("sft", "--num_train_epochs 0", "num_train_epochs is 0.0; wanted more than 0"),
        ("sft", "--lr_scheduler_type cosine_with_min_lr", "min_lr"),
        ("grpo", "--temperature 0", "temperature is 0.0; wanted more than 0"),
        ("grpo", "--per_device_train_batch_size 0", "per_device_train_batch_size is 0; wanted 1"),
        ("grpo", "--num_generations 0", "num_generations is 0; wanted 2 or more"),
        (
            "grpo",
            "--top_p 0.5 --num_generations 2 --rewards format --reward_weights 1",
            "top_p is 0.5",
        ),
    ],
)
def test_wrong_options_are_refused_in_one_line_before_any_clip_is_encoded(
    begun, tmp_path, capsys, command, flags, said
):
    assert main(call(command, begun[0], tmp_path / "out", *flags.split())) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("emostream-train: ")
    assert said in line
    assert not (tmp_path / "out").exists()


def test_numbers_that_are_settings_of_nobody_pass():
    check_numbers({"made_up": -1, "temperature": None, "learning_rate": 0.0})
