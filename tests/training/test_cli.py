import json
import subprocess
import sys

import pytest

from emostream import save_model
from emostream.model.presets import from_preset
from tests.training.clips import write_clip
from training.cli import main
from training.data.manifest import Row, read_manifest, write_manifest


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_model(*from_preset("tiny"), tmp_path_factory.mktemp("model") / "tiny")


def manifest(folder, *splits):
    rows = [
        Row(path=write_clip(folder / f"{i}.mp4", brightness=30 * i), label="sad", split=split)
        for i, split in enumerate(splits)
    ]
    write_manifest(folder / "m.jsonl", rows)
    return folder / "m.jsonl"


def test_index_from_the_command_line(tmp_path, capsys):
    write_clip(tmp_path / "Actor_01" / "01-01-02-01-01-01-01.mp4")
    write_clip(tmp_path / "Actor_02" / "01-01-05-01-01-01-02.mp4")
    (tmp_path / "Actor_02" / "01-01-03-01-01-01-02.mp4").write_bytes(b"junk")
    out = tmp_path / "m.jsonl"
    arguments = ["corpus", "index", "ravdess", str(tmp_path), "--out", str(out)]
    assert main([*arguments, "--rename", "calm=neutral", "--labels", "neutral,angry"]) == 0
    assert {(r.label, r.split) for r in read_manifest(out)} == {
        ("neutral", "train"),
        ("angry", "test"),
    }
    shown = capsys.readouterr()
    assert "m.jsonl: 2 rows" in shown.out
    assert "skipped 1, label happy not asked for: 01-01-03-01-01-01-02.mp4" in shown.out


def test_synth_and_eval_from_the_command_line(tmp_path, checkpoint, capsys):
    corpus, out = tmp_path / "corpus", tmp_path / "out"
    made = ["--out", str(corpus), "--clips", "3", "--seed", "1", "--split", "test"]
    assert main(["corpus", "synth", *made, "--workers", "1"]) == 0
    assert "3 clips, 3 rendered" in capsys.readouterr().out
    clips = ["--manifest", str(corpus / "manifest.jsonl"), "--out", str(out)]
    short = ["--max-new-tokens", "4", "--limit", "2", "--batch-size", "2"]
    assert main(["eval", "--model", str(checkpoint), *clips, *short]) == 0
    result = json.loads((out / "eval.json").read_text())
    assert result["clips"] == result["clips_with_cues"] == 2
    assert result["model"] == str(checkpoint)
    assert f"{out}/report.md: WAR " in capsys.readouterr().out


def test_eval_leaves_the_training_clips_alone(tmp_path, checkpoint, capsys):
    path = manifest(tmp_path, "train", "test", "ood")
    arguments = ["eval", "--model", str(checkpoint), "--manifest", str(path), "--no-reasoning"]
    arguments += ["--conditions", "both"]
    assert main([*arguments, "--out", str(tmp_path / "a")]) == 0
    assert json.loads((tmp_path / "a" / "eval.json").read_text())["clips"] == 2
    assert main([*arguments, "--out", str(tmp_path / "b"), "--split", "train"]) == 0
    assert json.loads((tmp_path / "b" / "eval.json").read_text())["clips"] == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("corpus index dfew {0}/absent --out {0}/x.jsonl", "absent: no such folder"),
        ("corpus index iemocap {0} --out {0}/x.jsonl", "unknown kind 'iemocap'"),
        ("corpus index dfew {0} --out {0}/x.jsonl --fold 9", "wanted a fold from 1 to 5, found 9"),
        ("corpus synth --out {0}/c --clips 0 --seed 1", "clips is 0"),
        ("eval --model tiny --manifest {0}/absent.jsonl --out {0}/o", "cannot read the manifest"),
        (
            "eval --model tiny --manifest {0}/m.jsonl --out {0}/o --split ood",
            "no rows to evaluate in split ood; it has train; choose one with --split",
        ),
        (
            "eval --model tiny --manifest {0}/m.jsonl --out {0}/o",
            "no rows to evaluate in split other than train",
        ),
        (
            "eval --model tiny --manifest {0}/m.jsonl --out {0}/o --labels happy",
            "m.jsonl:1: unknown label 'sad'; wanted one of happy",
        ),
        (
            "eval --model {0}/none --manifest {0}/m.jsonl --out {0}/o --split train",
            "is neither a folder nor a hub id",
        ),
        (
            "eval --model tiny --manifest {0}/m.jsonl --out {0}/o --split train --batch-size 0",
            "batch_size is 0",
        ),
    ],
)
def test_users_errors_are_one_line_and_exit_2(tmp_path, capsys, arguments, said):
    manifest(tmp_path, "train")
    assert main(arguments.format(tmp_path).split()) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("emostream-train: ")
    assert said in line


def test_a_wrong_renaming_is_told_by_the_parser(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["corpus", "index", "dfew", "x", "--out", "y", "--rename", "calm"])
    assert stopped.value.code == 2
    assert "wanted A=B, found 'calm'" in capsys.readouterr().err


def test_help_imports_nothing_heavy():
    code = (
        "import sys\n"
        "from training.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'av', 'sklearn', 'matplotlib', 'transformers', 'rich'}\n"
        "print('heavy:', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "corpus" in done.stdout
    assert done.stdout.strip().endswith("heavy: []")
