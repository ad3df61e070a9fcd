"""Build plans in a process that has TensorRT without a GPU, for a GPU that is only named.

    python tensorrt_build.py PRESET GRAPHS PRECISION OUT [OPTIONS]

GRAPHS is a folder of ONNX graphs, OPTIONS those of the builder as JSON. Prints a line of JSON for all that is said, and
for each graph its report or the error.
"""

import json
import sys
from pathlib import Path
from typing import Any

import tensorrt

from emostream.errors import EmostreamError
from emostream.model.presets import preset_config
from export.onnx.graphs import GRAPHS
from export.tensorrt.builder import BuilderOptions, build_engine
from export.tensorrt.probe import Gpu, Host
from export.tensorrt.profiles import profiles_for


def main(preset: str, graphs: str, precision: Any, out: str, options: str = "{}") -> None:
    """Build every graph of the folder."""
    config = preset_config(preset)
    gpu = Gpu(name="Imaginary 9000", compute_capability="9.0", cuda="13.0")
    host = Host(gpu=gpu, tensorrt=tensorrt)
    for graph in GRAPHS:
        file = Path(graphs) / f"{graph.name}.onnx"
        if not file.is_file():
            continue
        try:
            report = build_engine(
                file,
                Path(out) / f"{graph.name}.plan",
                profiles=profiles_for(graph, config, max_sources=8),
                precision=precision,
                host=host,
                say=lambda text: _tell({"said": text}),
                options=BuilderOptions(**json.loads(options)),
            )
        except EmostreamError as error:
            _tell({"error": str(error)})
        else:
            _tell({"report": report.as_dict()})


def _tell(what: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
