"""Encoders compiled to ONNX serve the streaming path unchanged."""

import json
import shutil

import numpy as np
import pytest

from emostream import load_model, save_model
from emostream.presets import from_preset
from emostream.recognizer import Recognizer
from emostream.streaming import MediaWindow
from export import cli
from export.manifest import ExportError, Manifest
from export.runtime import OnnxEncoders
from stream.serving import ModelConfig, load_recognizer

RNG = np.random.default_rng(4)
PICTURES = RNG.integers(0, 256, (16, 48, 64, 3), dtype=np.uint8)
PCM = RNG.uniform(-0.5, 0.5, 16 * 8000).astype(np.float32)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "tiny"
    return save_model(*from_preset("tiny", seed=6), folder)


@pytest.fixture(scope="module")
def engines(checkpoint, tmp_path_factory):
    out = tmp_path_factory.mktemp("export") / "engines"
    assert cli.main(["build", str(checkpoint), "--out", str(out)]) == 0
    return out


def window(start, *, audio=True):
    keys = tuple(range(start, start + 8))
    frames = tuple(PICTURES[key] for key in keys)
    pcm = PCM[start * 8000 :][:64000] if audio else None
    return MediaWindow(source="s", keys=keys, frames=frames, audio=pcm)


def test_an_export_directory_says_what_it_is(engines, checkpoint):
    manifest = Manifest.read(engines)
    assert manifest.checkpoint == str(checkpoint)
    assert manifest.opset == 20
    assert set(manifest.graphs) == {"vision", "join", "audio"}
    assert {"torch", "onnx", "onnxruntime"} <= set(manifest.versions)
    verified = json.loads((engines / "verify.json").read_text())
    assert verified["passed"]
    tried = {(row["graph"], row["batch"]) for row in verified["rows"]}
    assert {("vision", 16), ("join", 1), ("audio", 4)} <= tried
    assert all(row["relative_l2"] < 1e-4 for row in verified["rows"])
    assert [path.name for path in engines.parent.iterdir()] == ["engines"]


def test_the_streaming_path_gives_the_same_labels_on_it(engines, checkpoint):
    model, processor = load_model(checkpoint)
    encoders = OnnxEncoders(engines, model.device, model.dtype)
    compiled, plain = Recognizer(model, processor, encoders=encoders), Recognizer(model, processor)
    for start in (0, 1, 3, 4):
        for audio in (True, False):
            [a] = compiled.recognize([window(start, audio=audio)])
            [b] = plain.recognize([window(start, audio=audio)])
            assert a.scores == pytest.approx(b.scores, abs=1e-4)
            assert a.label == b.label
    assert compiled.encoder.frames_encoded == plain.encoder.frames_encoded


def test_serving_takes_the_engines_of_its_checkpoint_only(engines, checkpoint, tmp_path):
    config = ModelConfig(model=str(checkpoint), device="cpu", engines=engines)
    [result] = load_recognizer(config).recognize([window(0)])
    assert sum(result.scores.values()) == pytest.approx(1, abs=1e-5)
    other = save_model(*from_preset("tiny", seed=7), tmp_path / "other")
    with pytest.raises(ExportError, match="another checkpoint"):
        load_recognizer(ModelConfig(model=str(other), device="cpu", engines=engines))


def test_verify_finds_an_altered_graph(engines, tmp_path, capsys):
    copy = shutil.copytree(engines, tmp_path / "copy")
    assert cli.main(["verify", str(copy), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["passed"]
    with (copy / "join.onnx").open("ab") as file:
        file.write(b"\0")
    assert cli.main(["verify", str(copy)]) == 2
    assert "join.onnx is missing or is not the join graph" in capsys.readouterr().err


def test_verify_finds_a_graph_of_other_weights(engines, tmp_path, capsys):
    """A graph that is whole, but computes something else."""
    other = save_model(*from_preset("tiny", seed=8), tmp_path / "other")
    copy = shutil.copytree(engines, tmp_path / "copy")
    manifest = json.loads((copy / "manifest.json").read_text())
    from export.manifest import checkpoint_files, sha256

    manifest["checkpoint"] = str(other)
    manifest["checkpoint_sha256"] = sha256(checkpoint_files(other))
    (copy / "manifest.json").write_text(json.dumps(manifest))
    assert cli.main(["verify", str(copy)]) == 2
    out = capsys.readouterr()
    assert "FAIL" in out.out
    assert "differs from torch" in out.err


def test_building_elsewhere_than_asked_leaves_what_is_there(checkpoint, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("dear to me")
    assert cli.main(["build", str(checkpoint), "--out", str(tmp_path / "mine")]) == 2
    assert "is no export directory" in capsys.readouterr().err
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "dear to me"
    assert cli.main(["build", str(tmp_path / "nowhere"), "--out", str(tmp_path / "e")]) == 2
    assert not (tmp_path / "e").exists()
