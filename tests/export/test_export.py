"""Encoders compiled to ONNX serve the streaming path unchanged."""

import json
import resource
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial as partial_call

import onnxruntime
import pytest
import torch

from emostream import load_model, save_model
from emostream.checkpoint.resolve import find_checkpoint
from emostream.inference.recognizer import Recognizer
from emostream.people.voice_baseline import VoiceStretch
from export import cli
from export.bound import LARGEST_BATCH, BoundGraph
from export.errors import ExportError
from export.manifest import Manifest, sha256
from export.onnx.graphs import GRAPHS
from export.runtime import OnnxEncoders, load_encoders
from stream.serve import model as serve_model
from stream.serve.model import ModelConfig, load_recognizer
from tests.export.conftest import built, small_model


def test_an_export_directory_says_what_it_is(engines, checkpoint):
    manifest = Manifest.read(engines)
    assert manifest.checkpoint == str(checkpoint)
    assert manifest.checkpoint_sha256 == sha256(find_checkpoint(checkpoint).files())
    assert manifest.opset == 20
    assert set(manifest.graphs) == {"vision", "join", "audio"}
    assert {"torch", "onnx", "onnxruntime"} <= set(manifest.versions)
    assert manifest.machine["cpu"]
    for graph in manifest.graphs.values():
        assert graph["precision"] == "fp32"
        assert graph["weights"]["FLOAT"] > 100_000
        assert graph["bytes"] == (engines / graph["file"]).stat().st_size
        assert graph["nodes"] > 50
    assert manifest.graphs["vision"]["shapes"]["pixels"][1:] == [3, 128, 128]
    assert isinstance(manifest.graphs["audio"]["shapes"]["mel"][2], str), "a dynamic length"
    assert all(row["passed"] for row in manifest.parity.values())
    verified = json.loads((engines / "verify.json").read_text())
    assert verified["passed"]
    tried = {(row["graph"], row["case"]) for row in verified["rows"]}
    assert {(g, c) for g in manifest.graphs for c in ("min", "opt", "max")} <= tried
    assert all(row["relative_l2"] < 1e-4 for row in verified["rows"])
    assert "PASS" in (engines / "verify.md").read_text()
    assert [path.name for path in engines.parent.iterdir()] == ["engines"]


def test_the_streaming_path_gives_the_same_labels_on_it(engines, checkpoint, window):
    model, processor = load_model(checkpoint)
    encoders = OnnxEncoders(engines, model.device, model.dtype)
    compiled, plain = Recognizer(model, processor, encoders=encoders), Recognizer(model, processor)
    assert compiled.runs_on.startswith("onnxruntime")
    assert compiled.runs_on.endswith("CPUExecutionProvider fp32")
    for start in (0, 1, 3, 4):
        for audio in (True, False):
            [a] = compiled.recognize([window(start, audio=audio)])
            [b] = plain.recognize([window(start, audio=audio)])
            assert a.scores == pytest.approx(b.scores, abs=1e-4)
            assert a.label == b.label
    assert compiled.encoder.frames_encoded == plain.encoder.frames_encoded


def test_a_tower_of_convolutions_and_a_standardised_one_export_like_others(tmp_path, window):
    folder = save_model(*small_model(2, "small"), tmp_path / "small")
    manifest = Manifest.read(built(folder, tmp_path / "engines"))
    assert manifest.graphs["vision"]["shapes"]["pixels"][1:] == [3, 64, 64]
    rows = json.loads((tmp_path / "engines" / "verify.json").read_text())["rows"]
    assert {row["graph"] for row in rows} >= {"vision", "join", "audio"}
    assert all(row["relative_l2"] < 1e-4 for row in rows)
    # With the towers gone, as they are served: what is behind the encoder follows the person.
    model, processor = load_model(folder)
    plain = Recognizer(model, processor)
    wanted = [plain.recognize([known(window(start), start)])[0] for start in (0, 4, 8)]
    model.drop_encoders()
    encoders = OnnxEncoders(tmp_path / "engines", model.device, model.dtype)
    compiled = Recognizer(model, processor, encoders=encoders)
    for start, expected in zip((0, 4, 8), wanted, strict=True):
        [found] = compiled.recognize([known(window(start), start)])
        assert found.scores == pytest.approx(expected.scores, abs=1e-4)
        assert found.baseline_s == expected.baseline_s
    assert wanted[2].baseline_s > wanted[1].baseline_s == wanted[0].baseline_s == 0


def known(window, start):
    """A window as the live path gives it, of a person in view."""
    voice = VoiceStretch(start=8000 * start, samples=64_000, person=1)
    return replace(window, voice=voice)


def test_in_int8_no_source_changes_another(int8_engines, checkpoint, window):
    manifest = Manifest.read(int8_engines)
    assert manifest.precisions == ["int8"]
    assert all(graph["quantized"] for graph in manifest.graphs.values())
    model, processor = load_model(checkpoint)
    encoders = load_encoders(int8_engines, model.device, model.dtype)
    both, alone = (Recognizer(model, processor, encoders=encoders) for _ in range(2))
    # What the encoders give does not change at all; the language model's own batching rounds differently.
    for start in (0, 1, 2):
        tokens = both.encoder.encode([window(start), window(start + 5, source="t")])
        [mine] = alone.encoder.encode([window(start)])
        assert torch.equal(tokens[0].visual, mine.visual)
        assert torch.equal(tokens[0].audio, mine.audio)
    [wanted] = Recognizer(model, processor).recognize([window(4)])
    [found] = Recognizer(model, processor, encoders=encoders).recognize([window(4)])
    assert found.scores == pytest.approx(wanted.scores, abs=0.01)


def test_bound_buffers_give_what_a_session_gives(engines):
    """The class that serves CUDA, on the CPU: padding, parts and fixed buffers are the same there."""
    file = str(engines / "join.onnx")
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    bound = BoundGraph(onnxruntime, session, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    shapes = [[n if isinstance(n, int) else 0 for n in i.shape] for i in session.get_inputs()]
    for rows in (3, 1, 4, 2, LARGEST_BATCH + 3, 3):
        inputs = [
            torch.randn([rows, *shape[1:]] if shape[0] == 0 else shape, generator=generator)
            for shape in shapes
        ]
        names = [value.name for value in session.get_inputs()]
        [wanted] = session.run(None, {n: t.numpy() for n, t in zip(names, inputs, strict=True)})
        [found] = bound.run(inputs)
        assert found.shape == wanted.shape
        assert torch.allclose(found, torch.from_numpy(wanted), atol=1e-5)
        kept = found.clone()
        bound.run([torch.zeros_like(tensor) for tensor in inputs])
        assert torch.equal(found, kept), "results are the caller's own"
    assert bound.shapes == 4, "1, 2, 4 and the largest"


def test_a_shorter_audio_context_is_served(engines, checkpoint, window):
    model, processor = load_model(checkpoint)
    processor.audio_context_s = 2.0
    encoders = OnnxEncoders(engines, model.device, model.dtype)
    short = replace(window(0), audio=window(0).audio[:32000])
    [a] = Recognizer(model, processor, encoders=encoders).recognize([short])
    [b] = Recognizer(model, processor).recognize([short])
    assert a.scores == pytest.approx(b.scores, abs=1e-4)


def test_serving_takes_the_engines_of_its_checkpoint_only(engines, checkpoint, tmp_path, window):
    config = ModelConfig(model=str(checkpoint), device="cpu", engines=engines)
    assert config.name == "small (onnxruntime fp32)"
    [result] = load_recognizer(config).recognize([window(0)])
    assert sum(result.scores.values()) == pytest.approx(1, abs=1e-5)
    other = save_model(*small_model(7), tmp_path / "other")
    with pytest.raises(ExportError, match="another checkpoint"):
        load_recognizer(ModelConfig(model=str(other), device="cpu", engines=engines))


def test_what_engines_replace_is_no_longer_in_memory(engines, checkpoint, window, monkeypatch):
    loaded, kept = [], serve_model.load

    def load(config):
        loaded.append(kept(config))
        return loaded[-1]

    monkeypatch.setattr(serve_model, "load", load)
    config = ModelConfig(model=str(checkpoint), device="cpu", engines=engines)
    expected = load_recognizer(replace(config, backend="torch")).recognize([window(0)])[0]
    recognizer = load_recognizer(config)
    assert recognizer.recognize([window(0)])[0].scores == pytest.approx(expected.scores, abs=1e-4)
    with_torch, with_engines = (
        {name.split(".")[1] for name in model.state_dict()} for model, _ in loaded
    )
    replaced = {"vision_tower", "audio_tower", "mm_projector", "audio_projector"}
    assert with_torch - with_engines == replaced
    assert with_engines


def test_the_backend_is_what_was_asked_for_or_an_error(engines, checkpoint):
    config = ModelConfig(model=str(checkpoint), device="cpu", engines=engines, backend="torch")
    assert load_recognizer(config).runs_on.startswith("torch")
    assert config.name == "small"
    with pytest.raises(ExportError, match=r"no TensorRT plans.*--target tensorrt"):
        load_recognizer(replace(config, backend="tensorrt"))
    with pytest.raises(ValueError, match="needs --engines DIR"):
        replace(config, engines=None, backend="onnxruntime")
    with pytest.raises(ExportError, match="wanted CUDAExecutionProvider"):
        OnnxEncoders(engines, torch.device("cuda"), torch.float32)


def test_two_onnxruntimes_over_one_another(engines, tmp_path, monkeypatch):
    for name in ("onnxruntime", "onnxruntime_gpu"):
        folder = tmp_path / f"{name}-1.31.1.dist-info"
        folder.mkdir()
        text = f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 1.31.1\n"
        (folder / "METADATA").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ExportError, match=r"installed over one another.*pip uninstall -y"):
        OnnxEncoders(engines, torch.device("cpu"), torch.float32)


def test_verify_compares_labels_on_clips_and_finds_an_altered_graph(engines, tmp_path, capsys):
    copy = shutil.copytree(engines, tmp_path / "copy")
    assert cli.main(["verify", str(copy), "--json", "--windows", "3"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["passed"]
    assert result["labels"]["agreement"] == 1
    assert result["labels"]["windows"] == 3
    assert result["labels"]["kl_mean"] < 1e-6
    assert json.loads((copy / "verify.json").read_text()) == result
    assert "labels on 3 windows" in (copy / "verify.md").read_text()
    with (copy / "join.onnx").open("ab") as file:
        file.write(b"\0")
    assert cli.main(["verify", str(copy)]) == 2
    assert "join.onnx is missing or is not the join graph" in capsys.readouterr().err


def test_verify_finds_a_graph_of_other_weights(engines, tmp_path, capsys):
    """A graph that is whole, but computes something else."""
    other = save_model(*small_model(8), tmp_path / "other")
    copy = shutil.copytree(engines, tmp_path / "copy")
    manifest = replace(
        Manifest.read(copy),
        checkpoint=str(other),
        checkpoint_sha256=sha256(find_checkpoint(other).files()),
    )
    manifest.write(copy)
    assert cli.main(["verify", str(copy), "--windows", "2"]) == 2
    out = capsys.readouterr().out
    assert "FAIL  vision maps" in out
    assert out.splitlines()[-1].startswith("FAIL")
    assert not json.loads((copy / "verify.json").read_text())["passed"]


def test_only_what_changed_is_built_again(engines, checkpoint, tmp_path, capsys):
    out = shutil.copytree(engines, tmp_path / "engines")
    assert cli.main(["build", str(checkpoint), "--out", str(out)]) == 0
    assert "nothing has changed" in capsys.readouterr().out
    assert Manifest.read(out).parity == Manifest.read(engines).parity
    model, processor = load_model(checkpoint)
    with torch.no_grad():
        model.model.audio_projector[0].weight.mul_(1.01)
        model.lm_head.weight.mul_(1.01)
    changed = save_model(model, processor, tmp_path / "small")
    assert cli.main(["build", str(changed), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "vision: unchanged" in said
    assert "audio: exporting" in said
    now, before = Manifest.read(out), Manifest.read(engines)
    assert now.checkpoint == str(changed)
    assert now.graphs["join"] == before.graphs["join"]
    assert now.graphs["audio"]["sha256"] != before.graphs["audio"]["sha256"]
    rows = json.loads((out / "verify.json").read_text())["rows"]
    assert {row["graph"] for row in rows} == {"vision", "join", "audio", "streaming"}
    assert cli.main(["verify", str(out), "--windows", "1"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["engines", "small"]


@pytest.mark.slow
def test_a_graph_that_overflows_falls_back_aloud(tmp_path, capsys, window):
    """Weights beyond the range of fp16 in one graph; the others keep what was asked for."""
    model, processor = small_model(9)
    with torch.no_grad():
        model.model.audio_projector[2].bias[0] = 1e6
    checkpoint = save_model(model, processor, tmp_path / "small")
    out = tmp_path / "engines"
    assert cli.main(["build", str(checkpoint), "--out", str(out), "--precision", "fp16"]) == 0
    said = capsys.readouterr().out
    assert "audio: fp16 fails, falling back to fp32" in said
    assert "FAIL  audio tokens, min (batch 1), fp16: not finite" in said
    manifest = Manifest.read(out)
    assert manifest.precision == "fp16"
    assert [graph["precision"] for graph in manifest.graphs.values()] == ["fp16", "fp16", "fp32"]
    assert manifest.graphs["vision"]["weights"]["FLOAT16"] > 50_000
    assert {row["precision"] for row in json.loads((out / "verify.json").read_text())["rows"]} == {
        "fp16",
        "fp32",
    }
    config = ModelConfig(model=str(checkpoint), device="cpu", engines=out)
    assert config.name == "small (onnxruntime fp16+fp32)"
    # What had to fall back is not tried again while nothing has changed.
    assert cli.main(["build", str(checkpoint), "--out", str(out), "--precision", "fp16"]) == 0
    assert "nothing has changed" in capsys.readouterr().out


def test_what_a_target_cannot_have_is_refused(checkpoint, tmp_path, capsys):
    out = str(tmp_path / "e")
    assert cli.main(["build", str(checkpoint), "--out", out, "--precision", "bf16"]) == 2
    assert "no bf16 convolutions" in capsys.readouterr().err
    arguments = ["--target", "tensorrt", "--precision", "int8"]
    assert cli.main(["build", str(checkpoint), "--out", out, *arguments]) == 2
    assert "TensorRT wants fp16" in capsys.readouterr().err
    (tmp_path / "gpt").mkdir()
    (tmp_path / "gpt" / "config.json").write_text('{"model_type": "gpt2"}')
    assert cli.main(["build", str(tmp_path / "gpt"), "--out", out]) == 2
    assert "model_type is 'gpt2'" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["gpt"]


def test_building_elsewhere_than_asked_leaves_what_is_there(checkpoint, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("dear to me")
    assert cli.main(["build", str(checkpoint), "--out", str(tmp_path / "mine")]) == 2
    assert "is no export directory" in capsys.readouterr().err
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "dear to me"
    assert cli.main(["build", str(tmp_path / "nowhere"), "--out", str(tmp_path / "e")]) == 2
    assert not (tmp_path / "e").exists()


def test_a_disk_too_small_is_noticed_before_the_work(checkpoint, tmp_path, capsys, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1_000_000))
    assert cli.main(["build", str(checkpoint), "--out", str(tmp_path / "e")]) == 2
    assert "0.00 GB free, the export needs about 0.0" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_write_that_fails_half_way_changes_nothing(engines, checkpoint, tmp_path, capsys):
    """The limit on a file's size stands for a full disk: the write fails in the same place."""
    out = shutil.copytree(engines, tmp_path / "engines")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, limits[1]))
    try:
        code = cli.main(["build", str(checkpoint), "--out", str(out), "--precision", "fp16"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    said = capsys.readouterr().err
    assert code == 2, said
    assert "cannot be written" in said
    assert "Nothing was changed" in said
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.slow
def test_a_build_that_was_killed_leaves_nothing_that_is_served(checkpoint, tmp_path):
    out, partial = tmp_path / "engines", tmp_path / ".engines.partial"
    command = [sys.executable, "-m", "export.cli", "build", str(checkpoint), "--out", str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        next(line for line in process.stdout if "join: exporting" in line)
        assert (partial / "vision.onnx").is_file()
        process.kill()
    assert not out.exists()
    assert cli.main(["verify", str(partial)]) == 2, "half-made, and known to be"
    # Tests that run in the background of a shell inherit that Ctrl-C is ignored.
    restore = partial_call(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, preexec_fn=restore
    ) as process:
        next(line for line in process.stdout if "vision: exporting" in line)
        process.send_signal(signal.SIGINT)
    assert process.returncode == 130
    assert not list(tmp_path.iterdir()), "Ctrl-C cleans up, also after the one that was killed"


def test_a_graph_that_torch_cannot_export_is_one_line(checkpoint, tmp_path, capsys, monkeypatch):
    class Branching(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))

        def forward(self, pixels):
            return (pixels if pixels.sum() > 0 else -pixels), self.weight

    vision, *_ = GRAPHS
    monkeypatch.setattr("export.build.GRAPHS", (replace(vision, module=Branching),))
    assert cli.main(["build", str(checkpoint), "--out", str(tmp_path / "engines")]) == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith("emostream-export: vision: torch ")
    assert "cannot export the graph" in line
    assert "data-dependent" in line
    assert list(tmp_path.iterdir()) == []
