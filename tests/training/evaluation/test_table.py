"""Comparisons of evaluations, from the files that `eval` writes."""

import json

import numpy as np
import pytest

from training.cli import main
from training.evaluation.outcomes import Outcome
from training.evaluation.results import Prediction, summarise
from training.evaluation.table import compare, markdown, read_runs

LABELS = ("happy", "sad", "angry")
COUNT = 210


def write(folder, right, seed, *, clips="same", support=0.8, leave_out=()):
    """An evaluation whose model is right so often."""
    rng = np.random.default_rng(seed)
    hard = np.random.default_rng(77).random(COUNT)  # how hard a clip is, for whatever model
    outcomes = []
    for i in range(COUNT):
        label = LABELS[i % 3]
        wrong = LABELS[(i + 1) % 3]
        said = label if hard[i] + 0.1 * rng.normal() < right else wrong
        supported = int(rng.binomial(4, support))
        outcomes.append(
            Outcome(
                index=i,
                label=label,
                scored={c: said if hard[i] < s else wrong for c, s in (("both", 1), ("video", 0.5), ("audio", 0.6))},
                reasoned=True,
                said=said,
                well_formed=True,
                label_named=False,
                supported=supported,
                contradicted=4 - supported,
                unverifiable=0,
                salient=4,
                mentioned=min(supported, 3),
                covered=True,
            )
        )  # fmt: skip
    outcomes = [o for o in outcomes if o.index not in leave_out]
    predictions = [
        Prediction(index=o.index, path="", label=o.label, scores={"both": {o.said: 1.0}})
        for o in outcomes
    ]
    folder.mkdir(parents=True)
    result = {
        "model": folder.parent.name,
        "manifest": "m.jsonl",
        **summarise(predictions, outcomes, LABELS, samples=20),
        "provenance": {"date": "2026-01-01", "torch": "2"},
    }
    (folder / "eval.json").write_text(json.dumps(result))
    (folder / "run.json").write_text(json.dumps({"clips": clips}))
    (folder / "clips.jsonl").write_text("".join(json.dumps(o.to_json()) + "\n" for o in outcomes))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("eval")
    for split, less in (("test", 0.0), ("ood", 0.2)):
        write(root / "base-seed0" / split, 0.3, 0, support=0.3)
        for seed in (0, 1):
            write(root / f"label_only-seed{seed}" / split, 0.75 - less, 10 + seed)
            write(root / f"grpo-seed{seed}" / split, 0.8 - less, 20 + seed, support=0.95)
        write(root / "my_own" / split, 0.5, 5)
    scores = {"both_war": 0.9, "both_uar": 0.876, "video_uar": 0.7, "audio_uar": 0.8}
    (root / "fused.json").write_text(json.dumps({"test": scores, "validation": scores}))
    return root


def test_rows_stand_in_order_and_seeds_are_averaged(folder):
    result = compare(read_runs(folder), samples=200)
    assert list(result["splits"]) == ["test", "ood"]
    rows = result["splits"]["test"]["rows"]
    assert list(rows) == ["base", "label_only", "grpo", "my_own"]
    assert rows["grpo"]["seeds"] == [0, 1]
    for row, seeds in (("grpo", (0, 1)), ("label_only", (0, 1)), ("base", (0,))):
        for name in ("war", "uar", "claim_support_rate", "fusion_gain", "cue_recall"):
            one_by_one = [
                json.loads((folder / f"{row}-seed{s}/test/eval.json").read_text())[name]
                for s in seeds
            ]
            found = rows[row][name]
            assert found["by_seed"] == pytest.approx(one_by_one)
            assert found["value"] == pytest.approx(np.mean(one_by_one))
            assert found["interval"][0] <= found["value"] <= found["interval"][1]
    assert len(result["runs"]) == 12
    json.dumps(result)


def test_differences_are_paired(folder):
    split = compare(read_runs(folder), samples=400)["splits"]["test"]
    assert [(d["row"], d["against"]) for d in split["differences"]] == [
        ("my_own", "grpo"),
        ("my_own", "label_only"),
        ("my_own", "base"),
    ]
    runs = [run for run in read_runs(folder) if run.row in ("label_only", "grpo")]
    split = compare(runs, samples=400)["splits"]["test"]
    [found] = split["differences"]
    assert (found["row"], found["against"]) == ("grpo", "label_only")
    ours, theirs = split["rows"]["grpo"]["uar"], split["rows"]["label_only"]["uar"]
    assert found["uar"]["value"] == pytest.approx(ours["value"] - theirs["value"])
    width = found["uar"]["interval"][1] - found["uar"]["interval"][0]
    unpaired = sum((x["interval"][1] - x["interval"][0]) ** 2 for x in (ours, theirs)) ** 0.5
    assert width < 0.8 * unpaired


def test_the_command_writes_markdown_and_json(folder, tmp_path, capsys):
    out, figures = tmp_path / "deep" / "results.md", tmp_path / "results.json"
    assert main(["table", str(folder), "--out", str(out), "--json", str(figures)]) == 0
    assert capsys.readouterr().out == f"{out}: 12 evaluations of test, ood\n"
    result = json.loads(figures.read_text())
    text = out.read_text()
    assert text == markdown(result)
    uar = result["splits"]["test"]["rows"]["grpo"]["uar"]
    assert f"{100 * uar['value']:.1f} ({100 * uar['interval'][0]:.1f} to" in text
    assert "| then GRPO, grounded | 2 | " in text
    assert "| towers alone, a plain classifier | 1 | 90.0 | 87.6 | –" in text
    assert text.count("towers alone") == 1  # nobody measured it on ood
    assert "| my own, against |" in text
    widths = {line.count("|") for line in text.splitlines() if " GRPO" in line or "towers" in line}
    assert widths == {12, 8}


def test_a_clip_that_one_run_could_not_use_is_left_out_of_all(tmp_path):
    write(tmp_path / "a-seed0" / "test", 0.5, 0)
    write(tmp_path / "b-seed0" / "test", 0.6, 0, leave_out=(3, 4))
    found = compare(read_runs(tmp_path), samples=20)["splits"]["test"]
    assert found["clips"] == COUNT - 2


def test_what_cannot_be_compared_is_an_error(tmp_path, capsys):
    assert main(["table", str(tmp_path), "--out", str(tmp_path / "x.md")]) == 2
    assert "holds no evaluations; wanted ROW-seed0/SPLIT/eval.json" in capsys.readouterr().err
    write(tmp_path / "a-seed0" / "test", 0.5, 0)
    write(tmp_path / "b-seed0" / "test", 0.5, 0, clips="others")
    assert main(["table", str(tmp_path), "--out", str(tmp_path / "x.md")]) == 2
    assert "b-seed0 and a-seed0 were evaluated on different clips" in capsys.readouterr().err
    (tmp_path / "b-seed0" / "test" / "run.json").unlink()
    assert main(["table", str(tmp_path), "--out", str(tmp_path / "x.md")]) == 2
    assert "run.json cannot be read" in capsys.readouterr().err
