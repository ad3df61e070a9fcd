"""Devices that users name: found, or refused in one line by every command that takes one."""

import json
import sys
from pathlib import Path

import pytest
import torch

from emostream.devices import resolve_device
from emostream.errors import ConfigError
from export import cli as export_cli
from export.manifest import Manifest
from stream.serve.model import ModelConfig, load
from training import cli as training_cli

CLIP = Path(__file__).parents[2] / "stream" / "assets" / "demo.mp4"
ABSENT = [
    pytest.param("cuda", marks=pytest.mark.skipif(torch.cuda.is_available(), reason="has CUDA")),
    pytest.param("mps", marks=pytest.mark.skipif(sys.platform == "darwin", reason="has MPS")),
    pytest.param("xpu", marks=pytest.mark.skipif(torch.xpu.is_available(), reason="has XPU")),
    "hpu",
    "meta",
    "gpu7",
]


def test_devices_of_every_host():
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device().type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", ABSENT)
def test_what_torch_cannot_use_is_refused_in_a_line(name):
    with pytest.raises(ConfigError, match=f"^--device {name}: [^\n]+$"):
        resolve_device(name)


@pytest.mark.gpu
def test_a_gpu_beyond_the_last_is_refused():
    with pytest.raises(ConfigError, match=r"finds [0-9]+ CUDA GPUs here"):
        resolve_device(f"cuda:{torch.cuda.device_count()}")


@pytest.mark.parametrize("name", ABSENT)
def test_every_command_refuses_it_before_its_work(name, tmp_path, capsys):
    with pytest.raises(ConfigError, match=f"--device {name}: "):
        load(ModelConfig(device=name))
    manifest = tmp_path / "m.jsonl"
    manifest.write_text(json.dumps({"path": str(CLIP), "label": "happy", "split": "test"}) + "\n")
    evaluation = ["eval", "--model", "tiny", "--manifest", str(manifest), "--out", "unused"]
    assert training_cli.main([*evaluation, "--device", name]) == 2
    build = ["build", "tiny", "--out", str(tmp_path / "engines")]
    assert export_cli.main([*build, "--device", name]) == 2
    folder = tmp_path / "whole"
    folder.mkdir()
    whole = Manifest(
        checkpoint="tiny",
        checkpoint_sha256="",
        target="onnx",
        precision="fp32",
        opset=20,
        command="",
        graphs={},
    )
    whole.write(folder)
    for command in ("verify", "bench"):
        assert export_cli.main([command, str(folder), "--device", name]) == 2
    said = capsys.readouterr().err.splitlines()
    assert [f"--device {name}: " in line for line in said] == [True] * 4, said
    assert not Path("unused").exists()
    assert not (tmp_path / "engines").exists()
