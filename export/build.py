"""`emostream-export build`: a checkpoint's encoders to ONNX graphs, verified before they are put in place."""

import logging
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from emostream.checkpoints import checkpoint_folder, load_model
from emostream.modeling import EmostreamForCausalLM
from export.graphs import GRAPHS, OPSET, Graph
from export.manifest import ExportError, Manifest, checkpoint_files, sha256

#: Protocol buffers end at 2 GB; a larger graph keeps its weights in a file beside it.
EXTERNAL_DATA_BYTES = 1_500_000_000


def build(checkpoint: str, out: Path, *, say: Callable[[str], None]) -> Manifest:
    """Export a checkpoint; `out` appears, or is replaced, only when every graph has passed `verify`.

    Args:
        checkpoint: Folder or hub id.
        out: Export directory.
        say: Told of each step.

    Raises:
        CheckpointError: The checkpoint cannot be loaded.
        ExportError: A graph cannot be exported, disagrees with torch, or cannot be written.
    """
    from export.verify import verify

    if out.exists() and not (out / "manifest.json").is_file():
        raise ExportError(f"{out} exists and is no export directory. Choose another folder.")
    root = checkpoint_folder(checkpoint)
    model, _ = load_model(root)
    out.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        graphs = {}
        for graph in GRAPHS:
            begun_s = time.perf_counter()
            graphs[graph.name] = _export(graph, model, staging)
            size_mb = graphs[graph.name]["bytes"] / 1e6
            say(
                f"{graph.name}: opset {OPSET}, {size_mb:.1f} MB, {time.perf_counter() - begun_s:.1f} s"
            )
        manifest = Manifest(
            checkpoint=str(checkpoint),
            checkpoint_sha256=sha256(checkpoint_files(root)),
            target="onnx",
            precision="fp32",
            opset=OPSET,
            command=" ".join(sys.argv),
            graphs=graphs,
        )
        manifest.write(staging)
        verify(staging, model=model, say=say)
        staging.chmod(0o755)
        if out.exists():
            shutil.rmtree(out)
        staging.rename(out)
    except OSError as error:
        raise ExportError(f"{out} cannot be written: {error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return manifest


def _export(graph: Graph, model: EmostreamForCausalLM, folder: Path) -> dict[str, Any]:
    module = graph.module(model).eval()
    file = folder / f"{graph.name}.onnx"
    weights = sum(parameter.nbytes for parameter in module.parameters())
    # Exporters warn of operators of packages that we do not use.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module,
            graph.example(model.config, 2),
            dynamo=True,
            opset_version=OPSET,
            input_names=graph.inputs,
            output_names=graph.outputs,
            dynamic_shapes=graph.dynamic(model.config),
            verbose=False,
        )
        assert program is not None
        program.save(str(file), external_data=weights > EXTERNAL_DATA_BYTES)
    import onnx

    onnx.checker.check_model(str(file))
    return {
        "file": file.name,
        "sha256": sha256([file]),
        "bytes": sum(part.stat().st_size for part in folder.glob(f"{graph.name}.onnx*")),
        "inputs": list(graph.inputs),
        "outputs": list(graph.outputs),
    }
