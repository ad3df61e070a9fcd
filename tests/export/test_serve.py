"""Engines served live, end to end: the same labels as torch gives, and what runs is said."""

import json

import pytest

from export import cli
from stream.commands.cli import main
from stream.pubsub.messages import Label, Status
from tests.media_factory import Audio, Video, noise, write_media
from tests.stream.live_rig import NOBODY, live, run_command


@pytest.mark.slow
def test_engines_say_live_what_infer_says(engines, checkpoint, tmp_path):
    clip = write_media(
        tmp_path / "clip.mp4", Video(duration_s=6.3), Audio(duration_s=6.3, sound=noise())
    )
    out = tmp_path / "reference.jsonl"
    model = ("--model", str(checkpoint), "--device", "cpu")
    assert main(["infer", *NOBODY, str(clip), "--out", str(out), *model]) == 0
    reference = [json.loads(line) for line in out.read_text().splitlines()]
    arguments = ("--source", str(clip), "--pace", "max", "--reason-every-s", "0", *model)
    with live(*arguments, "--engines", str(engines)) as running:
        running.until(lambda event: isinstance(event, Status))
        running.until_stopped()
        assert running.wait() == 0
    labels = [event for event in running.events if isinstance(event, Label)]
    assert [label.window.id for label in labels] == [row["window"]["id"] for row in reference]
    for label, wanted in zip(labels, reference, strict=True):
        assert label.scores == pytest.approx(wanted["scores"], abs=1e-4)
        assert label.label == wanted["label"]
        assert label.model == "small (onnxruntime fp32)"
    assert any("encoders: onnxruntime" in line and "fp32" in line for line in running.said)
    refused = run_command("run", *arguments, "--engines", str(tmp_path))
    assert refused.returncode == 2
    assert "manifest.json cannot be read" in refused.stderr


@pytest.mark.slow
def test_bench_compares_with_torch(engines, capsys):
    assert cli.main(["bench", str(engines), "--json", "--device", "cpu", "--seconds", "0"]) == 0
    result = json.loads(capsys.readouterr().out)
    plain, compiled = result["backends"]
    assert (plain["backend"], compiled["backend"]) == ("torch", "onnxruntime")
    assert "CPUExecutionProvider" in compiled["description"]
    assert [row["case"] for row in plain["rows"]] == [row["case"] for row in compiled["rows"]]
    for row in plain["rows"][:-1]:
        assert row["gflop"] > 0
        assert row["floor_ms"] > 0
    for row in (*plain["rows"], *compiled["rows"]):
        assert 0 < row["min_ms"] <= row["p50_ms"] <= row["p95_ms"]
    assert compiled["memory_mb"] is None or compiled["memory_mb"] > 0
    assert plain["ceilings"]["flops_per_s"] > 0
