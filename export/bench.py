"""`emostream-export bench`: latency and memory of the engines beside torch and beside what the hardware allows.

Each backend is measured in a process of its own, so that none warms, fills or fragments what another measures.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.table import Table

from export.environment import engine_device, installed_versions, machine
from export.errors import ExportError
from export.manifest import Manifest


def bench(
    folder: Path, *, device: str | None, seconds: float = 1.0, say: Callable[[str], None]
) -> dict[str, Any]:
    """Measure torch and every backend that the directory and this host have.

    Args:
        folder: Export directory.
        device: Where engines and torch run; None is the GPU if there is one that the runtime can use.
        seconds: How long each case is measured; three times at least.
        say: Told of each step.

    Raises:
        ExportError: The directory is not whole, or a backend that it was built for does not run here.
    """
    manifest = Manifest.read(folder)
    device = str(engine_device(device, manifest.target, manifest.precision))
    backends = ["torch", "onnxruntime"]
    if manifest.target == "tensorrt":
        backends.append("tensorrt")
    measured = []
    for backend in backends:
        # A directory of plans can be served without ONNX Runtime.
        if backend == "onnxruntime" and manifest.target == "tensorrt" and not _has_onnxruntime():
            say("onnxruntime: not installed, left out")
            continue
        if backend == "onnxruntime" and "bf16" in manifest.precisions:
            say("onnxruntime: runs no bf16 graph, left out")
            continue
        say(f"measuring {backend} on {device}")
        measured.append(_measure(folder, backend, device, seconds))
        say(f"  {measured[-1]['description']}")
    return {
        "checkpoint": manifest.checkpoint,
        "precisions": manifest.precisions,
        "device": device,
        "machine": machine(),
        "versions": installed_versions(),
        "backends": measured,
    }


def table(result: dict[str, Any]) -> Table:
    """For people: a row for each graph and batch, a column for each backend."""
    backends = result["backends"]
    out = Table(
        "graph",
        title=f"{result['checkpoint']} on {result['device']}: p50 / p95 ms",
        caption=", ".join(b["description"] for b in backends),
    )
    out.add_column("case")
    out.add_column("floor ms", justify="right")
    for measured in backends:
        out.add_column(measured["backend"], justify="right")
        if measured["backend"] != "torch":
            out.add_column("× torch", justify="right")
    for index, reference in enumerate(backends[0]["rows"]):
        floor = reference.get("floor_ms")
        cells = [reference["graph"], reference["case"], "" if floor is None else f"{floor:.2f}"]
        for measured in backends:
            row = measured["rows"][index]
            cells.append(f"{row['p50_ms']:.2f} / {row['p95_ms']:.2f}")
            if measured["backend"] != "torch":
                cells.append(f"{reference['p50_ms'] / row['p50_ms']:.2f}")
        out.add_row(*cells)
    cells = ["memory", "MB", ""]
    for measured in backends:
        cells.append("" if measured["memory_mb"] is None else f"{measured['memory_mb']:.0f}")
        if measured["backend"] != "torch":
            cells.append("")
    out.add_row(*cells)
    return out


def _has_onnxruntime() -> bool:
    return any(name.startswith("onnxruntime") for name in installed_versions())


def _measure(folder: Path, backend: str, device: str, seconds: float) -> dict[str, Any]:
    command = [sys.executable, "-P", "-m", "export.bench_worker", str(folder), backend, device]
    command.append(str(seconds))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise ExportError(f"bench: {backend} on {device}: {lines[-1]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
