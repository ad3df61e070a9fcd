"""The builder, through TensorRT's real API, parser and compiler (see `tensorrt_without_gpu`)."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from emostream.model.presets import from_preset
from export.onnx.graphs import GRAPHS
from export.onnx.write import export_graph
from tests.export.tensorrt_without_gpu import environment, install

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),  # the first test on a machine downloads 320 MB
    pytest.mark.skipif(sys.platform != "linux", reason="the shims are for Linux"),
]
SCRIPT = Path(__file__).parents[1] / "tensorrt_build.py"


@pytest.fixture(scope="session")
def tensorrt():
    return install()


@pytest.fixture(scope="session")
def graphs(tmp_path_factory):
    """Folders of graphs by precision: all three in fp16, the smallest in the others."""
    model, _ = from_preset("tiny", seed=6)
    folders = {}
    for precision, names in (
        ("fp16", {"vision", "join", "audio"}),
        ("bf16", {"join"}),
        ("fp32", {"join"}),
    ):
        folders[precision] = tmp_path_factory.mktemp(precision)
        for graph in GRAPHS:
            if graph.name in names:
                export_graph(graph, model, precision, folders[precision], "key")
    return folders


@pytest.fixture
def build(tensorrt, tmp_path):
    def run(graphs, precision, out, file_size=None, **options):
        def limit():
            if file_size is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))

        arguments = ["tiny", str(graphs), precision, str(out), json.dumps(options)]
        done = subprocess.run(
            [sys.executable, "-P", str(SCRIPT), *arguments],
            env=environment(tensorrt, tmp_path),
            preexec_fn=limit,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        return {
            kind: [line[kind] for line in lines if kind in line]
            for kind in ("said", "report", "error")
        }

    return run


def test_plans_of_all_three_graphs_build_once_and_are_kept(build, graphs, tmp_path):
    out = tmp_path / "plans"
    out.mkdir()
    first = build(graphs["fp16"], "fp16", out)
    assert not first["error"]
    assert [report["file"] for report in first["report"]] == [
        "vision.plan",
        "join.plan",
        "audio.plan",
    ]
    for report in first["report"]:
        graph = graphs["fp16"] / report["file"].replace(".plan", ".onnx")
        assert report["bytes"] == (out / report["file"]).stat().st_size > graph.stat().st_size / 2
        assert set(report["dtypes"]) == {"HALF"}
        assert report["tensorrt"].startswith("11.")
        assert not report["reused"]
    assert any("Imaginary-9000" in path.name for path in tmp_path.rglob("*.timing"))
    sidecar = json.loads((out / "join.plan.json").read_text())
    assert sidecar["key"]["gpu"] == "Imaginary 9000"
    assert sidecar["key"]["compute_capability"] == "9.0"
    assert sidecar["key"]["profiles"][-1]["maps"][2][0] == 16, "two pairs of eight sources"
    assert [path.name for path in out.glob(".*")] == []

    (out / "join.plan").write_bytes(b"another's")
    second = build(graphs["fp16"], "fp16", out)
    assert [report["reused"] for report in second["report"]] == [True, False, True]
    assert "vision: the plan is up to date" in second["said"]


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", "BF16"), ("fp32", "FLOAT")])
def test_other_precisions_build_from_other_graphs(build, graphs, tmp_path, precision, dtype):
    [report] = build(graphs[precision], precision, tmp_path, version_compatible=False)["report"]
    assert set(report["dtypes"]) == {dtype}
    assert report["precision"] == precision


def test_a_graph_of_another_precision_is_refused(build, graphs, tmp_path):
    [error] = build(graphs["fp32"], "fp16", tmp_path)["error"]
    assert error.startswith("join: asked for fp16, but 100% of the network's products are of anoth")
    assert "FLOAT" in error
    assert not list(tmp_path.glob("*.plan*"))


def test_a_damaged_graph_is_refused_in_one_line(build, tmp_path):
    (tmp_path / "join.onnx").write_bytes(b"\x08no graph at all")
    [error] = build(tmp_path, "fp16", tmp_path)["error"]
    assert "join.onnx: TensorRT 11." in error
    assert "cannot parse the graph" in error
    assert "\n" not in error


def test_a_full_disk_leaves_no_half_plan(build, graphs, tmp_path):
    [error] = build(graphs["bf16"], "bf16", tmp_path, file_size=100_000)["error"]
    assert "join.plan cannot be written" in error
    assert "Free the space" in error
    assert not list(tmp_path.glob("*.plan*"))
    assert not list(tmp_path.glob(".*.partial"))
