"""Corpora of sound alone and of pictures alone, from the index to the evaluation."""

import json

import pytest

from tests.training.clips import write_clip
from training.cli import main

SMALL = (
    *("--max_steps", "1", "--save_steps", "1", "--per_device_train_batch_size", "2"),
    *("--model", "preset:tiny", "--logging_steps", "1"),
)


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning")
@pytest.mark.parametrize("kind", ["heard", "seen"])
def test_one_modality_goes_all_the_way(tmp_path, capsys, kind):
    corpus, manifest = tmp_path / "corpus", tmp_path / "m.jsonl"
    heard = kind == "heard"
    for n in range(4):
        split, label = ("train", "test")[n // 2], ("happy", "sad")[n % 2]
        name = f"{split}/{label}/{n}.{'wav' if heard else 'mp4'}"
        write_clip(corpus / name, video=not heard, audio=heard, brightness=40 * n)
    assert main(["corpus", "index", "folder", str(corpus), "--out", str(manifest)]) == 0
    assert f"kept 4 without {'video' if heard else 'audio'}" in capsys.readouterr().out
    shared = ("--manifest", str(manifest), "--features", str(tmp_path / "features"))
    assert main(["sft", "--out", str(tmp_path / "sft"), *shared, *SMALL]) == 0
    rewards = ("--rewards", "accuracy", "--reward_weights", "1", "--num_generations", "2")
    short = ("--max_completion_length", "4", "--use_cpu")
    assert main(["grpo", "--out", str(tmp_path / "grpo"), *shared, *SMALL, *rewards, *short]) == 0
    model = str(tmp_path / "grpo" / "model")
    for extra in (("--features", str(tmp_path / "features")), ()):
        out = tmp_path / f"eval{len(extra)}"
        call = ["eval", "--model", model, "--manifest", str(manifest), "--out", str(out)]
        assert main([*call, "--max-new-tokens", "4", *extra]) == 0
        result = json.loads((out / "eval.json").read_text())
        assert result["clips"] == 2
        assert not result["skipped"]
        assert set(result["ablation"]) == {"clips", "both", "audio" if heard else "video"}
