"""TensorRT plans of both models: seconds, sizes and the dtypes of the arithmetic.

    python benchmarks/tensorrt_build.py --preset tiny --preset 0.5b

Weights are random: they build what trained ones build. On a host without a GPU the plans are built by TensorRT's own
Python API over the builder of TensorRT-RTX (see tests/export/tensorrt_without_gpu.py), which shows that the graphs
parse and compile and how large plans become; such plans are thrown away, and seconds on a GPU are others.
"""

import argparse
import gc
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from provenance import write_result  # noqa: E402

from emostream.model.presets import from_preset  # noqa: E402
from export.errors import ExportError  # noqa: E402
from export.onnx.graphs import GRAPHS  # noqa: E402
from export.onnx.precision import Precision  # noqa: E402
from export.onnx.write import export_graph  # noqa: E402
from export.tensorrt.probe import Host, probe  # noqa: E402
from tests.export.tensorrt_without_gpu import BINDINGS, LIBRARIES, environment, install  # noqa: E402

SCRIPT = ROOT / "tests" / "export" / "tensorrt_build.py"


def export_graphs(preset: str, precision: Precision, folder: Path) -> None:
    """Write those graphs of a preset that are not there; each tower is forgotten when it is written."""
    missing = [graph for graph in GRAPHS if not (folder / f"{graph.name}.onnx").is_file()]
    if not missing:
        return
    model, _ = from_preset(preset)
    backbone: Any = model.model
    # The encoders alone are exported, and memory for both would be twice as much.
    del model.lm_head, backbone.layers, backbone.embed_tokens
    for graph in missing:
        with tempfile.TemporaryDirectory(dir=folder) as part:  # an interrupted one is no graph
            entry = export_graph(graph, model, precision, Path(part), "")
            for file in Path(part).iterdir():
                file.rename(folder / file.name)
        if graph.name == "vision":
            del backbone.vision_tower
        gc.collect()
        sys.stdout.write(f"{preset} {graph.name}: graph of {entry['bytes'] / 1e6:.1f} MB\n")


def build(preset: str, precision: Precision, folder: Path, host: Host | None) -> dict[str, Any]:
    """Plans of the graphs of a folder, in a process that has TensorRT."""
    command = [sys.executable, "-P", str(SCRIPT), preset, str(folder), precision, str(folder)]
    where = None if host is not None else environment(install(), folder)
    done = subprocess.run(command, env=where, stdout=subprocess.PIPE, text=True, check=True)
    found = {}
    for line in done.stdout.splitlines():
        told = json.loads(line) if line.startswith("{") else {}
        if "error" in told:
            raise SystemExit(told["error"])
        if report := told.get("report"):
            kept = ("bytes", "seconds", "dtypes", "tensorrt")
            found[report["file"].removesuffix(".plan")] = {name: report[name] for name in kept} | {
                "profiles": len(report["profiles"])
            }
        if "said" in told:
            sys.stdout.write(f"{preset} {told['said']}\n")
    return found


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", action="append", choices=("tiny", "0.5b", "7b"))
    parser.add_argument("--precision", default="fp16", choices=("fp32", "fp16", "bf16"))
    parser.add_argument(
        "--work", type=Path, help="where graphs and plans are kept for the next run"
    )
    parser.add_argument("--out", type=Path, help="of the result")
    options = parser.parse_args()
    try:
        host = probe()
    except ExportError:
        host = None
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for preset in options.preset or ["tiny", "0.5b"]:
            folder = (options.work or Path(temporary)) / f"{preset}-{options.precision}"
            folder.mkdir(parents=True, exist_ok=True)
            export_graphs(preset, options.precision, folder)
            plans = build(preset, options.precision, folder, host)
            for name, plan in plans.items():
                onnx_bytes = sum(file.stat().st_size for file in folder.glob(f"{name}.onnx*"))
                rows.append({"preset": preset, "graph": name, "onnx_bytes": onnx_bytes, **plan})
    by = f"TensorRT on {host.gpu.name}" if host else f"no GPU: {BINDINGS} over {LIBRARIES}"
    write_result(
        "tensorrt_build",
        {"precision": options.precision, "max_sources": 8, "built_by": by, "rows": rows},
        options.out,
    )


if __name__ == "__main__":
    main()
