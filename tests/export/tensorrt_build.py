"""Build plans in a process that has TensorRT without a GPU, for a GPU that is only named.

    python tensorrt_build.py CONFIG GRAPHS PRECISION OUT [GPU]

CONFIG is a checkpoint's or preset's name, GRAPHS a folder of ONNX graphs. Prints a line of JSON for what it was told,
each report, or the error.
"""

import json
import sys
from pathlib import Path

import tensorrt

from emostream.errors import EmostreamError
from emostream.presets import preset_config
from export.graphs import GRAPHS
from export.tensorrt_builder import BuilderOptions, build_engine
from export.tensorrt_probe import Gpu, Host
from export.tensorrt_profiles import profiles_for


def main(preset: str, graphs: str, precision: str, out: str, options: str = "{}") -> None:
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
                say=lambda text: print(json.dumps({"said": text}), flush=True),
                options=BuilderOptions(**json.loads(options)),
            )
        except EmostreamError as error:
            print(json.dumps({"error": str(error)}), flush=True)
        else:
            print(json.dumps({"report": report.as_dict()}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
