"""Latency of each part of the model, beside the time that its arithmetic or its bytes need at least.

    python benchmarks/model.py --preset tiny --preset 0.5b

The two ceilings, FLOP/s of a large matrix product and bytes/s of a large copy, are measured in the same run; a part's
floor is the larger of its operations over the one and the bytes of its weights (and, decoding, of its cache) over the
other. Weights are random: they cost what trained ones cost.
"""

import argparse
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from provenance import write_result
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from emostream import load_model
from emostream.inference.cuda_graphs import GraphedFunction
from emostream.inference.encoders import Encoders, TorchEncoders
from emostream.inference.recognizer import Recognizer
from emostream.inference.streaming import MediaWindow
from emostream.model.connector import FrameFeatures
from emostream.model.presets import OWN_SIZES, PRESETS, from_preset
from emostream.sampling import SAMPLE_RATE_HZ
from export.manifest import Manifest
from export.runtime import load_encoders
from export.timing import ceilings, timed

STEP_S = 0.5
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@contextmanager
def uncaptured() -> Iterator[None]:
    """What is captured runs several times at first and counts as nothing later: plain calls count once."""
    replayed = GraphedFunction.__call__
    GraphedFunction.__call__ = lambda self, key, *inputs: self._function(*inputs)  # type: ignore[method-assign]
    try:
        yield
    finally:
        GraphedFunction.__call__ = replayed  # type: ignore[method-assign]


class Bench:
    """Collects rows of one preset."""

    def __init__(self, device: torch.device, ceiling: dict[str, float]):
        self.device, self.ceiling = device, ceiling
        self.rows: list[dict[str, Any]] = []

    def add(
        self,
        name: str,
        function: Callable[[], Any],
        *,
        weights: torch.nn.Module | None = None,
        extra_bytes: int = 0,
        flops: bool = True,
    ) -> dict[str, Any]:
        """Measure a part; `weights` and `extra_bytes` are what it must read at least."""
        operations = 0
        if flops:
            with FlopCounterMode(display=False) as counter, uncaptured():
                function()
            operations = counter.get_total_flops()
        read = extra_bytes + (sum(p.nbytes for p in weights.parameters()) if weights else 0)
        floor_ms = 1e3 * max(
            operations / self.ceiling["flops_per_s"], read / self.ceiling["bytes_per_s"]
        )
        runs = timed(function, self.device)
        row = {
            "part": name,
            "p50_ms": statistics.median(runs),
            "min_ms": min(runs),
            "runs": len(runs),
            "gflop": operations / 1e9,
            "mbytes": read / 1e6,
            "floor_ms": floor_ms or None,
        }
        self.rows.append(row)
        return row


@torch.inference_mode()
def measure(
    preset: str,
    device: torch.device,
    dtype: torch.dtype,
    ceiling: dict[str, float],
    context_s: float | None,
    engines: Path | None = None,
) -> dict[str, Any]:
    """All parts of one preset, or of an export directory's checkpoint, at one audio context (None: the tower's own)."""
    if engines is None:
        model, processor = from_preset(preset)
        model.to(device, dtype)
    else:
        model, processor = load_model(preset, device, dtype)
    processor.audio_context_s = context_s
    config = model.config
    frames_n, side = config.num_frames, 480
    rng = np.random.default_rng(0)
    # Few pictures serve many hops: keys tell frames apart, not pixels.
    pictures = rng.integers(0, 256, (2 * frames_n, side, side * 4 // 3, 3), dtype=np.uint8)
    pcm = rng.uniform(-0.3, 0.3, int(SAMPLE_RATE_HZ * STEP_S * frames_n)).astype(np.float32)
    bench = Bench(device, ceiling)
    backbone = model.model
    encoders: Encoders = TorchEncoders(model)
    if engines is not None:
        encoders = load_encoders(engines, device, dtype)

    pixels = processor.pixels(pictures[:frames_n])
    mel = processor.mel(pcm)[None]
    bench.add("preprocess 1 frame", lambda: processor.pixels(pictures[:1]), flops=False)
    bench.add("preprocess audio", lambda: processor.mel(pcm), flops=False)
    tower = backbone.vision_tower
    on_device = pixels.to(device, dtype)
    bench.add("vision 1 frame", lambda: tower(on_device[:1]), weights=tower)
    bench.add(f"vision {frames_n} frames", lambda: tower(on_device), weights=tower)
    features = tower(on_device)
    connector = backbone.mm_projector
    bench.add("connector, frame stage, 1 frame", lambda: connector.frame(features[:1]))
    staged = connector.frame(features)
    gate = torch.full((3,), 1 / 3, device=device, dtype=dtype)
    pair = FrameFeatures(staged.maps[:2], staged.face[:2])
    bench.add("connector, join, 2 steps", lambda: connector.join(pair, pair, gate))
    bench.add(
        f"audio {mel.shape[2] / 100:g} s", lambda: encoders.audio(mel), weights=backbone.audio_tower
    )

    if engines is not None:
        bench.add("engines, vision 1 frame", lambda: encoders.vision(pixels[:1]), flops=False)
        bench.add("engines, join 2 steps", lambda: encoders.join(pair, pair, gate), flops=False)
    recognizer = Recognizer(model, processor, encoders=encoders, max_new_tokens=64)

    def window(end: int) -> MediaWindow:
        keys = tuple(range(end - frames_n, end))
        shown = tuple(pictures[key % len(pictures)] for key in keys)
        return MediaWindow(source="s", keys=keys, frames=shown, audio=pcm)

    tokens = recognizer.encoder.encode([window(frames_n)])
    prefill = bench.add(
        "prefill and candidates",
        lambda: recognizer._prefill.run(tokens),
        weights=backbone.layers,
    )
    hidden, _ = recognizer._prefill.run(tokens)
    bench.add(
        "label scores",
        lambda: recognizer._tree.scores(model.lm_head(hidden).float().log_softmax(-1)),
        weights=model.lm_head,
    )
    end = frames_n

    def hop() -> None:
        nonlocal end
        end += 1
        recognizer.recognize([window(end)])

    def whole() -> None:
        recognizer.encoder.forget("s")
        recognizer.recognize([window(end)])

    whole_row = bench.add("window from scratch to label", whole)
    hop_row = bench.add("hop: one new frame to label", hop)
    once_a_hop = {
        "vision 1 frame",
        "connector, frame stage, 1 frame",
        "connector, join, 2 steps",
        f"audio {mel.shape[2] / 100:g} s",
        "prefill and candidates",
        "label scores",
    }
    hop_row["floor_ms"] = sum(r["floor_ms"] for r in bench.rows if r["part"] in once_a_hop)

    result = recognizer.recognize([window(end)])[0]
    length = result.prefilled.length
    cache = result.prefilled.cache
    cache_bytes = sum(t[0, :, :length].nbytes for t in (*cache.keys, *cache.values))

    def one_token() -> None:
        if not recognizer.reasoning_sources:
            recognizer.start_reasoning(recognizer.recognize([window(end)])[0])
        recognizer.reason()

    one_token()
    decoding = torch.nn.ModuleList([backbone.layers, model.lm_head])
    bench.add("decode, 1 token", one_token, weights=decoding, extra_bytes=cache_bytes, flops=False)
    recognizer.stop_reasoning("s")
    sources = {}
    for count in (2, 4, 8):
        many = Recognizer(model, processor, encoders=encoders)

        def many_hop(many: Recognizer = many, count: int = count) -> None:
            nonlocal end
            end += 1
            base = window(end)
            many.recognize([
                MediaWindow(source=str(i), keys=base.keys, frames=base.frames, audio=pcm)
                for i in range(count)
            ])  # fmt: skip

        if Path(preset).name in OWN_SIZES or device.type == "cuda":
            sources[count] = statistics.median(timed(many_hop, device))
    return {
        "preset": preset,
        "encoders": encoders.description,
        "dtype": str(dtype).removeprefix("torch."),
        "audio_context_s": context_s or processor.max_context_s,
        "parameters": sum(p.numel() for p in model.parameters()),
        "prompt_tokens": length,
        "rows": bench.rows,
        "hop_speedup": whole_row["p50_ms"] / hop_row["p50_ms"],
        "prefill_floor_ratio": prefill["p50_ms"] / prefill["floor_ms"],
        "hop_of_n_sources_ms": sources,
    }


def show(result: dict[str, Any], console: Console) -> None:
    """A table of one preset."""
    title = (
        f"{result['preset']}, {result['dtype']}, {result['audio_context_s']:g} s of audio context, "
        f"{result['parameters'] / 1e6:.1f} M parameters, {result['prompt_tokens']} prompt tokens"
    )
    table = Table("part", title=title)
    for name in ("p50 ms", "floor ms", "× floor", "GFLOP", "MB"):
        table.add_column(name, justify="right")
    for row in result["rows"]:
        floor = row["floor_ms"]
        table.add_row(
            row["part"],
            f"{row['p50_ms']:.2f}",
            f"{floor:.2f}" if floor else "",
            f"{row['p50_ms'] / floor:.1f}" if floor else "",
            f"{row['gflop']:.2f}",
            f"{row['mbytes']:.1f}",
        )
    console.print(table)
    for count, ms in result["hop_of_n_sources_ms"].items():
        console.print(f"{count} sources a hop: {ms:.1f} ms")


def main() -> None:
    """Measure the presets asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", action="append", choices=PRESETS)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=DTYPES, default="fp32")
    parser.add_argument(
        "--engines", type=Path, help="export directory: its checkpoint, with the encoders from it"
    )
    parser.add_argument("--out", type=Path, help="results file; default results/model_DEVICE.json")
    options = parser.parse_args()
    device, dtype = torch.device(options.device), DTYPES[options.dtype]
    console = Console(width=110)
    ceiling = ceilings(device, dtype)
    console.print(
        f"ceilings: {ceiling['flops_per_s'] / 1e9:.0f} GFLOP/s, {ceiling['bytes_per_s'] / 1e9:.1f} GB/s"
    )
    results = []
    presets = options.preset or ["tiny", "0.5b"]
    if options.engines is not None:
        presets = [Manifest.peek(options.engines).checkpoint]
    for preset in presets:
        # The published 30 s context, and the shorter one that a 4 s window needs.
        for context_s in (None,) if Path(preset).name in OWN_SIZES else (None, 5.0):
            results.append(measure(preset, device, dtype, ceiling, context_s, options.engines))
            show(results[-1], console)
    name = f"model_{device.type}_{options.dtype}"
    if options.engines is not None:
        name += f"_{'_'.join(Manifest.peek(options.engines).precisions)}_encoders"
    write_result(name, {"ceilings": ceiling, "results": results}, options.out)


if __name__ == "__main__":
    main()
