"""Torch, ONNX Runtime and TensorRT side by side: encoders and label a hop, words a second, sources at 2 Hz.

    python benchmarks/encoders.py --preset 0.5b --device cpu --audio-context-s 5
    python benchmarks/encoders.py --preset 0.5b --device cpu --audio-context-s 5 --dtype bfloat16
    python benchmarks/encoders.py --preset 0.5b --device cuda

On a CPU: torch in fp32, ONNX Runtime in fp32 and int8. On a CUDA GPU: torch in bf16, ONNX Runtime in fp16 and TensorRT
in fp16. A preset has random weights, which cost what trained ones cost; --model takes a checkpoint. The engines are
built first, into --work, and stay there for the next time if it is named. --dtype is the language model's: float32 on
a CPU and bfloat16 on a GPU unless named. Each backend is measured in a process of its own, one after the other. `cpu`
is processor time, which other processes on the machine inflate far less than wall time.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from provenance import write_result
from rich.console import Console
from rich.table import Table

from emostream import load_model, save_model
from emostream.inference.recognizer import Recognizer
from emostream.inference.streaming import MediaWindow
from emostream.model.presets import PRESETS, from_preset
from emostream.sampling import SAMPLE_RATE_HZ
from export.bench import bench
from export.bench import table as graph_table
from export.build import BuildOptions, build
from export.onnx.precision import Precision, Target
from export.runtime import load_encoders
from export.timing import summary, timed

STEP_S = 0.5
MOST_SOURCES = 64
TOKENS = 48
SHORT = {"float32": "fp32", "bfloat16": "bf16"}


@dataclass(frozen=True, kw_only=True)
class Contender:
    """What is compared: torch has no target, and computes as the language model does."""

    backend: str
    precision: Precision | None = None
    target: Target | None = None

    def name(self, dtype: str) -> str:
        """Of its row and of its folder."""
        return f"{self.backend}-{self.precision or SHORT[dtype]}"


CONTENDERS = {
    "cpu": (
        Contender(backend="torch"),
        Contender(backend="onnxruntime", precision="fp32", target="onnx"),
        Contender(backend="onnxruntime", precision="int8", target="onnx"),
    ),
    "cuda": (
        Contender(backend="torch"),
        Contender(backend="onnxruntime", precision="fp16", target="onnx"),
        Contender(backend="tensorrt", precision="fp16", target="tensorrt"),
    ),
}


def cpu_ms(function: Callable[[], Any], runs: int) -> float:
    """Processor time of a run, of all threads together."""
    begun_s = time.process_time()
    for _ in range(runs):
        function()
    return (time.process_time() - begun_s) * 1e3 / runs


@torch.inference_mode()
def live(
    checkpoint: str,
    engines: Path | None,
    backend: str,
    device: torch.device,
    dtype: torch.dtype,
    context_s: float,
) -> dict[str, Any]:
    """What a source costs, and how many there may be; runs in a process of its own."""
    model, processor = load_model(checkpoint, device, dtype)
    processor.audio_context_s = context_s or None
    encoders = None if engines is None else load_encoders(engines, device, dtype, backend)
    recognizer = Recognizer(model, processor, encoders=encoders, max_new_tokens=TOKENS)
    count = model.config.num_frames
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (2 * count, 480, 640, 3), dtype=np.uint8)
    pcm = rng.uniform(-0.3, 0.3, int(SAMPLE_RATE_HZ * STEP_S * count)).astype(np.float32)
    end = count

    def windows(sources: int) -> list[MediaWindow]:
        nonlocal end
        end += 1
        keys = tuple(range(end - count, end))
        frames = tuple(pictures[key % len(pictures)] for key in keys)
        return [
            MediaWindow(source=str(i), keys=keys, frames=frames, audio=pcm) for i in range(sources)
        ]

    def hop(sources: int = 1) -> None:
        recognizer.recognize(windows(sources))

    def encode() -> None:
        recognizer.encoder.encode(windows(1))

    def scratch() -> None:
        recognizer.forget("0")
        hop()

    found: dict[str, Any] = {"runs_on": recognizer.runs_on}
    for name, function in (("encode", encode), ("label", hop), ("first label", scratch)):
        runs = timed(function, device, 3.0)
        found[name] = summary(runs) | {"cpu_ms": cpu_ms(function, max(1, len(runs) // 4))}
    [recognition] = recognizer.recognize(windows(1))
    recognizer.start_reasoning(recognition)
    recognizer.reason()
    tokens, begun_s = 0, time.perf_counter()
    while recognizer.reason():
        tokens += 1
    if device.type == "cuda":
        torch.cuda.synchronize()
    found["tokens_per_s"] = tokens / (time.perf_counter() - begun_s)
    found["hop_of_n_sources"] = {}
    found["sources_at_2_hz"] = 0
    sources = 1
    while sources <= MOST_SOURCES:
        figures = summary(timed(lambda n=sources: hop(n), device, 2.0))  # type: ignore[misc]
        found["hop_of_n_sources"][sources] = figures
        if figures["p95_ms"] > 1e3 * STEP_S:
            break
        found["sources_at_2_hz"] = sources
        sources *= 2
    found["gpu_memory_mb"] = (
        torch.cuda.mem_get_info()[1] - torch.cuda.mem_get_info()[0]
    ) / 1e6 if device.type == "cuda" else None  # fmt: skip
    found["peak_memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return found


def worker(arguments: list[str]) -> dict[str, Any]:
    """`live` in a process of its own."""
    command = [sys.executable, __file__, "--worker", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def show(results: list[dict[str, Any]], console: Console) -> None:
    """A row for each backend."""
    table = Table("backend", title="p50 / p95 ms (× torch by p50; cpu ms)")
    for name in ("encode a hop", "label", "first label", "tokens/s", "sources at 2 Hz", "peak MB"):
        table.add_column(name, justify="right")
    first = results[0]
    for row in results:
        cells = [row["name"]]
        for key in ("encode", "label", "first label"):
            ratio = first[key]["p50_ms"] / row[key]["p50_ms"]
            cells.append(
                f"{row[key]['p50_ms']:.1f} / {row[key]['p95_ms']:.1f} (× {ratio:.2f}; {row[key]['cpu_ms']:.0f})"
            )
        cells += [f"{row['tokens_per_s']:.1f}", str(row["sources_at_2_hz"])]
        table.add_row(*cells, f"{row['gpu_memory_mb'] or row['peak_memory_mb']:.0f}")
    console.print(table)


def main() -> None:
    """Build what is missing, then measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", choices=PRESETS, default="tiny")
    parser.add_argument("--model", help="checkpoint folder, hub id or tiny, instead of a preset")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=SHORT, help="of the language model")
    parser.add_argument("--audio-context-s", type=float, default=0.0, help="0 is the model's own")
    parser.add_argument(
        "--only", action="append", help="backends by name, such as onnxruntime-int8"
    )
    parser.add_argument("--work", type=Path, help="folder of checkpoint and engines, kept")
    parser.add_argument("--graphs", action="store_true", help="each graph by itself, too")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    console, kind = Console(width=130), torch.device(options.device).type
    dtype = options.dtype or ("bfloat16" if kind == "cuda" else "float32")
    with tempfile.TemporaryDirectory() as scratch:
        work = options.work or Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        checkpoint = options.model or str(work / options.preset)
        if options.model is None and not Path(checkpoint).is_dir():
            save_model(*from_preset(options.preset), checkpoint)
        results, graphs = [], {}
        for contender in CONTENDERS[kind]:
            name = contender.name(dtype)
            if options.only and name not in options.only:
                continue
            folder = work / f"{Path(checkpoint).name}-{name}"
            arguments = [checkpoint, "-", contender.backend, options.device, dtype]
            if contender.target is not None:
                wanted = BuildOptions(
                    target=contender.target, precision=contender.precision, device=options.device
                )
                build(checkpoint, folder, say=console.print, options=wanted)
                arguments[1] = str(folder)
                if options.graphs:
                    graphs[name] = bench(folder, device=options.device, say=console.print)
                    console.print(graph_table(graphs[name]))
            found = worker([*arguments, str(options.audio_context_s)])
            results.append({"name": name, **found})
            # At once: the next backend may take longer than somebody has a GPU for.
            print(json.dumps(results[-1]), flush=True)
        show(results, console)
    benchmark = "_".join(("encoders", Path(checkpoint).name, kind, *filter(None, [options.dtype])))
    measured = {
        "model": checkpoint if options.model else options.preset,
        "dtype": dtype,
        "audio_context_s": options.audio_context_s or None,
        "backends": results,
        "graphs": graphs,
    }
    write_result(benchmark, measured, options.out)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        checkpoint, engines, backend, device, dtype, context_s = sys.argv[2:]
        folder = None if engines == "-" else Path(engines)
        where, precision = torch.device(device), getattr(torch, dtype)
        print(json.dumps(live(checkpoint, folder, backend, where, precision, float(context_s))))
    else:
        main()
