"""The process in which `bench` measures one backend; prints one line of JSON.

python -m export.bench_worker DIRECTORY BACKEND DEVICE SECONDS
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from emostream.errors import EmostreamError
from emostream.inference.encoders import Encoders, TorchEncoders
from emostream.model.configuration import EmostreamConfig
from emostream.model.connector import FrameFeatures
from emostream.model.modeling import EmostreamForCausalLM
from export.manifest import Manifest
from export.onnx.graphs import GRAPHS, Case, context_frames
from export.runtime import load_encoders
from export.timing import ceilings, memory_bytes, summary, timed
from export.verify import load_exported


def measure(folder: Path, backend: str, device: torch.device, seconds: float) -> dict[str, Any]:
    """Rows of every graph at each of its cases, and of what one hop of one source costs."""
    manifest = Manifest.read(folder)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32  # as `emostream run`
    model = None
    if backend == "torch":
        model, _ = load_exported(manifest, folder, device, dtype)
        config = model.config
        before = memory_bytes(device)
        encoders: Encoders = TorchEncoders(model)
        weights = sum(_weights(model, graph.name) for graph in GRAPHS if graph.name != "join")
    else:
        config = load_config(manifest)
        before = memory_bytes(device)
        encoders = load_encoders(folder, device, dtype, backend)
        weights = 0  # part of what is measured
    ceiling = ceilings(device, dtype, seconds) if model is not None else None
    rows = []
    for graph in GRAPHS:
        for case in graph.cases:
            inputs = graph.example(config, case)
            call = _call(encoders, graph.name, inputs)
            times = summary(timed(call, device, seconds))
            row = {"graph": graph.name, "case": _name(case, config), **times}
            if model is not None and ceiling is not None:
                row |= _floor(call, _weights(model, graph.name), ceiling)
            rows.append(row)
    hop = _hop(encoders, config)
    rows.append(
        {"graph": "hop", "case": "1 frame, 2 pairs, audio", **summary(timed(hop, device, seconds))}
    )
    after = memory_bytes(device)
    return {
        "backend": backend,
        "description": encoders.description,
        "ceilings": ceiling,
        "memory_mb": None if before is None or after is None else (after - before + weights) / 1e6,
        "rows": rows,
    }


def load_config(manifest: Manifest) -> EmostreamConfig:
    """The checkpoint's configuration without its weights."""
    from emostream.model.processor import EmostreamProcessor

    config: EmostreamConfig = EmostreamProcessor.from_pretrained(manifest.checkpoint).config
    return config


def _name(case: Case, config: EmostreamConfig) -> str:
    seconds = context_frames(config, short=case.short) / 100
    return f"{case.batch} × {seconds:g} s" if case.short else str(case.batch)


def _call(encoders: Encoders, name: str, inputs: tuple[Tensor, ...]) -> Callable[[], Any]:
    """What the streaming encoder calls, with inputs where it has them: media on the host, features on the device."""
    if name == "vision":
        return lambda: encoders.vision(*inputs)
    if name == "audio":
        return lambda: encoders.audio(*inputs)
    previous, maps, face, gate = (value.to(encoders.device) for value in inputs)
    before, now = FrameFeatures(previous, face), FrameFeatures(maps, face)
    return lambda: encoders.join(before, now, gate)


def _hop(encoders: Encoders, config: EmostreamConfig) -> Callable[[], Any]:
    calls = [
        _call(encoders, graph.name, graph.example(config, Case(name="hop", batch=batch)))
        for graph, batch in zip(GRAPHS, (1, 2, 1), strict=True)
    ]
    return lambda: [call() for call in calls]


def _weights(model: EmostreamForCausalLM, name: str) -> int:
    """Bytes of the weights that a graph reads."""
    core = model.model
    connector, face = core.mm_projector, core.mm_projector.mlp_2xgelu_face
    framewise = [connector.s1_video, connector.s1_body, face]
    modules: dict[str, list[Any]] = {
        "vision": [core.vision_tower, *framewise],
        "audio": [core.audio_tower, core.audio_projector],
        "join": [part for part in connector.children() if part not in framewise],
    }
    return sum(p.nbytes for module in modules[name] for p in module.parameters())


def _floor(call: Callable[[], Any], weights: int, ceiling: dict[str, float]) -> dict[str, Any]:
    """The least time: of the arithmetic at the speed of a matrix product, of the weights at that of a copy."""
    with FlopCounterMode(display=False) as counter:
        call()
    flops = counter.get_total_flops()
    floor_s = max(flops / ceiling["flops_per_s"], weights / ceiling["bytes_per_s"])
    return {"gflop": flops / 1e9, "weights_mb": weights / 1e6, "floor_ms": 1e3 * floor_s}


def main() -> int:
    """Measure and print."""
    folder, backend, device, seconds = sys.argv[1:]
    try:
        found = measure(Path(folder), backend, torch.device(device), float(seconds))
    except EmostreamError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(json.dumps(found) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
