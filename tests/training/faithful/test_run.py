"""The whole of `faithful` from the command line, on rendered clips and on clips without twins."""

import json

import numpy as np
import pytest

from emostream import save_model
from emostream.model.presets import from_preset
from tests.training.clips import write_clip
from training.cli import main
from training.data.manifest import Row, write_manifest


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_model(*from_preset("tiny"), tmp_path_factory.mktemp("model") / "tiny")


def run(*arguments) -> int:
    return main(["faithful", *map(str, arguments), "--max-new-tokens", "8"])


def test_on_rendered_clips(tmp_path, capsys):
    chosen = ("--clips", "3", "--twins", "both,take", "--edits", "mirrored,mute")
    assert main(["faithful", "--model", "tiny", "--out", str(tmp_path), *chosen]) == 0
    assert "faithful.json: 3 clips, " in capsys.readouterr().out
    result = json.loads((tmp_path / "faithful.json").read_text())
    assert set(result["twins"]) == {"both", "take"}
    assert set(result["edits"]) == {"mirrored", "mute"}
    assert result["probes"]["all"]["pairs"] > 3
    assert result["reader"]["clips"] == result["votes"]["clips"] == 3
    pairs = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    assert len(pairs) == 6 + sum(result["twins"][kind]["pairs"] for kind in ("both", "take"))
    # The shipped model notices that face and voice have gone still, and that nothing else has changed.
    assert result["twins"]["both"]["sensitivity"] > result["twins"]["take"]["answer_falls_by"]
    assert result["twins"]["take"]["specificity"] > 0.5
    answers = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert {a["change"] for a in answers} >= {"clip", "take", "mirrored", "mute"}


def test_on_clips_without_twins_or_cues_only_edits_and_votes_are_left(tmp_path, checkpoint):
    rng = np.random.default_rng(0)
    rows = [
        Row(
            path=write_clip(tmp_path / f"{n}.mp4", pcm=0.1 * rng.standard_normal(16_000)),
            label=label,
            split="test",
        )
        for n, label in enumerate(("sad", "happy"))
    ]
    write_manifest(tmp_path / "m.jsonl", rows)
    given = ("--model", checkpoint, "--manifest", tmp_path / "m.jsonl", "--out", tmp_path / "out")
    features = tmp_path / "features"
    assert run(*given, "--edits", "hidden,other_sound", "--features", features) == 0
    assert any(features.iterdir())
    assert not (tmp_path / "out" / "features").exists()
    result = json.loads((tmp_path / "out" / "faithful.json").read_text())
    assert (result["clips"], result["twins"], result["probes"]) == (2, {}, {})
    assert result["edits"]["hidden"]["pairs"] == 2


def test_voices_alone_of_people_who_were_heard_before(tmp_path):
    rng = np.random.default_rng(0)
    shape = np.sin(np.arange(24_000) / 9) * np.linspace(0.1, 0.9, 24_000)
    rows = [
        Row(
            path=write_clip(
                tmp_path / f"{n}.wav",
                video=False,
                pcm=0.3 * shape * np.sin(np.arange(24_000) * (0.03 + 0.01 * n))
                + 0.01 * rng.standard_normal(24_000),
            ),
            label=label,
            split="test",
            actor="her",
        )
        for n, label in enumerate(("sad", "happy", "sad", "angry"))
    ]
    write_manifest(tmp_path / "m.jsonl", rows)
    model, processor = from_preset("small")
    model.config.frame_crop = "whole"  # noise is no speech, which faces go with
    folder = save_model(model, processor, tmp_path / "small")
    given = ("--model", folder, "--manifest", tmp_path / "m.jsonl", "--clips", "2")
    answers = {}
    for heard_s in ("0", "2"):
        out = tmp_path / heard_s
        assert run(*given, "--out", out, "--heard-s", heard_s) == 0
        result = json.loads((out / "faithful.json").read_text())
        assert (result["clips"], result["settings"]["heard_s"]) == (2, float(heard_s))
        # Nothing is left of a voice that is muted, and there are no pictures to hide, blur or mirror.
        wanted = {"other_sound", "pitch_up", "pitch_down", "louder", "softer"}
        assert set(result["edits"]) == wanted
        answers[heard_s] = (out / "answers.jsonl").read_text().splitlines()
    assert len(answers["0"]) == len(answers["2"]) == 12
    assert answers["0"][0] != answers["2"][0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--edits shout", "unknown edit 'shout'; wanted some of mute, "),
        ("--twins mood", "twins: unknown kind 'mood'"),
        ("--clips 0", "clips is 0; wanted 1 or more"),
        ("--heard-s nan", "heard_s is nan; wanted seconds from 0 on"),
        ("--heard-s 60", "name recordings of people with --manifest, or leave --heard-s out"),
        ("--manifest {0}/m.jsonl --split ood", "no labelled rows in split ood"),
    ],
)
def test_mistakes_are_told(tmp_path, capsys, arguments, said):
    write_manifest(tmp_path / "m.jsonl", [Row(path=tmp_path / "a.mp4", label="sad", split="test")])
    assert run("--model", "tiny", "--out", tmp_path / "o", *arguments.format(tmp_path).split()) == 2
    assert said in capsys.readouterr().err
