"""`emostream-export verify`: the graphs, run by the runtime that serves, against torch."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from emostream.checkpoints import checkpoint_folder, load_model
from emostream.connector import FrameFeatures
from emostream.modeling import EmostreamForCausalLM
from export.graphs import GRAPHS, Graph
from export.manifest import ExportError, Manifest, checkpoint_files, sha256
from export.runtime import OnnxEncoders

#: Largest relative L2 error of an fp32 graph.
TOLERANCE = 1e-4


def verify(
    folder: Path, *, model: EmostreamForCausalLM | None = None, say: Callable[[str], None]
) -> dict[str, Any]:
    """Compare every graph with torch at its least, usual and largest shapes; writes `verify.json`.

    Args:
        folder: Export directory.
        model: The checkpoint, if it is loaded already; else the manifest says where it is.
        say: Told of each comparison.

    Returns:
        What `verify.json` holds.

    Raises:
        ExportError: A graph disagrees, or the checkpoint is not the one that was exported.
    """
    manifest = Manifest.read(folder)
    if model is None:
        root = checkpoint_folder(manifest.checkpoint)
        if sha256(checkpoint_files(root)) != manifest.checkpoint_sha256:
            raise ExportError(
                f"{folder} was built from another state of {manifest.checkpoint}. Rebuild: emostream-export build "
                f"{manifest.checkpoint} --out {folder}"
            )
        model, _ = load_model(root)
    encoders = OnnxEncoders(folder, torch.device("cpu"), torch.float32)
    rows = [row for graph in GRAPHS for row in _compare(graph, model, encoders)]
    for row in rows:
        say(
            f"{'PASS' if row['passed'] else 'FAIL'}  {row['graph']} {row['output']} batch {row['batch']}: "
            f"max abs {row['max_abs']:.2e}, relative L2 {row['relative_l2']:.2e}, cosine {row['cosine']:.7f}"
        )
    result = {
        "tolerance_relative_l2": TOLERANCE,
        "passed": all(row["passed"] for row in rows),
        "rows": rows,
    }
    (folder / "verify.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if not result["passed"]:
        failed = next(row for row in rows if not row["passed"])
        raise ExportError(
            f"{failed['graph']} differs from torch by {failed['relative_l2']:.2e} (relative L2), allowed {TOLERANCE:g}."
        )
    return result


def _compare(
    graph: Graph, model: EmostreamForCausalLM, encoders: OnnxEncoders
) -> list[dict[str, Any]]:
    rows = []
    for batch in graph.batches:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(batch)
            inputs = graph.example(model.config, batch)
        with torch.inference_mode():
            wanted = graph.module(model).eval()(*inputs)
        found = _served(graph.name, encoders, inputs)
        for name, a, b in zip(graph.outputs, _as_tuple(wanted), found, strict=True):
            error = float((b - a).norm() / a.norm())
            rows.append(
                {
                    "graph": graph.name,
                    "output": name,
                    "batch": batch,
                    "shape": list(b.shape),
                    "max_abs": float((b - a).abs().max()),
                    "relative_l2": error,
                    "cosine": float(torch.cosine_similarity(a.flatten(), b.flatten(), dim=0)),
                    "passed": bool(torch.isfinite(b).all()) and error <= TOLERANCE,
                }
            )
    return rows


def _served(name: str, encoders: OnnxEncoders, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Through the calls that the streaming encoder makes."""
    if name == "vision":
        return tuple(encoders.vision(*inputs))
    if name == "audio":
        return (encoders.audio(*inputs),)
    previous, maps, face, gate = inputs
    return (encoders.join(FrameFeatures(previous, face), FrameFeatures(maps, face), gate),)


def _as_tuple(value: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return value if isinstance(value, tuple) else (value,)
