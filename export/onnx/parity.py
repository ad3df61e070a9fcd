"""Graphs, run by the runtime that serves them, against torch in float32."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from emostream.inference.encoders import Encoders, TorchEncoders
from emostream.inference.streaming import MediaWindow, StreamingEncoder
from emostream.model.connector import FrameFeatures
from emostream.model.modeling import EmostreamForCausalLM
from emostream.model.processor import EmostreamProcessor
from export.onnx.graphs import Graph
from export.onnx.precision import TOLERANCES, loosest

Rows = list[dict[str, Any]]
PICTURE_SIDE = 64


@torch.inference_mode()
@torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
def compare(graph: Graph, model: EmostreamForCausalLM, encoders: Encoders, precision: str) -> Rows:
    """Every output of a graph at its least, usual and largest shapes.

    Args:
        graph: Which.
        model: In float32, on the device of the encoders.
        encoders: What serves it.
        precision: Of the graph.
    """
    rows, tolerance = [], TOLERANCES[precision]
    module = graph.module(model).eval()
    for case in graph.cases:
        inputs = tuple(value.to(model.device) for value in graph.example(model.config, case))
        wanted = module(*inputs)
        found = _served(graph.name, encoders, inputs)
        shapes = {
            name: list(shape) for name, shape in graph.case_shapes(model.config, case).items()
        }
        for name, a, b in zip(graph.outputs, _as_tuple(wanted), found, strict=True):
            rows.append(
                {
                    "graph": graph.name,
                    "output": name,
                    "case": case.name,
                    "batch": case.batch,
                    "inputs": shapes,
                    "precision": precision,
                    **(errors := difference(a, b.float())),
                    "passed": errors["finite"]
                    and errors["relative_l2"] <= tolerance.relative_l2
                    and errors["cosine"] >= tolerance.cosine,
                }
            )
    return rows


def difference(wanted: Tensor, found: Tensor) -> dict[str, Any]:
    """How far one tensor is from another; non-finite values are no distance."""
    finite = bool(torch.isfinite(found).all())
    if not finite:
        return {"finite": False, "max_abs": None, "relative_l2": None, "cosine": None}
    a, b = wanted.double().flatten(), found.double().flatten()
    return {
        "finite": True,
        "max_abs": float((b - a).abs().max()),
        "relative_l2": float((b - a).norm() / a.norm()),
        "cosine": float(torch.cosine_similarity(a, b, dim=0)),
    }


@torch.inference_mode()
@torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
def compare_streaming(
    model: EmostreamForCausalLM,
    processor: EmostreamProcessor,
    encoders: Encoders,
    entries: Sequence[dict[str, Any]],
) -> Rows:
    """A window that moved on by one frame, encoded from the cache, against the same encoded whole.

    Once by the same engine, and once by torch.

    Args:
        model: In float32, on the device of the encoders.
        processor: Its own.
        encoders: What serves.
        entries: Of their graphs in the manifest.
    """
    count, config = model.config.num_frames, model.config
    pictures = np.random.default_rng(0).integers(
        0, 256, (count + 1, PICTURE_SIDE, PICTURE_SIDE, 3), dtype=np.uint8
    )
    gate = torch.tensor([0.3, 0.3, 0.4])
    precision = loosest([graph["precision"] for graph in entries])

    def encode(encoder: StreamingEncoder, start: int) -> Tensor:
        keys = tuple(range(start, start + count))
        frames = tuple(pictures[key] for key in keys)
        [tokens] = encoder.encode([MediaWindow(source="s", keys=keys, frames=frames)])
        assert tokens.visual is not None
        return tokens.visual.float()

    def encoder_of(what: Encoders) -> StreamingEncoder:
        return StreamingEncoder(what, processor, gate.to(what.device))

    moving = encoder_of(encoders)
    encode(moving, 0)
    incremental = encode(moving, 1)
    whole = encode(encoder_of(encoders), 1)
    torch_whole = encode(encoder_of(TorchEncoders(model)), 1)
    rows = []
    for name, against in (
        ("same engine, whole window", whole),
        ("torch, whole window", torch_whole),
    ):
        errors = difference(against, incremental)
        tolerance = TOLERANCES[precision]
        rows.append(
            {
                "graph": "streaming",
                "output": name,
                "case": f"{count} frames, 1 new",
                "batch": 1,
                "inputs": {"frames": [count, config.vision_config.image_size]},
                "precision": precision,
                **errors,
                "passed": errors["finite"] and errors["relative_l2"] <= tolerance.relative_l2,
            }
        )
    return rows


def worst(rows: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Of each graph the row that is furthest off, as the manifest keeps it."""
    out: dict[str, dict[str, Any]] = {}
    for row in rows:
        name = row["graph"]
        if name not in out or _badness(row) > _badness(out[name]):
            out[name] = {
                key: row[key]
                for key in ("precision", "max_abs", "relative_l2", "cosine", "finite", "passed")
            }
    return out


def as_line(row: dict[str, Any]) -> str:
    """A row for people."""
    mark = "PASS" if row["passed"] else "FAIL"
    name = (
        f"{row['graph']} {row['output']}, {row['case']} (batch {row['batch']}), {row['precision']}"
    )
    if not row["finite"]:
        return f"{mark}  {name}: not finite"
    allowed = TOLERANCES[row["precision"]]
    return (
        f"{mark}  {name}: max abs {row['max_abs']:.2e}, relative L2 {row['relative_l2']:.2e} "
        f"(≤ {allowed.relative_l2:g}), cosine {row['cosine']:.7f} (≥ {allowed.cosine:g})"
    )


def _badness(row: dict[str, Any]) -> float:
    return float("inf") if row["relative_l2"] is None else float(row["relative_l2"])


def _served(name: str, encoders: Encoders, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Through the calls that the streaming encoder makes."""
    if name == "vision":
        return tuple(encoders.vision(*inputs))
    if name == "audio":
        return (encoders.audio(*inputs),)
    previous, maps, face, gate = inputs
    return (encoders.join(FrameFeatures(previous, face), FrameFeatures(maps, face), gate),)


def _as_tuple(value: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return value if isinstance(value, tuple) else (value,)
